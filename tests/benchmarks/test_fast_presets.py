"""The table of the cheaper steps, of trainings that only left their figures."""

import subprocess
import types

import pytest

from benchmarks import fast_presets
from configs import ablation
from semmim_jax.ablation.rows import read_rows, training
from semmim_jax.ablation.table import read_table, write_table
from tests.ablation.fakes import leave

COST = {'demo': 0.8e9, 'demo_fast': 0.6e9}


@pytest.fixture
def out(tmp_path, monkeypatch):
    """Two seeds of the demo, one of the fast one, and one that is not finished."""
    monkeypatch.setattr(fast_presets, 'step_flops', lambda row: COST[row.name])
    rows = read_rows(ablation.get_config('demo'))
    values = {('demo', 0): 0.25, ('demo', 1): 0.75, ('demo_fast', 0): 0.5}
    for (name, seed), value in values.items():
        figures = {4: {'retrieval/tr@1_itc': value, 'losses/itm_accuracy': 0.9}}
        leave(training(rows[name], seed, out=tmp_path), figures=figures, seconds=2.0)
    leave(training(rows['demo_fast'], 1, out=tmp_path), steps=4, at=2)
    return tmp_path


def cells(text: str) -> dict[str, dict[str, str]]:
    """Row -> column -> cell of a table in Markdown."""
    split = lambda line: [cell.strip() for cell in line.strip('|').split('|')]
    heads, _, *lines = map(split, text.split('\n'))
    return {line[0]: dict(zip(heads, line, strict=True)) for line in lines}


def test_a_row_has_means_over_its_finished_seeds(out, capsys):
    with pytest.raises(SystemExit) as ended:
        fast_presets.main(['--study=demo', '--read', f'--out={out}', '--seeds=0,1'])
    assert not ended.value.code
    table = cells(capsys.readouterr().out.strip())
    assert list(table) == ['demo', 'demo_fast']
    demo, fast = table['demo'], table['demo_fast']
    # Of .25 and .75: s = .5 / sqrt(2), t(1) = 12.706, so half is 12.706 * .25.
    assert demo['TR ITC'] == '0.500 +- 3.177' and fast['TR ITC'] == '0.500'
    assert demo['ITM'] == '0.900 +- 0.000' and demo['told NMI'] == '-'
    assert (demo['seeds'], fast['seeds']) == ('2', '1')
    assert (fast['GFLOP'], fast['of demo']) == ('0.600', '75%')
    # Three of four steps were timed, at two seconds: the first one compiled.
    assert demo['s a step'] == '1.500'


def test_what_is_asked_for_goes_to_the_study(out, monkeypatch, capsys):
    ran = []
    done = types.SimpleNamespace(returncode=1)
    monkeypatch.setattr(subprocess, 'run', lambda command: ran.append(command) or done)
    with pytest.raises(SystemExit) as ended:
        words = '--study=demo', '--rows=demo', '--seeds=1', f'--out={out}', '--set=train.steps=4'
        fast_presets.main(words)
    assert ended.value.code == 1 and 'demo' in cells(capsys.readouterr().out.strip())
    assert ran[0][1:] == [
        *('-m', 'semmim_jax.ablate', '--config=configs/ablation.py:demo', '--rows=demo'),
        *('--seeds=1', f'--out={out}', '--set=train.steps=4'),
    ]


def test_trainings_of_another_folder_count(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fast_presets, 'step_flops', lambda row: 2e9 if row.name == 'words' else 1e9)
    rows = read_rows(ablation.get_config())
    known = tmp_path / 'known'
    for name, out in (('words', known), ('fast', tmp_path)):
        figures = {4: {'retrieval/tr@1_itc': 0.25}}
        leave(training(rows[name], 0, out=out), figures=figures)
    write_table(read_table(rows, [0], out=known, shown=['words']), known)
    with pytest.raises(SystemExit):
        fast_presets.main(['--read', f'--known={known / "table.json"}', f'--out={tmp_path}'])
    table = cells(capsys.readouterr().out.strip())
    assert list(table) == ['words', 'fast']
    assert table['fast']['of words'] == '50%' and table['words']['TR ITC'] == '0.250'


def test_a_row_that_does_not_exist_is_named(capsys):
    with pytest.raises(SystemExit):
        fast_presets.main(['--study=demo', '--read', '--rows=demo,fast', '--out=.'])
    assert '--rows: fast: there are demo_literal, demo, demo_fast' in capsys.readouterr().err
