"""Trainings of another folder by its table: counted, compared, not run again."""

import dataclasses
import json
import pathlib
import shutil

import pytest

from semmim_jax.ablation.known import read_known
from semmim_jax.ablation.rows import read_rows, training
from semmim_jax.ablation.table import read_table, write_table
from tests.ablation.fakes import leave, small_study
from tests.ablation.test_ablate import run

ROOT = pathlib.Path(__file__).parent.parent.parent
IR = 'retrieval.ir@1_itm'


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Rows, and the folder of two of them for seeds 0 and 1, with its table."""
    monkeypatch.chdir(ROOT)
    rows, out = read_rows(small_study(tmp_path)), tmp_path / 'out'
    for number, name in enumerate(('plain', 'pixel')):
        for seed in (0, 1):
            values = {2: {'retrieval/ir@1_itm': 0.2}, 4: {'retrieval/ir@1_itm': 1 / 3 + number / 7}}
            leave(training(rows[name], seed, out=out), figures=values)
    (path, _) = write_table(read_table(rows, [0, 1], out=out), out)
    return rows, out, path


def test_a_table_gives_what_the_folders_gave(study):
    rows, out, path = study
    before = read_table(rows, [0, 1], out=out)
    known = read_known([path], rows)
    assert known['sparse'] == {}
    of_folder, of_table = before.measured['pixel'][1], known['pixel'][1]
    assert of_table.figures == pytest.approx(of_folder.figures, rel=1e-5)
    unrounded = dict(figures={}, history={}, seconds={})
    assert dataclasses.replace(of_table, **unrounded) == dataclasses.replace(of_folder, **unrounded)
    assert of_table.history.keys() == of_folder.history.keys() == {2, 4}
    after = read_table(rows, [0, 1], out=out.parent / 'none', known=known)
    ours, theirs = after.results['pixel'], before.results['pixel']
    assert ours.differences[IR].mean == pytest.approx(theirs.differences[IR].mean, rel=1e-4)
    assert ours.steps_at_time == theirs.steps_at_time


def test_a_folder_goes_before_a_table_and_a_later_table_before_an_earlier_one(study):
    rows, out, path = study
    table = json.loads(path.read_text())
    table['rows']['plain']['seeds']['0']['figures'][IR] = 0.75
    later = path.with_name('later.json')
    later.write_text(json.dumps(table))
    known = read_known([path, later], rows)
    assert known['plain'][0].figures[IR] == 0.75
    assert read_table(rows, [0], out=out, known=known).measured['plain'][0].figures[IR] < 0.4
    shutil.rmtree(out / 'plain' / '0')
    assert read_table(rows, [0], out=out, known=known).measured['plain'][0].figures[IR] == 0.75


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (lambda rows: rows['pixel'].update(overrides=['train.steps=5']), 'pixel.* another config'),
        (lambda rows: rows['pixel'].update(config='configs/vqa.py:tiny'), 'another config'),
        (lambda rows: rows['pixel']['seeds']['0'].pop('history'), 'no table of a study'),
        (lambda rows: rows.update(pixel=3), 'no table of a study'),
    ],
)
def test_another_config_and_other_files_are_refused(study, change, said):
    rows, _, path = study
    table = json.loads(path.read_text())
    change(table['rows'])
    path.write_text(json.dumps(table))
    with pytest.raises(ValueError, match=f'{path}: .*{said}'):
        read_known([path], rows)


def test_what_is_known_is_not_run_again(study):
    _, out, path = study
    known = path.rename(out.parent / 'known.json')
    shutil.rmtree(out)
    report = run(out.parent, '--report', f'--known={known}')  # into a folder that is not there
    assert report.returncode == 0, report.stderr
    assert '| pixel - plain |' in report.stdout
    assert (out / 'table.json').exists()
    done = run(out.parent, '--rows=plain,pixel', f'--known={known}')
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ['0 trainings, 0 finished before']
