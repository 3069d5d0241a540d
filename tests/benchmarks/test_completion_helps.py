"""The verdict on completion, on figures given by hand, and that trainings are not run twice."""

import json

import pytest

from benchmarks import completion_helps
from benchmarks.completion_helps import DECIDES, ONE_FRAME, STEPS, TIME, WITH, Run, verdict


def flops(config):
    return 7.0 if config.task.weights.completion else 5.0


def figures(*pairs):
    """By seed, of (text recall, image recall)."""
    return [dict(zip(DECIDES, pair, strict=True)) for pair in pairs]


@pytest.mark.parametrize(
    ('ours', 'said'),
    [
        ([(0.5, 0.5), (0.5, 0.5), (0.5, 0.5)], 'helps'),
        ([(0.5, 0.5), (0.5, 0.5), (0.3, 0.3)], 'helps'),  # two of three, and the means
        ([(0.5, 0.5), (0.5, 0.3), (0.3, 0.5)], 'not shown'),  # one seed in both directions
        ([(0.5, 0.5), (0.5, 0.5), (0.1, 0.5)], 'not shown'),  # the mean of one is below
        ([(0.4, 0.4), (0.4, 0.4), (0.4, 0.4)], 'not shown'),  # no gain
        ([(0.9, 0.9)], 'not shown'),  # one seed
    ],
)
def test_helps_is_said_for_both_directions_and_two_seeds_alone(ours, said):
    without = figures(*[(0.4, 0.4)] * len(ours))
    assert verdict(figures(*ours), without) == said


def test_equal_steps_and_equal_time_differ_in_steps_alone(monkeypatch):
    monkeypatch.setattr(completion_helps, 'count', flops)
    configs = {
        way: completion_helps.config_of(Run('video', way, 2), steps=100)
        for way in (WITH, STEPS, TIME, ONE_FRAME)
    }
    assert [c.train.steps for c in configs.values()] == [100, 100, 140, 100]
    assert [c.task.weights.completion for c in configs.values()] == [1, 0, 0, 1]
    assert [c.data.frames for c in configs.values()] == [2, 2, 2, 1]
    assert {c.seed for c in configs.values()} == {2}


def trained(tmp_path, monkeypatch):
    """A training whose figures are known: completion adds .1, twice the steps nothing.

    Returns the names of the trainings, and of the run that each starts from.
    """
    monkeypatch.setattr(completion_helps, 'count', flops)
    runs = {}

    def train(config, workdir, task):
        name = workdir.rpartition('/')[2]
        runs[name] = config.init_from.rpartition('/')[2]
        weights = config.task.get('weights', {'completion': 0.0})
        value = 0.3 + 0.1 * weights['completion'] + 0.01 * config.seed
        evaluators = {}
        for path in completion_helps.FIGURES['video']:
            evaluator, figure = path.split('/')
            evaluators.setdefault(evaluator, {'figures': {}})['figures'][figure] = value
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / 'results.json').write_text(json.dumps({'step': config.train.steps, **evaluators}))

    monkeypatch.setattr(completion_helps, 'train_and_evaluate', train)
    return runs


def test_complete_trainings_are_read_and_compared_by_seed(monkeypatch, tmp_path, capsys):
    runs = trained(tmp_path, monkeypatch)
    command = [f'--workdir={tmp_path}', '--demos=images', '--steps=10']
    completion_helps.main(command)
    assert len(runs) == 9
    said = capsys.readouterr().out
    assert 'images: completion helps (without, equal time; seeds compared: 0, 1, 2)' in said
    table = json.loads((tmp_path / 'results.json').read_text())['images']
    assert table['verdicts'] == {STEPS: 'helps', TIME: 'helps'}
    assert [seed['steps'] for seed in table['figures'][TIME].values()] == [14, 14, 14]
    line = next(x for x in said.splitlines() if 'tr@1_itm' in x and STEPS in x)
    assert line.split()[4:] == ['0.310', '+0.100', '0:0.300', '1:0.310', '2:0.320']
    completion_helps.main(command)
    assert len(runs) == 9  # all were read
    (tmp_path / 'images_completion_1' / 'results.json').unlink()
    completion_helps.main([*command, '--read'])
    assert len(runs) == 9
    said = capsys.readouterr().out
    assert 'images: completion helps (without, equal steps; seeds compared: 0, 2)' in said


