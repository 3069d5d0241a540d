"""report.html of a run: its figures, curves, pictures, config and model card, in one file.

It is made from files of the workdir; nothing is evaluated for it.
"""

import json
import pathlib
from typing import Any

from semmim_jax.conversion.model_card import model_card
from semmim_jax.conversion.to_torch import MODULES
from semmim_jax.data.json_files import read_json
from semmim_jax.training import ledger
from semmim_jax.training.workdir import Workdir
from semmim_jax.viz.curves import draw_curves
from semmim_jax.viz.report_page import ReportPage

PAGE = 'report.html'
CURVES = 'curves.png'


def write_run_report(
    folder: Workdir, *, config: Any, family: str, step: int, parameters: int
) -> str:
    """Writes report.html into a workdir; what it shows is described in the module.

    A report is never the reason for which a run fails: what cannot be shown is said in its place,
    and what cannot be written in the line that is returned.

    Args:
      folder: of the run.
      config: of the run, resolved.
      family: of its task.
      step: of its state.
      parameters: number of values of the model.

    Returns:
      A line for people.
    """
    page = ReportPage(f'Run {folder.path.name}: {config.task.name}, step {step:,}')
    try:
        facts = dict(config=config, family=family, step=step, parameters=parameters)
        add_run(page, folder.local, **facts)
        return f'wrote {folder.place(page.write(folder.local / PAGE))}'
    except OSError as error:
        return f'{folder.local / PAGE} was not written: {error.strerror}'


def add_run(
    page: ReportPage,
    workdir: pathlib.Path,
    *,
    config: Any,
    family: str,
    step: int,
    parameters: int,
) -> None:
    """Adds the sections on a run to a page; `workdir` holds its files, the rest as above."""
    plain = config.to_dict()
    results = _read(workdir / 'results.json')
    page.section('Run').table(
        ['', ''],
        [
            ('task', config.task.name),
            ('step', f'{step:,} of {config.train.steps:,}'),
            ('parameters', f'{parameters:,}'),
            ('training data', config.data.train),
            ('evaluation data', config.data.eval or 'none'),
            ('global batch', f'{config.train.batch_size:,}'),
            ('parameters that were evaluated', config.eval.params),
        ],
    )
    if (workdir / 'ledger.jsonl').is_file():
        page.preformatted(ledger.table(ledger.totals(workdir / 'ledger.jsonl')))
    _add_figures(page, results)
    page.section('Curves')
    try:
        page.picture(
            workdir / CURVES
            if (workdir / CURVES).is_file()
            else draw_curves(workdir / 'metrics.jsonl'),
            about='losses, accuracies and entropies by step',
        )
    except (OSError, ValueError) as error:
        page.text(f'No curves: {error}')
    others = [path for path in sorted(workdir.glob('*.png')) if path.name != CURVES]
    if results and others:
        page.section('Pictures of the last evaluation')
        for path in others:
            page.text(path.name).picture(path, about=path.stem)
    page.section('Config').preformatted(json.dumps(plain, indent=1, sort_keys=True))
    card = _card(plain, family, results, step, parameters)
    page.section('Model card').preformatted(card)


def _add_figures(page: ReportPage, results: dict[str, Any] | None) -> None:
    page.section('Figures')
    if results is None:
        page.text('The run was not evaluated.')
        return
    page.text(f'Of the evaluation at step {results["step"]:,}. Chance: what a guess would reach.')
    page.table(
        ['figure', 'value', 'chance'],
        [
            (f'{name}/{figure}', value, report['chance'].get(figure))
            for name, report in results.items()
            if name != 'step'
            for figure, value in report['figures'].items()
        ],
    )


def _card(config: dict[str, Any], family: str, results: Any, step: int, parameters: int) -> str:
    if family not in MODULES:
        return f'None: a run of the task {config["task"]["name"]} has no exported form.'
    model = config['model']
    depths = {'tower': model['text']['depth'], 'fusion': model['fusion_depth']}
    if family == 'semmim':  # SCL has no decoder
        depths['decoder'] = model['decoder_depth']
    return model_card(
        config,
        family=family,
        layers={name: depth for name, depth in depths.items() if depth},
        params=config['eval']['params'],
        parameters=parameters,
        step=step,
        results=results,
    )


def _read(path: pathlib.Path) -> dict[str, Any] | None:
    """The figures of the last evaluation; None where there are none or they cannot be read."""
    try:
        results = read_json(path)
        complete = all(
            name == 'step' or {'figures', 'chance'} <= x.keys() for name, x in results.items()
        )
        return results if complete and 'step' in results else None
    except (AttributeError, OSError, ValueError):
        return None
