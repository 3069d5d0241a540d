"""What is missing is named before a run has a workdir."""

import json
import sys

import pytest

from configs import caption, classify, pretrain, vqa
from semmim_jax.data.readers import sources
from semmim_jax.run.experiment import open_experiment
from semmim_jax.tasks.registry import find_task
from tests.run.own_data import write_own_data


@pytest.fixture
def lists(tmp_path):
    """Training and evaluation list, and what makes configs/pretrain.py:tiny read them."""
    for part, images in (('train', 50), ('val', 8)):
        (tmp_path / part).mkdir()
        write_own_data(tmp_path / part, images=images)

    def with_lists(config):
        config.data.train = f'captions:{tmp_path}/train/captions.json'
        config.data.eval = f'captions:{tmp_path}/val/captions.json'
        return config

    return tmp_path, with_lists


def refused(config, workdir, message):
    with pytest.raises(ValueError, match=message) as error:
        open_experiment(config, str(workdir), find_task(config))
    assert '\n' not in str(error.value)
    assert not workdir.exists()


def test_one_missing_file_of_the_evaluation_list(lists):
    folder, with_lists = lists
    (folder / 'val' / '3.jpg').unlink()
    message = (
        rf'data.eval: no file {folder}/val/3.jpg \({folder}/val/captions.json, entry 3\); '
        'images are missing of 1 of 8 records'
    )
    refused(with_lists(pretrain.get_config('tiny')), folder / 'run', message)


def entries(folder, **more):
    """A list of two pictures for a task of downstream, as data.eval has it."""
    lines = [{'image': f'{i}.{"jpg" if i % 2 else "png"}', **more} for i in range(2)]
    path = folder / 'val' / 'entries.jsonl'
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return f'jsonl:{path}'


QUESTIONS = dict(prompt='which shape', targets=['bar'])


@pytest.mark.parametrize(
    'name, more, said',
    [
        ('pretrain', QUESTIONS, "record 0 has no captions, which the evaluator 'losses' "),
        ('answers', None, "record 0 has captions, which the evaluator 'answers' "),
        ('labels', QUESTIONS, "record 0 has targets, which the evaluator 'labels' "),
        ('labels', None, "record 0 has captions, which the evaluator 'labels' "),
        ('answers', {'image': ['0.png', '1.jpg']}, 'record 0 has images: 2, .* reads 1'),
    ],
)
def test_an_evaluation_list_of_another_kind(lists, name, more, said):
    folder, with_lists = lists
    module = {'pretrain': pretrain, 'answers': vqa, 'labels': classify}[name]
    config = with_lists(module.get_config('tiny'))
    training = {'answers': QUESTIONS, 'labels': dict(label='bar')}
    if name in training:
        config.data.train = entries(folder, **training[name]).replace('entries', 'train')
        (folder / 'val' / 'entries.jsonl').rename(folder / 'val' / 'train.jsonl')
    if name == 'labels':
        config.task.classes = 2
        lines = (folder / 'val' / 'train.jsonl').read_text().replace('bar', 'square', 1)
        (folder / 'val' / 'train.jsonl').write_text(lines)
    if more:
        config.data.eval = entries(folder, **more)
    refused(config, folder / 'run', f'data.eval: {said}')


def test_the_evaluation_list_is_parsed_once(lists, monkeypatch):
    folder, with_lists = lists
    config, parsed, make = with_lists(pretrain.get_config('tiny')), [], sources.make_source
    monkeypatch.setattr(
        sources, 'make_source', lambda spec, data: parsed.append(spec) or make(spec, data)
    )
    run = open_experiment(config, str(folder / 'run'), find_task(config))
    assert run.evaluation() is not None
    run.checkpoints.close()
    assert parsed.count(config.data.eval) == 1


def test_training_files_may_be_missing_up_to_a_share(lists):
    folder, with_lists = lists
    config = with_lists(pretrain.get_config('tiny'))
    config.data.max_replaced = 0.02
    (folder / 'train' / '4.png').unlink()
    open_experiment(config, str(folder / 'good'), find_task(config)).checkpoints.close()
    (folder / 'train' / '7.jpg').unlink()
    message = 'data.train: no file .*/4.png .*entry 4.*2 of 50 records, .*data.max_replaced=0.02'
    refused(config, folder / 'run', message)


def test_image_files_of_further_sets(lists):
    folder, with_lists = lists
    (folder / 'further.json').write_text(json.dumps([{'image': 'gone.png', 'caption': 'x'}]))
    for key in ('pattern_sets', 'retrieval_sets'):
        config = with_lists(pretrain.get_config('tiny'))
        config.eval[key] = (f'captions:{folder}/further.json',)
        refused(config, folder / 'run', f'eval.{key}: no file .*gone.png.*1 of 1 records')


def test_of_a_long_training_list_a_spread_of_a_thousand(lists):
    folder, with_lists = lists
    config = with_lists(pretrain.get_config('tiny'))
    entries = [{'image': '0.png', 'caption': 'x'}] * 2999 + [{'image': 'gone', 'caption': 'x'}]
    (folder / 'train' / 'captions.json').write_text(json.dumps(entries))
    config.data.max_replaced = 0.0
    refused(config, folder / 'run', r'entry 2999\); images are missing of 1 of 1000 records')


def test_the_scorer_of_captions(lists, monkeypatch):
    folder, with_lists = lists
    config = with_lists(caption.get_config('tiny'))
    monkeypatch.setitem(sys.modules, 'pycocoevalcap', None)
    refused(config, folder / 'run', r'pip install semmim_jax\[eval\]')
    config.data.eval = ''
    open_experiment(config, str(folder / 'good'), find_task(config)).checkpoints.close()


def test_an_empty_caption_of_the_evaluation_list(lists):
    folder, with_lists = lists
    path = folder / 'val' / 'captions.json'
    entries = json.loads(path.read_text())
    entries[5]['caption'] = '!'
    path.write_text(json.dumps(entries))
    refused(
        with_lists(pretrain.get_config('tiny')),
        folder / 'run',
        r"val/captions.json, entry 5: empty caption '!'; 1 of the 12 captions",
    )
