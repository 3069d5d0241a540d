"""The library and its command on runs of one step: shapes, batches, and agreement with a run."""

import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import PIL.Image
import pytest

import semmim_jax
from configs import caption, retrieval, vqa
from semmim_jax.data.readers.sources import make_source
from semmim_jax.evaluators.report import EvalData
from semmim_jax.inference.class_folders import classify_folder
from semmim_jax.inference.folder import predict_folder
from semmim_jax.inference.search_folder import index_folder, search_index
from semmim_jax.run.experiment import open_experiment
from semmim_jax.tasks.registry import find_task
from tests.golden_files import assert_close

IMAGES = 5


def one_step(config, workdir):
    """A run after a step that is not compiled: the averaged weights are the first ones."""
    config.data.eval = ''
    config.train.update(steps=1, async_save=False)
    run = open_experiment(config, str(workdir), find_task(config))
    state = run.restore_or_create()
    moved = jax.tree.map(lambda x: 0.9 * x + 0.01, state.params)
    state = state.replace(step=state.step + 1, params=moved)
    run.save(state)
    run.checkpoints.close()
    return state


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Scenes as files in two folders, and a file that is no image."""
    folder = tmp_path_factory.mktemp('images')
    (folder / 'more').mkdir()
    source = make_source('emoji_scenes:val', caption.get_config('tiny').data)
    for i in range(IMAGES):
        name = f'more/{i}.png' if i > 2 else f'{i}.png'
        PIL.Image.fromarray(source[i]['image']).save(folder / name)
    (folder / 'broken.png').write_bytes(b'no picture')
    return folder


@pytest.fixture(scope='module')
def matching(tmp_path_factory):
    workdir = tmp_path_factory.mktemp('retrieval')
    return workdir, one_step(retrieval.get_config('tiny'), workdir)


def test_importing_the_package_loads_nothing_heavy():
    code = 'import sys, semmim_jax; print({"jax", "flax", "numpy", "cv2"} & set(sys.modules))'
    process = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert process.stdout == 'set()\n', process.stderr


def test_features_and_matches_are_the_runs_own(matching, folder):
    workdir, state = matching
    model = semmim_jax.load(workdir, batch_size=2)
    paths = sorted(folder.rglob('[0-9].png'))
    texts = ['a dog', 'a cat and a bus on blue', 'scissors']
    features, words = model.encode_image(paths), model.encode_text(texts)
    assert features.shape == (IMAGES, 16) and words.shape == (3, 16)
    assert_close(np.linalg.norm(features, axis=1), np.ones(IMAGES))
    config = model.config
    source = make_source('emoji_scenes:val', config.data)
    data = EvalData(source, model.tokenizer, config.data, config.eval)
    batch = next(data.image_batches())
    task = find_task(config)(config, _special(model))
    fns = task.predict_fns()
    teacher = state.replace(params=state.ema_params)
    assert_close(features, fns['image'](teacher, batch['image'])[:IMAGES])
    match = model.match(paths, texts)
    assert match.shape == (IMAGES, 3) and ((match > 0) & (match < 1)).all()
    assert_close(model.encode_text('a dog'), words[:1])
    assert_close(model.encode_image(paths[0]), features[:1])
    pixels = [np.asarray(PIL.Image.open(path)) for path in paths]
    assert_close(model.encode_image(np.stack(pixels)), features)
    ids = np.stack([model.tokenizer.encode(text, config.data.max_tokens) for text in texts])
    text = fns['text'](teacher, ids)
    context, first = fns['context'](teacher, batch['image']), np.zeros(3, int)
    logits = fns['match'](teacher, context, first, text['tokens'], text['mask'])  # [3, 2]
    assert_close(match[0], 1 / (1 + np.exp(logits[:, 0] - logits[:, 1])))
    whole = semmim_jax.load(workdir, batch_size=8)
    assert_close(whole.match(paths, texts), match)
    with pytest.raises(ValueError, match="'retrieval' cannot do this; tasks that can: generate"):
        model.caption(paths)


def _special(model):
    from semmim_jax.ops.special_tokens import SpecialTokens

    tokens = model.tokenizer
    ids = dict(pad=tokens.pad_id, cls=tokens.cls_id, sep=tokens.sep_id, mask=tokens.mask_id)
    return SpecialTokens(**ids, vocab_size=tokens.vocab_size)


def test_answers_written_and_ranked(tmp_path, folder):
    config = vqa.get_config('tiny')
    config.task.rank = 3
    one_step(config, tmp_path)
    model = semmim_jax.load(tmp_path, batch_size=4)
    paths = sorted(folder.rglob('[0-9].png'))
    ranked = model.answer(paths, ['what color is the background'] * IMAGES)
    assert len(ranked) == IMAGES and set(ranked) <= set(model.labels)
    scored = model.scored_answers(paths, ['what color is the background'] * IMAGES)
    assert [x.text for x in scored] == ranked and all(-50 < x.score < 0 for x in scored)
    with pytest.raises(ValueError, match='5 images, but 1 questions'):
        model.answer(paths, ['how many'])


def run(*flags):
    command = [sys.executable, '-m', 'semmim_jax.predict', *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_the_command_embeds_a_folder_and_names_what_it_leaves_out(matching, folder, tmp_path):
    out = tmp_path / 'images.npy'
    place = f'--workdir={matching[0]}', f'--images={folder}'
    done = run('embed', *place, f'--out={out}', '--batch_size=3')
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'left out' in done.stderr and 'broken.png' in done.stderr
    names = [json.loads(line)['image'] for line in (tmp_path / 'images.jsonl').open()]
    assert names == ['0.png', '1.png', '2.png', 'more/3.png', 'more/4.png']
    model = semmim_jax.load(matching[0])
    assert_close(np.load(out), model.encode_image([folder / name for name in names]))


@pytest.fixture
def predicted(matching, tmp_path, capsys):
    """(images, further arguments) -> lines of match, what stdout and stderr say."""

    def predict(images, *, texts=('a dog', 'a cat'), out='match.jsonl', action='match', **others):
        predict_folder(
            action,
            **dict(workdir=str(matching[0]), params='ema', batch_size=2, texts_file='') | others,
            **dict(images=str(images), out=str(tmp_path / out), texts=texts),
        )
        lines = [json.loads(line) for line in (tmp_path / out).read_text().splitlines()]
        return lines, *capsys.readouterr()

    return predict


def test_one_image_as_well_as_a_folder_and_every_file_is_accounted_for(predicted, folder, tmp_path):
    place = tmp_path / 'images'
    shutil.copytree(folder, place)
    (place / 'more' / 'notes.txt').write_text('of another kind')
    (place / '.hidden').write_text('by the system')
    whole, said, named = predicted(place)
    names = ['0.png', '1.png', '2.png', 'more/3.png', 'more/4.png']
    assert [line['image'] for line in whole] == names
    assert said.endswith('match.jsonl; images: 5, files left out: 2\n')
    skipped = [line for line in named.splitlines() if line.startswith('left out: ')]
    assert len(skipped) == 2 and skipped[0].endswith(
        'notes.txt: not .jpg, .jpeg, .png, .webp, .bmp'
    )
    assert 'broken.png: not a JPEG' in skipped[1]
    one, said, _ = predicted(place / 'more' / '3.png')
    assert one == [{'image': '3.png', 'match': pytest.approx(whole[3]['match'])}]
    assert said.endswith('match.jsonl; images: 1, files left out: 0\n')
    assert all(0 < p < 1 for p in one[0]['match'].values())
    with pytest.raises(ValueError, match='no image could be read'):
        predicted(place / 'broken.png', out='none.jsonl')
    assert not list(tmp_path.glob('none*'))


def test_explain_writes_maps_and_their_drawings(predicted, matching, folder, tmp_path):
    texts = ('a dog', 'a cat and a bus')
    lines, said, _ = predicted(folder / '0.png', texts=texts, action='explain', out='maps.jsonl')
    assert [(line['image'], line['text']) for line in lines] == [('0.png', t) for t in texts]
    assert said.endswith('maps.jsonl; images: 1, files left out: 0\n')
    (expected,) = semmim_jax.load(matching[0]).explain(folder / '0.png', texts[1])
    with np.load(tmp_path / lines[1]['maps']) as arrays:
        assert tuple(arrays['words']) == expected.words == ('a', 'cat', 'and', 'a', 'bus')
        assert_close(arrays['attention'], expected.attention)
        assert_close(arrays['caption_gradcam'], expected.caption_gradcam)
        assert lines[1]['match'] == pytest.approx(expected.match, abs=1e-6)
    assert PIL.Image.open(tmp_path / lines[1]['picture']).width > 500


def test_classify_tells_classes_apart_and_measures_where_folders_name_them(
    matching, folder, tmp_path, capsys
):
    place = tmp_path / 'images'
    for number, name in enumerate(('Dog', 'hot_dog', 'others')):
        (place / name).mkdir(parents=True)
        shutil.copy(folder / f'{number}.png', place / name)
    (tmp_path / 'labels.txt').write_text('dog\nhot dog\ncat\n')
    run = dict(workdir=str(matching[0]), params='ema', batch_size=2)
    out, labels = tmp_path / 'a.jsonl', str(tmp_path / 'labels.txt')
    options = dict(templates=['a {}', 'big {}'], rerank=2, top=2)
    classify_folder(**run, images=str(place), out=str(out), labels=labels, **options)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line.get('label') for line in lines] == ['dog', 'hot dog', None]
    names = ('dog', 'hot dog', 'cat')
    paths = [place / 'Dog' / '0.png', place / 'hot_dog' / '1.png', place / 'others' / '2.png']
    model = semmim_jax.load(matching[0])
    shares = model.classify(paths, names, templates=('a {}', 'big {}'), rerank=2)
    assert shares.sum(axis=1) == pytest.approx(1)
    for line, of_image in zip(lines, shares, strict=True):
        best = sorted(zip(of_image, names), reverse=True)[:2]
        assert line['labels'] == {name: pytest.approx(x, abs=1e-5) for x, name in best}
    right = [line['label'] == next(iter(line['labels'])) for line in lines[:2]]
    assert capsys.readouterr().out.splitlines()[-1] == (
        f'accuracy on 2 images in folders that name a label: top-1 {sum(right) / 2:.1%} '
        '(chance 33.3%)'
    )


def test_a_folder_is_indexed_searched_and_indexed_again(matching, folder, tmp_path, capsys):
    place, index, out = (tmp_path / name for name in ('images', 'index', 'found.jsonl'))
    shutil.copytree(folder, place)
    run = dict(workdir=str(matching[0]), params='ema', batch_size=2)
    options = dict(index=str(index), texts_file='', image='', out=str(out), top=3, rerank=5)
    index_folder(**run, images=str(place), index=str(index))
    assert f'{IMAGES}; added: {IMAGES}, changed: 0' in capsys.readouterr().out
    search_index(**run, **options, texts=['a dog', 'a cat and a bus on blue'])
    found = [json.loads(line) for line in out.read_text().splitlines()]
    model, paths = semmim_jax.load(matching[0]), sorted(place.rglob('[0-9].png'))
    names = [path.relative_to(place).as_posix() for path in paths]
    for line in found:  # ITM looked at every image
        odds = model.match(paths, line['text'])[:, 0]
        cosines = (model.encode_image(paths) @ model.encode_text(line['text']).T)[:, 0]
        order = np.argsort(-odds)[:3]
        assert [image['path'] for image in line['images']] == [names[i] for i in order]
        assert_close(np.array([x['match'] for x in line['images']]), odds[order])
        assert_close(np.array([x['similarity'] for x in line['images']]), cosines[order])
    shutil.copy(place / '0.png', place / '2.png')
    index_folder(**run, images=str(place), index=str(index))
    assert f'changed: 1, unchanged: {IMAGES - 1}, removed: 0' in capsys.readouterr().out
    search_index(**run, **options | dict(image=str(place / '0.png'), top=2, rerank=0), texts=[])
    (line,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert [image['path'] for image in line['images']] == ['0.png', '2.png']
    assert line['images'][1]['similarity'] == pytest.approx(1, abs=1e-5)


def test_an_unfinished_file_does_not_take_the_place_of_a_whole_one(predicted, folder, tmp_path):
    (tmp_path / 'match.jsonl').write_text('{"of": "before"}\n')
    with pytest.raises(ValueError, match='has no words'):
        predicted(folder, texts=('?',))
    assert (tmp_path / 'match.jsonl').read_text() == '{"of": "before"}\n'
    assert sorted(x.name for x in tmp_path.iterdir()) == ['match.jsonl']


def test_what_is_missing_is_said_and_nothing_is_made(tmp_path, folder):
    absent = tmp_path / 'absent'
    with pytest.raises(ValueError, match='absent holds no checkpoint'):
        semmim_jax.load(absent)
    with pytest.raises(ValueError, match="params='emma'"):
        semmim_jax.load(absent, params='emma')
    done = run('caption', f'--workdir={absent}', f'--images={folder}', f'--out={tmp_path}/a.jsonl')
    assert done.stderr == f'error: {absent} holds no checkpoint\n'
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    'flags,said',
    [
        (['shout', '--images=.', '--out=a.jsonl'], 'caption, answer, match, embed'),
        (['answer', '--images=tests', '--out=a.jsonl'], 'no .jpg'),
        (['embed', '--images=.', '--out=a.jsonl'], '.npy'),
        (['explain', '--images=.'], '--out=VALUE must be given'),
        (['explain', '--images=.', '--out=tests.jsonl', '--text=a'], 'tests exists already'),
        (['search', '--index=tests'], 'search needs --text, --texts or --image'),
        (['search', '--index=tests', '--text=a dog'], 'tests: no index of images here'),
        (['index', '--images=tests', '--index=a'], 'no .jpg'),
        (['classify', '--images=.', '--out=a.npy'], 'classify writes a .jsonl file'),
    ],
)
def test_mistakes_end_in_one_line(tmp_path, flags, said):
    done = run(flags[0], f'--workdir={tmp_path}', *flags[1:])
    assert done.returncode != 0 and 'Traceback' not in done.stderr
    assert said in done.stderr.strip().splitlines()[-1]
