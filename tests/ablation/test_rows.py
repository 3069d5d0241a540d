"""Rows as data: the shipped ones, what a row is compared with, and mistakes."""

import pathlib

import pytest

from configs import ablation
from semmim_jax.ablation.rows import fine_tuning, read_rows, select, training, trainings
from semmim_jax.cli.parser import read_config
from semmim_jax.tasks.pretrain.task import Pretrain
from tests.ablation.fakes import STUDY, small_study, write_study

ROOT = pathlib.Path(__file__).parent.parent.parent
OUT = pathlib.Path('out')


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def shipped(variant='study'):
    study = ablation.get_config(variant)
    return study, read_rows(study)


@pytest.mark.parametrize('variant', ['study', 'demo'])
def test_the_shipped_rows_differ_from_each_other_and_read(variant):
    study, rows = shipped(variant)
    seen = {}
    for row in rows.values():
        config = training(row, 0, out=OUT).config()
        second = fine_tuning(row, 0, out=OUT, study=study).config()
        assert config['data.eval'] == 'emoji_scenes:test'
        assert second['data.eval'] == 'emoji_questions:test'
        key = str(sorted(config.items()))
        assert key not in seen, f'{row.name} is the same as {seen[key]}'
        seen[key] = row.name


def test_the_page_of_the_study_names_every_row():
    page = (ROOT / 'docs' / 'ablation.md').read_text()
    rows = [*shipped()[1], *shipped('demo')[1]]
    missing = [name for name in rows if f'`{name}`' not in page]
    assert not missing


def test_the_task_takes_the_shipped_rows(special):
    _, rows = shipped()
    for row in rows.values():
        Pretrain(read_config(training(row, 0, out=OUT).words), special)


def test_a_row_of_tokens_trains_its_own_dvae_first():
    _, rows = shipped()
    first, second = trainings(rows['dvae'], 3, out=OUT)
    assert (first.name, second.name) == ('dvae/3/dvae', 'dvae/3')
    assert first.folder.parent == second.folder  # so that one lock and one folder hold both
    dvae, config = first.config(), second.config()
    assert dvae['task.name'] == 'dvae' and dvae['data.eval']
    assert dvae['seed'] == config['seed'] == 3
    assert config['task.mim.target'] == 'dvae'
    assert config['task.mim.dvae'] == str(first.folder)
    same = 'data.image_size data.patch_size model.dvae.width model.dvae.codes model.pixel_std'
    assert all(dvae[field] == config[field] for field in same.split())
    assert [t.name for t in trainings(rows['pixel'], 3, out=OUT)] == ['pixel/3']


def test_a_row_is_compared_with_the_one_above_or_the_one_it_names(tmp_path):
    rows = read_rows(small_study(tmp_path))
    assert [row.against for row in rows.values()] == ['', 'plain', 'plain']
    assert list(rows) == ['plain', 'pixel', 'sparse']  # as the study has them, not by name
    path = write_study(tmp_path, STUDY.replace("'plain'),", "'plian'),"))
    with pytest.raises(ValueError, match="sparse.against='plian' is no row; did you mean plain"):
        read_rows(read_config([f'--config={path}']))


def test_of_overrides_of_one_field_the_command_lines_counts(tmp_path):
    rows = read_rows(small_study(tmp_path), settings=['train.steps=9', 'data.eval='])
    config = training(rows['sparse'], 5, out=OUT).config()
    assert (config['train.steps'], config['data.eval'], config['seed']) == (9, '', 5)
    assert config['task.mim.ratio'] == 0.25


def test_rows_are_selected_in_the_order_of_the_study(tmp_path):
    rows = read_rows(small_study(tmp_path))
    assert [row.name for row in select(rows, 'sparse, plain')] == ['plain', 'sparse']
    assert len(select(rows, 'all')) == 3
    for wrong, said in (
        ('plian', 'did you mean plain'),
        ('zzz', 'there are plain'),
        ('', 'no row'),
    ):
        with pytest.raises(ValueError, match=said):
            select(rows, wrong)
