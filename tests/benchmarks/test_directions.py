"""The experiment on directions: what it trains, and its table of figures that are given."""

import json
import pathlib

import pytest

from benchmarks import completion_helps, directions


@pytest.fixture
def trained(monkeypatch):
    """Frames and steps of the trainings, whose figures are made up of them."""
    runs = {}

    def train(config, workdir, task):
        del task
        runs[workdir.rpartition('/')[2]] = config.data.frames, config.train.steps, config.seed
        figures = {'direction_words': config.data.frames / 4, 'direction_words_right': 0.9}
        figures |= {'direction_words_shuffled': 0.5 + config.seed / 100}
        results = {'step': config.train.steps, 'direction': {'figures': figures}}
        folder = pathlib.Path(workdir)
        folder.mkdir(parents=True)
        (folder / 'results.json').write_text(json.dumps(results))

    monkeypatch.setattr(completion_helps, 'train_and_evaluate', train)
    return runs


def test_a_line_for_each_seed_and_way_and_no_training_twice(trained, tmp_path, capsys):
    command = [f'--workdir={tmp_path}', '--seeds=0,3', '--steps=7']
    directions.main(command)
    assert trained == {
        'first_and_last_frame_0': (2, 7, 0),
        'one_frame_0': (1, 7, 0),
        'first_and_last_frame_3': (2, 7, 3),
        'one_frame_3': (1, 7, 3),
    }
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[-6:] == ['all', 'shuffled', 'right', 'down', 'clockwise', 'growing']
    assert lines[3].startswith('3     first and last frame')
    assert lines[3].split()[-6:] == ['0.500', '0.530', '0.900', 'nan', 'nan', 'nan']
    trained.clear()
    directions.main(command)
    assert not trained and capsys.readouterr().out.splitlines() == lines


@pytest.mark.parametrize('flag', ['--steps=-1', '--seeds=a'])
def test_an_impossible_number_is_refused_by_name(flag, capsys):
    with pytest.raises(SystemExit):
        directions.main([flag])
    assert flag in capsys.readouterr().err
