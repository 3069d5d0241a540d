"""Trains 20 steps with every option of the pre-training task, one override at a time.

    python -m benchmarks.options      # from the root of the project; half an hour on one core

Prints a line an option: the override as one types it, and the losses of the first and last step.
Exits with 1 if a loss is not finite.
"""

import argparse
import contextlib
import json
import math
import os
import pathlib
import sys
import tempfile

# Twenty steps take seconds: compiling them is what takes long.
os.environ.setdefault(
    'XLA_FLAGS', '--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0'
)

import ml_collections

from configs import dvae
from configs.pretrain import get_config
from semmim_jax.run.loop import train_and_evaluate
from semmim_jax.tasks.dvae import TrainDVAE
from semmim_jax.tasks.pretrain.plan import CHOICES, CODES, ONE_VIEW
from semmim_jax.tasks.pretrain.task import Pretrain

FURTHER = (
    ('task.symmetric', True),
    ('task.mim.ratio', 0.75),
    ('task.mim.mask_temperature', math.inf),
    ('task.mim.injection_layers', 2),
    ('model.encoding.codes', 48),
    ('model.image.registers', 4),
    ('task.weights.gram', 1.0),
    ('task.weights.koleo', 0.1),
    ('task.mim.marginal_power', 0.0),
    ('task.mim.visible_weight', 1.0),
    ('task.mim.centre_injection', True),
    ('task.mim.null_word', True),
    ('task.mim.start_share', 0.3),
    ('task.mim.sample_share', 0.5),
    ('task.mim.text_share', 0.5),
)


def overrides():
    """(key, value) of every choice and of further fields."""
    for name, choices in CHOICES.items():
        for choice in choices:
            yield f'task.{name}', choice
    yield from FURTHER


def config_of(key: str, value: object) -> ml_collections.ConfigDict:
    """The tiny config with one field changed.

    Where there are no codes or no second view, local agreement is off as well.
    """
    config = get_config('tiny')
    config.data.eval = ''
    config.update_from_flattened_dict({key: value})
    if config.task.mim.target not in CODES or config.task.views in ONE_VIEW:
        config.task.weights.local = 0.0
    return config


def first_and_last(key: str, value: object) -> list[dict[str, float]]:
    """Metrics of step 1 and step 20; where tokens are the target, their VAE is trained first."""
    config = config_of(key, value)
    with tempfile.TemporaryDirectory() as workdir, tempfile.TemporaryDirectory() as tokens:
        if config.task.mim.target == 'dvae':
            train_and_evaluate(dvae.get_config('tiny'), tokens, TrainDVAE)
            config.task.mim.dvae = tokens
        train_and_evaluate(config, workdir, Pretrain)
        lines = (pathlib.Path(workdir) / 'metrics.jsonl').read_text().splitlines()
    assert len(lines) == 20
    return [json.loads(lines[0]), json.loads(lines[-1])]


def main() -> None:
    """Runs all options and prints the table."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    finite, chosen = True, list(overrides())
    print(f'{len(chosen)} options: override, then loss and loss_mim of step 1 and step 20')
    for key, value in chosen:
        with contextlib.redirect_stdout(sys.stderr):
            lines = first_and_last(key, value)
        cells = []
        for metric in ('train/loss', 'train/loss_mim'):
            values = [line.get(metric) for line in lines]
            cells.append(' '.join('      -' if v is None else f'{v:7.3f}' for v in values))
            finite &= all(v is None or math.isfinite(v) for v in values)
        print(f'{f"--config.{key}={value}":48} {cells[0]} {cells[1]}', flush=True)
    sys.exit(0 if finite else 1)


if __name__ == '__main__':
    main()
