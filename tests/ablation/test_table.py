"""The table by hand: means, paired differences at equal steps and time, what is missing."""

import dataclasses
import json
import pathlib

import pytest

from semmim_jax.ablation.measures import ALL, Measured, at_equal_time, read_measured
from semmim_jax.ablation.plots import draw_table
from semmim_jax.ablation.rows import FINE_TUNED, read_rows, training
from semmim_jax.ablation.runs import RECORD
from semmim_jax.ablation.table import read_table, to_markdown, write_table
from tests.ablation.fakes import leave, small_study, units

ROOT = pathlib.Path(__file__).parent.parent.parent
IR, MLM = 'retrieval.ir@1_itm', 'losses.mlm_accuracy'


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def study(tmp_path):
    """Two rows of three seeds: pixel is one step a second, plain one in two seconds."""
    rows = read_rows(small_study(tmp_path))
    out = tmp_path / 'out'
    at_the_end = {'plain': (0.5, 0.6, 0.7), 'pixel': (0.52, 0.66, 0.71)}
    for name, seconds in (('plain', 2.0), ('pixel', 1.0)):
        for seed, value in enumerate(at_the_end[name]):
            of = training(rows[name], seed, out=out)
            figures = {
                2: {'retrieval/ir@1_itm': value / 2, 'losses/mlm_accuracy': 0.25},
                4: {'retrieval/ir@1_itm': value, 'losses/mlm_accuracy': float('nan')},
            }
            leave(of, figures=figures, seconds=seconds)
            (of.folder / RECORD).write_text(json.dumps({'commit': 'abc1234'}))
    return rows, out


def test_means_and_paired_differences_by_hand(study):
    rows, out = study
    table = read_table(rows, [0, 1, 2], out=out)
    assert list(table.results) == ['plain', 'pixel']  # sparse was not run
    plain, pixel = table.results['plain'], table.results['pixel']
    assert plain.means[IR].mean == pytest.approx(0.6)
    # Differences .02, .06, .01: mean .03, variance (.01^2 + .03^2 + .02^2) / 2 = .0007.
    assert pixel.differences[IR].mean == pytest.approx(0.03)
    half = 4.30265 * (0.0007 / 3) ** 0.5
    assert pixel.differences[IR].half == pytest.approx(half, rel=1e-4)
    assert plain.differences == {}  # the first row has no reference
    assert MLM not in plain.means  # NaN
    assert table.commits == ('abc1234',)


def test_equal_time_compares_where_the_faster_one_ended(study):
    rows, out = study
    table = read_table(rows, [0, 1, 2], out=out)
    # Steps 2 to 4 took pixel 3 s, plain 6 s: at 3 s plain had done two to three of its four steps.
    # Its evaluation at step 2, after 2 s, is nearer than that at step 4, after 6 s.
    pixel = table.results['pixel']
    assert pixel.steps_at_time == {0: (4, 2), 1: (4, 2), 2: (4, 2)}
    assert pixel.at_time[IR].mean == pytest.approx((0.52 - 0.25 + 0.66 - 0.3 + 0.71 - 0.35) / 3)


def test_seconds_leave_out_compilation_and_count_what_was_done_again_once(study):
    rows, out = study
    of = training(rows['plain'], 0, out=out)
    lines = [
        {'start': 0.0, 'step': 0},
        {'phase': 'compilation', 'step': 1, 'seconds': 60.0},
        {'phase': 'data_wait', 'step': 2, 'seconds': 0.5},
        {'phase': 'step', 'step': 2, 'seconds': 1.0},
        {'phase': 'step', 'step': 3, 'seconds': 7.0},
        {'start': 100.0, 'step': 2},
        {'phase': 'step', 'step': 3, 'seconds': 2.0},
        {'phase': 'step', 'step': 4, 'seconds': 2.0},
    ]
    text = ''.join(json.dumps(line) + '\n' for line in lines)
    (of.folder / 'ledger.jsonl').write_text(text)
    measured = read_measured(of.folder)
    assert measured.seconds == {2: 1.5, 4: 5.5}
    assert measured.minutes == pytest.approx((60 + 1.5 + 7 + 4) / 60)  # `down` is no work


def test_on_a_cpu_seconds_are_processor_time(study):
    rows, out = study
    of = training(rows['plain'], 0, out=out)
    lines = [
        {'start': 0.0, 'step': 0, 'platform': 'cpu'},
        {'phase': 'step', 'step': 2, 'seconds': 9.0, 'processor': 1.0},
        {'start': 100.0, 'step': 2, 'platform': 'gpu'},
        {'phase': 'step', 'step': 4, 'seconds': 0.5, 'processor': 3.0},
    ]
    text = ''.join(json.dumps(line) + '\n' for line in lines)
    (of.folder / 'ledger.jsonl').write_text(text)
    assert read_measured(of.folder).seconds == {2: 1.0, 4: 1.5}