def test_seeds_in_any_order_and_a_table_of_what_there_is(monkeypatch, tmp_path, capsys):
    runs = trained(tmp_path, monkeypatch)
    command = [f'--workdir={tmp_path}', '--demos=images', '--steps=10']
    completion_helps.main([*command, '--read'])
    assert not runs and 'images: completion not shown' in capsys.readouterr().out
    completion_helps.main([*command, '--seeds=2'])
    folders = [Run('images', way, 2).folder for way in (WITH, STEPS, TIME)]
    assert list(runs) == folders
    assert 'not shown (without, equal time; seeds compared: 2)' in capsys.readouterr().out
    completion_helps.main([*command, '--seeds=0'])
    assert 'helps (without, equal time; seeds compared: 0, 2)' in capsys.readouterr().out
    table = json.loads((tmp_path / 'results.json').read_text())['images']['figures']
    assert {way: set(seeds) for way, seeds in table.items()} == dict.fromkeys(
        (WITH, STEPS, TIME), {'0', '2'}
    )
    completion_helps.main([*command, '--steps=20', '--read'])  # of other steps there is none
    assert 'seeds compared: none' in capsys.readouterr().out
    with pytest.raises(SystemExit):
        completion_helps.main([*command, '--seeds=one'])


def test_videos_of_a_seed_start_from_one_tower_that_names_directions(monkeypatch, tmp_path):
    runs = trained(tmp_path, monkeypatch)
    command = [f'--workdir={tmp_path}', '--demos=video', '--steps=10', '--seeds=2']
    completion_helps.main(command)
    folders = [Run('video', way, 2).folder for way in (WITH, STEPS, TIME, ONE_FRAME)]
    assert runs == {'directions_2': '', **dict.fromkeys(folders, 'directions_2')}
    runs.clear()
    completion_helps.main(command)
    assert not runs


def test_a_table_is_there_after_every_training(monkeypatch, tmp_path):
    runs = trained(tmp_path, monkeypatch)
    train = completion_helps.train_and_evaluate

    def train_two(*args):
        if len(runs) == 2:
            raise KeyboardInterrupt
        train(*args)

    monkeypatch.setattr(completion_helps, 'train_and_evaluate', train_two)
    with pytest.raises(KeyboardInterrupt):
        completion_helps.main([f'--workdir={tmp_path}', '--demos=images', '--steps=10'])
    table = json.loads((tmp_path / 'results.json').read_text())['images']['figures']
    assert set(table[WITH]) == set(table[STEPS]) == {'0'} and not table[TIME]


def test_trainings_of_another_folder_are_known_by_its_results(monkeypatch, tmp_path, capsys):
    trained(tmp_path / 'one', monkeypatch)
    completion_helps.main([f'--workdir={tmp_path / "one"}', '--demos=images', '--seeds=0,2'])
    known = tmp_path / 'one' / 'results.json'
    command = [f'--workdir={tmp_path / "two"}', '--demos=images', f'--known={known}']
    runs = trained(tmp_path / 'two', monkeypatch)
    completion_helps.main(command)
    assert list(runs) == [Run('images', way, 1).folder for way in (WITH, STEPS, TIME)]
    assert 'helps (without, equal time; seeds compared: 0, 1, 2)' in capsys.readouterr().out
    completion_helps.main([*command, '--steps=10', '--read'])  # of other lengths nothing is known
    assert 'seeds compared: none' in capsys.readouterr().out
    known.write_text('[]')
    with pytest.raises(SystemExit):
        completion_helps.main(command)
    assert f'--known={known}: no results.json' in capsys.readouterr().err
