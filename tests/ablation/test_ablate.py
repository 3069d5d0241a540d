"""The command itself, with real trainings of a few steps."""

import json
import pathlib
import subprocess
import sys

import pytest

from tests.ablation.fakes import STUDY, write_study

ROOT = pathlib.Path(__file__).parent.parent.parent


def run(folder: pathlib.Path, *flags: str, study: str = STUDY) -> subprocess.CompletedProcess:
    words = [f'--config={write_study(folder, study)}', f'--out={folder / "out"}', '--seeds=0']
    return subprocess.run(
        [sys.executable, '-m', 'semmim_jax.ablate', *words, *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1800,
    )


@pytest.mark.slow
def test_two_rows_are_trained_fine_tuned_and_reported(tmp_path):
    probes = ('--set=eval.probe_source=emoji_scenes:train', '--set=eval.probe_images=16')
    flags = ('--rows=plain,pixel', '--set=eval.every=2', *probes, '--fine_tune')
    done = run(tmp_path, *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith('pixel/0/fine_tuned: finished')
    again = run(tmp_path, *flags)
    assert again.stdout.splitlines() == ['4 trainings, 4 finished before']
    report = run(tmp_path, *flags, '--report')
    assert report.returncode == 0, report.stdout + report.stderr
    table = json.loads((tmp_path / 'out' / 'table.json').read_text())['rows']
    for row in 'plain', 'pixel':
        figures = table[row]['seeds']['0']['figures']
        results = json.loads((tmp_path / 'out' / row / '0' / 'results.json').read_text())
        for figure in ('retrieval.ir@1_itm', 'losses.mlm_accuracy', 'probes.linear_accuracy'):
            evaluator, _, name = figure.partition('.')
            assert figures[figure] == pytest.approx(results[evaluator]['figures'][name], rel=1e-5)
        assert 'answers.accuracy' in figures
    for figure in ('patterns.untold_modal_share', 'grounding.word_miou'):  # of codes, of words
        assert figure in table['plain']['means']
        assert figure not in table['pixel']['means']
    pixel = table['pixel']
    assert set(pixel['steps_at_equal_time']['0']) <= {2, 4}  # of the evaluations
    assert 'retrieval.ir@1_itm' in pixel['differences_at_equal_time']
    assert (tmp_path / 'out' / 'plots' / 'retrieval.png').exists()


@pytest.mark.slow
def test_one_command_trains_the_discrete_vae_of_a_row_and_the_row(tmp_path):
    study = STUDY.replace("first=''", "first='configs/dvae.py:tiny'")
    study = study.replace("('task.mim.target=pixel',)", "('task.mim.target=dvae',)")
    done = run(tmp_path, '--rows=pixel', study=study)
    assert done.returncode == 0, done.stdout + done.stderr
    said = [
        line.split(' finished')[0] for line in done.stdout.splitlines() if ' finished in' in line
    ]
    assert said == ['pixel/0/dvae:', 'pixel/0:']
    folder = tmp_path / 'out' / 'pixel' / '0'
    before, after = (
        json.loads((f / 'results.json').read_text()) for f in (folder / 'dvae', folder)
    )
    assert before['step'] == 20 and before['reconstruction']['figures']['images'] == 24
    assert after['step'] == 4 and after['losses']['figures']['loss_mim'] > 0
    again = run(tmp_path, '--rows=pixel', study=study)
    assert again.stdout.splitlines() == ['2 trainings, 2 finished before']
