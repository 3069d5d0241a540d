"""report.html from the files of a workdir, whatever of them there is."""

import json

import ml_collections
import pytest

from configs import caption, completion, nlvr2, retrieval, video_retrieval, vqa
from configs.dvae import get_config as dvae_config
from configs.pretrain import get_config
from semmim_jax.ops.special_tokens import SpecialTokens
from semmim_jax.run.run_report import write_run_report
from semmim_jax.tasks.registry import find_task
from semmim_jax.training.workdir import Workdir

SPECIAL = SpecialTokens(pad=0, cls=2, sep=3, mask=4, vocab_size=64)


def report(workdir, config):
    frozen = ml_collections.FrozenConfigDict(config)
    facts = dict(config=frozen, family=find_task(config)(frozen, SPECIAL).family)
    return write_run_report(Workdir(workdir), step=7, parameters=1234, **facts)


def written(workdir, config):
    line = report(workdir, config)
    assert line == f'wrote {workdir / "report.html"}'
    return (workdir / 'report.html').read_text()


TINY = [
    *(module.get_config('tiny') for module in (caption, completion, nlvr2, retrieval, vqa)),
    *(module.get_config('scl_tiny') for module in (nlvr2, retrieval, vqa)),
    video_retrieval.get_config('tiny'),
    get_config('tiny'),
]


@pytest.mark.parametrize('config', TINY, ids=lambda config: f'{config.task.name}')
def test_what_there_is_not_is_said(tmp_path, config):
    page = written(tmp_path, config)
    assert 'The run was not evaluated.' in page and 'No curves: ' in page
    assert 'Not evaluated.' in page and '1,234' in page  # of the card


def test_curves_are_drawn_where_no_evaluation_drew_them(tmp_path):
    lines = [json.dumps({'step': n, 'train/loss': 1 / n}) + '\n' for n in (1, 2, 3)]
    (tmp_path / 'metrics.jsonl').write_text(''.join(lines))
    page = written(tmp_path, get_config('tiny'))
    assert page.count('<img') == 1 and 'No curves' not in page
    assert not (tmp_path / 'curves.png').exists()


@pytest.mark.parametrize('results', ['{"step": 7, "losses"', '[1]', '{"step": 7, "losses": {}}'])
def test_a_damaged_result_or_a_task_without_card_does_not_stop_the_report(results, tmp_path):
    (tmp_path / 'results.json').write_text(results)
    page = written(tmp_path, dvae_config('tiny'))
    assert 'The run was not evaluated.' in page and 'None: a run of the task dvae' in page


def test_a_report_that_cannot_be_written_is_a_line(tmp_path):
    (tmp_path / 'report.html').mkdir()
    line = report(tmp_path, get_config('tiny'))
    assert line.startswith(f'{tmp_path / "report.html"} was not written: ')
