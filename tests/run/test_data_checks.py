"""What is missing is named before a run has a workdir."""

import json
import sys

import pytest

from configs import caption, pretrain
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


def test_training_files_may_be_missing_up_to_a_share(lists):
    folder, with_lists = lists
    config = with_lists(pretrain.get_config('tiny'))
    config.data.max_replaced = 0.02
    (folder / 'train' / '4.png').unlink()
    open_experiment(config, str(folder / 'good'), find_task(config)).checkpoints.close()
    (folder / 'train' / '7.jpg').unlink()
    message = 'data.train: no file .*/4.png .*entry 4.*2 of 50 records, .*data.max_replaced=0.02'
    refused(config, folder / 'run', message)


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
