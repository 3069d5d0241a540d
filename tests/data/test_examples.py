"""Laws of the rows of downstream tasks, alone and through the pipeline."""

import numpy as np
import pytest

from semmim_jax.data import examples, pipeline
from semmim_jax.data.answers import vqa_accuracy
from semmim_jax.data.readers import sources
from semmim_jax.data.text import clean_caption
from semmim_jax.data.tokenizer import make_tokenizer
from tests.data.batches import first_batches
from tests.data.readers.test_readers import annotation, picture, vqa, write
from tests.data.test_pipeline import joined_batches

KINDS = {
    'pretrain': examples.PretrainExamples,
    'retrieval': examples.RetrievalExamples,
    'generate': examples.GenerateExamples,
    'self_critical': examples.SelfCriticalExamples,
    'classify': examples.ClassifyExamples,
}


@pytest.fixture
def config(data_config):
    """The shipped data section with what the configs of downstream tasks add to it."""
    data_config.update(max_prompt_tokens=16, max_target_tokens=6, min_answer_count=1)
    data_config.emoji_scenes.update(train_size=40, eval_size=10)
    return data_config


def make(config, kind, spec, size=600):
    source = sources.make_source(spec, config)
    tokenizer = make_tokenizer('', texts=source.vocabulary_texts(), size=size)
    chosen, labels = KINDS[kind], ()
    if kind == 'classify':
        labels = source.label_names(min_count=config.min_answer_count)
    row = chosen.of(tokenizer, config, labels=labels)
    row.check_source(source)
    return source, row


def batches(source, row, config, count, **changes):
    return first_batches(source, row, config, count, **{'batch_size': 6, 'seed': 3, **changes})


def first(source, row, config):
    (batch,) = batches(source, row, config, 1)
    return {name: (value.dtype, value.shape) for name, value in batch.items()}


PLACE = {'image_id': (np.int32, (6,)), 'index': (np.int64, (6,)), 'replaced': (np.int32, (6,))}
IMAGE, PAIR = (np.uint8, (6, 64, 64, 3)), (np.uint8, (6, 2, 64, 64, 3))


@pytest.mark.parametrize(
    ('kind', 'spec', 'fields'),
    [
        ('retrieval', 'emoji_scenes:train', {'image': IMAGE, 'ids': (np.int32, (6, 25))}),
        (
            'generate',
            'emoji_questions:train',
            {
                'image': IMAGE,
                'prompt': (np.int32, (6, 16)),
                'target': (np.int32, (6, 6)),
                'weight': (np.float32, (6,)),
            },
        ),
        (
            'classify',
            'emoji_statements:train',
            {'images': PAIR, 'ids': (np.int32, (6, 25)), 'label': (np.int32, (6,))},
        ),
        (
            'classify',
            'emoji_questions:train',
            {'image': IMAGE, 'ids': (np.int32, (6, 25)), 'label': (np.float32, (6, 178))},
        ),
    ],
)
def test_fields(config, kind, spec, fields):
    assert first(*make(config, kind, spec), config) == {**fields, **PLACE}


def test_captions_are_targets_without_a_prompt(config):
    config.max_target_tokens = 30
    source, row = make(config, 'generate', 'emoji_scenes:train')
    for batch in batches(source, row, config, 3):
        for r, index in enumerate(batch['index'].tolist()):
            cleaned = {clean_caption(c, max_words=30) for c in source.captions(index)}
            assert row.tokenizer.decode(batch['target'][r]) in cleaned
        assert (batch['weight'] == 1).all()
        assert (batch['prompt'][:, 2:] == 0).all()


def test_hosts_workers_and_start_do_not_matter_for_pairs(config):
    source, row = make(config, 'classify', 'emoji_statements:train')
    whole = batches(source, row, config, 5)
    for process in (0, 1):
        config.workers = process
        part = batches(source, row, config, 2, start_step=3, process_index=process, process_count=2)
        for ours, theirs in zip(part, whole[3:], strict=True):
            for name, value in ours.items():
                half = theirs[name][3 * process : 3 * process + 3]
                np.testing.assert_array_equal(value, half, err_msg=name)


def test_rows_belong_together(config):
    """Picture, question and answer of a row are those of one record; labels name the truth."""
    config.augment.update(crop_scale=(1.0, 1.0), ops=0, flip=False)
    source, row = make(config, 'generate', 'emoji_questions:train')
    _, classify = make(config, 'classify', 'emoji_questions:train')
    for batch in batches(source, row, config, 2):
        for r, index in enumerate(batch['index'].tolist()):
            record = source[index]
            assert row.tokenizer.decode(batch['prompt'][r]) == record['prompt']
            assert row.tokenizer.decode(batch['target'][r]) == record['targets'][0]
            np.testing.assert_array_equal(batch['image'][r], record['image'])
            label = classify.label(record)
            assert classify.labels[label.argmax()] == record['targets'][0]
            assert label.sum() == 1
    source, row = make(config, 'classify', 'emoji_statements:train')
    (batch,) = batches(source, row, config, 1)
    for r, index in enumerate(batch['index'].tolist()):
        assert row.labels[batch['label'][r]] == source.entry(index)['label']
        np.testing.assert_array_equal(batch['images'][r], np.stack(source[index]['images']))