def test_never_evaluated_is_not_compared_at_equal_time():
    empty = Measured(step=1, figures={}, history={}, seconds={}, minutes=1.0)
    assert at_equal_time(empty, empty) is None
    at_the_end = dataclasses.replace(empty, history={1: {}}, seconds={1: 60.0})
    assert at_equal_time(at_the_end, at_the_end) is None


def test_only_seeds_of_both_rows_are_paired(study):
    rows, out = study
    (training(rows['plain'], 1, out=out).folder / 'results.json').unlink()
    pixel = read_table(rows, [0, 1, 2], out=out).results['pixel']
    assert pixel.seeds == (0, 1, 2) and pixel.differences[IR].count == 2
    assert pixel.differences[IR].mean == pytest.approx(0.015)


def test_a_row_is_compared_with_its_reference_where_only_the_row_is_shown(study):
    rows, out = study
    table = read_table(rows, [0, 1, 2], out=out, shown=['pixel'])
    assert list(table.results) == ['pixel']
    assert table.results['pixel'].differences[IR].mean == pytest.approx(0.03)


def test_the_page_says_what_is_missing_and_marks_what_excludes_zero(study):
    rows, out = study
    for seed, value in enumerate((0.4, 0.41, 0.42)):
        leave(
            training(rows['sparse'], seed, out=out),
            figures={4: {'retrieval/ir@1_itm': value, 'retrieval/tr@1_itm': 0.5}},
        )
    page = to_markdown(read_table(rows, [0, 1, 2], out=out))
    lines = page.splitlines()
    half = 4.30265 * (0.01**2 / 3) ** 0.5
    assert f'| sparse | 0.500 +- 0.000 | 0.410 +- {half:.3f} |' in lines
    assert '| plain | - | 0.600 +- 0.248 |' in lines
    # -.10, -.19, -.28: mean -.19, variance .0081
    half = 4.30265 * (0.0081 / 3) ** 0.5
    assert f'| sparse - plain | - | -0.190 +- {half:.3f} |' in lines
    assert '**Retrieval, held-out style**: -' in lines
    narrow = [training(rows['sparse'], seed, out=out) for seed in range(3)]
    for of, value in zip(narrow, (0.3, 0.4, 0.5)):
        leave(of, figures={4: {'retrieval/ir@1_itm': value}})
    page = to_markdown(read_table(rows, [0, 1, 2], out=out))
    assert '| sparse - plain | -0.200 +- 0.000 ** |' in page.splitlines()


def test_a_figure_of_the_second_stage_is_read_from_its_folder(study):
    rows, out = study
    of = training(rows['plain'], 0, out=out)
    second = of._replace(folder=of.folder / FINE_TUNED)
    leave(second, figures={4: {'answers/accuracy': 0.75}})
    assert read_measured(of.folder).figures['answers.accuracy'] == 0.75


def test_files_and_plots_are_written(study):
    rows, out = study
    table = read_table(rows, [0, 1, 2], out=out)
    saved = json.loads(write_table(table, out)[0].read_text())
    assert saved['rows']['pixel']['seeds']['1']['figures'][IR] == 0.66
    assert saved['rows']['pixel']['means'][IR]['count'] == 3
    paths = draw_table(table, out / 'plots')
    assert [path.name for path in paths] == ['retrieval.png', 'retrieval_differences.png']
    assert all(path.stat().st_size > 5000 for path in paths)


def test_nothing_finished_is_said(tmp_path):
    rows = read_rows(small_study(tmp_path))
    units(tmp_path)
    with pytest.raises(ValueError, match='no finished training'):
        read_table(rows, [0], out=tmp_path)


def test_a_difference_to_k_means_is_read_from_the_details(study):
    rows, out = study
    folder = training(rows['plain'], 0, out=out).folder
    of = lambda mean: {'untold/feature_kmeans': {'object_nmi_gain_shuffled': {'mean': mean}}}
    details = {'differences': of(0.25), 'sets': {'held_out_style': {'differences': of(-0.5)}}}
    (folder / 'results.json').write_text(json.dumps({'step': 4, 'patterns': {'details': details}}))
    figures = read_measured(folder).figures
    path = 'differences.untold/feature_kmeans.object_nmi_gain_shuffled.mean'
    assert figures == {
        f'patterns.details.{path}': 0.25,
        f'patterns.details.sets.held_out_style.{path}': -0.5,
    }


def test_names_of_measures_are_evaluator_and_figure_or_a_path_of_details():
    assert all(figure.count('.') == 1 or '.details.' in figure for figure in ALL)