def test_targets_are_drawn_by_weight_and_the_row_weighs_their_sum(config, tmp_path):
    """Mean of weight * [this target] over visits is each target's weight: ALBEF's sum."""
    line = {'image': 'a.png', 'prompt': 'p', 'targets': ['x', 'y'], 'weights': [0.6, 0.2]}
    picture(tmp_path / 'a.png')
    source, row = make(config, 'generate', f'jsonl:{write(tmp_path / "l.jsonl", [line])}', 100)
    record, rng = source[0], np.random.default_rng(0)
    total = dict.fromkeys(line['targets'], 0.0)
    for _ in range(1500):
        made = row(record, rng)
        total[row.tokenizer.decode(made['target'])] += made['weight'] / 1500
    # Three standard errors of a share of 3/4 among 1500 draws, times 0.8.
    assert total == pytest.approx({'x': 0.6, 'y': 0.2}, abs=0.03)


@pytest.mark.parametrize('references', [3, 7])
def test_references_are_the_captions_and_then_padding(config, references):
    """A scene has five captions; each is as if it were the target of a row of generate."""
    config.update(references=references, max_target_tokens=20)
    source, row = make(config, 'self_critical', 'emoji_scenes:train')
    (batch,) = batches(source, row, config, 1)
    assert batch['references'].shape == (6, references, 20) and 'target' not in batch
    for index, actual in zip(batch['index'], batch['references'], strict=True):
        np.testing.assert_array_equal(actual, row.references_of(source.entry(int(index))))
        texts = [row.clean(caption) for caption in source.captions(int(index))]
        encoded = [row.tokenizer.encode(t, 20, ended=True) for t in texts[:references]]
        np.testing.assert_array_equal(actual[: len(encoded)], encoded)
        assert len(encoded) == min(references, 5) and (actual[5:] == row.tokenizer.pad_id).all()


def test_a_long_prompt_keeps_its_end_and_both_marks(config):
    source, row = make(config, 'generate', 'emoji_dialog:train')
    ids = row.encode_prompt('is there a dog no ' * 9 + 'and a cat')
    assert ids[0] == row.tokenizer.cls_id
    assert ids[-1] == row.tokenizer.sep_id
    assert row.tokenizer.decode(ids).endswith('no and a cat')


def test_an_answer_longer_than_the_limit(config, tmp_path):
    lines = [{'image': 'a.png', 'targets': [t]} for t in ('one two three four', 'a b c d e')]
    with pytest.raises(ValueError, match=r"l.jsonl, line 2: the answer 'a b c d e' takes 7 .*=6"):
        make(config, 'generate', f'jsonl:{write(tmp_path / "l.jsonl", lines)}', 100)


def test_a_record_without_a_target(config, tmp_path):
    lines = [{'image': 'a.png', 'targets': ['x']}, {'image': 'a.png', 'prompt': 'y'}]
    for kind in ('generate', 'classify'):
        with pytest.raises(ValueError, match='line 2: no target to train on'):
            make(config, kind, f'jsonl:{write(tmp_path / "l.jsonl", lines)}', 100)


@pytest.mark.parametrize(
    ('kind', 'spec', 'message'),
    [
        ('pretrain', 'emoji_questions:train', 'pretrain needs captions'),
        ('retrieval', 'emoji_german:train', 'retrieval needs captions'),
        ('classify', 'emoji_scenes:train', 'classify needs labels or targets'),
        ('classify', 'emoji_german:train', 'classify needs labels or answers'),
    ],
)
def test_a_source_of_another_kind(config, kind, spec, message):
    with pytest.raises(ValueError, match=message):
        make(config, kind, spec)


def test_soft_labels_of_annotators(config, tmp_path):
    config.captions.image_root = str(tmp_path)
    config.min_answer_count = 2
    answers = [['cat'] * 7 + ['dog'] * 2 + ['a fox'], ['cat'] * 10, ['Dog'] * 10, ['dog'] * 10]
    questions = [{'question_id': n, 'image_id': 1, 'question': 'q'} for n in range(4)]
    annotations = [annotation(n, 1, given) for n, given in enumerate(answers)]
    _, spec = vqa(tmp_path, questions, annotations)
    source, row = make(config, 'classify', spec, 100)
    assert row.labels == ('cat', 'dog')  # the fox is too rare
    expected = [vqa_accuracy(name, answers[0]) for name in row.labels]
    np.testing.assert_allclose(row.label(source.entry(0)), expected, rtol=1e-6)


@pytest.mark.parametrize('shares', [[None], [(0, 1), (2, 3)]])
def test_evaluation_has_every_record_once_in_order(config, shares):
    source, row = make(config, 'generate', 'emoji_questions:val')
    joined = joined_batches(
        [pipeline.eval_batches(source, row, config, batch_size=4, local=local) for local in shares]
    )
    assert len(joined) == 3
    valid = np.concatenate([b['valid'] for b in joined])
    assert valid.tolist() == [True] * 10 + [False] * 2
    prompts = np.concatenate([b['prompt'] for b in joined])[valid]
    assert [row.tokenizer.decode(p) for p in prompts] == [
        source.entry(i)['prompt'] for i in range(10)
    ]
    np.testing.assert_array_equal(joined[1]['image'][1], source[5]['image'])
    assert set(joined[0]) == {'image', 'prompt', 'image_id', 'valid'}


def test_classify_evaluation_of_pairs(config):
    source, row = make(config, 'classify', 'emoji_statements:val')
    batch = next(pipeline.eval_batches(source, row, config, batch_size=4))
    assert batch['images'].shape == (4, 2, 64, 64, 3)
    assert set(batch) == {'images', 'ids', 'image_id', 'valid'}
