"""The console command `semmim`: each subcommand is a module of this package, run by `python -m`."""

import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

import semmim_jax
from semmim_jax.cli.parser import nearest


class Subcommand(NamedTuple):
    """A subcommand: the module that it runs, words put before the user's, and what it does."""

    module: str
    words: tuple[str, ...]
    about: str


SUBCOMMANDS = {
    'train': Subcommand('main', ('--mode=train',), 'trains, or continues, the run of --workdir'),
    'eval': Subcommand('main', ('--mode=eval',), 'evaluates the newest checkpoint of --workdir'),
    'verify': Subcommand('main', ('--mode=verify',), 'compares all checkpoints with their digests'),
    'prepare': Subcommand('prepare', (), 'any source as verified shards; verify, show'),
    'predict': Subcommand('predict', (), 'captions, answers, matches or embeds images'),
    'patterns': Subcommand('patterns', (), 'what patterns a run has: pictures, words, a page'),
    'app': Subcommand('app', (), 'a run in the browser: search, ask, explain, masks, patterns'),
    'convert': Subcommand('convert', (), 'weights from and to Hugging Face and PyTorch'),
    'preflight': Subcommand('preflight', (), 'memory, FLOPs and time of a run on a machine'),
    'ablate': Subcommand('ablate', (), 'runs the study, rows by seeds, and writes its table'),
}


def main() -> None:
    """`semmim SUBCOMMAND ...` becomes `python -m semmim_jax.MODULE ...`, in the same process."""
    try:
        words = command(sys.argv[1:])
    except ValueError as error:
        sys.exit(f'error: {error}')
    if words is None:
        print(usage())
        return
    if words == ['--version']:
        print(f'semmim_jax {semmim_jax.__version__}')
        return
    os.execv(sys.executable, [sys.executable, '-m', *words])


def command(arguments: Sequence[str]) -> list[str] | None:
    """What `python -m` is to run; None for help, ['--version'] for that.

    Raises:
      ValueError: for another subcommand, or a --mode that the subcommand sets.
    """
    if not arguments or arguments[0] in ('-h', '-help', '--help', 'help'):
        return None
    name, *rest = arguments
    if name == '--version':
        return [name]
    if name not in SUBCOMMANDS:
        known = ', '.join(SUBCOMMANDS)
        raise ValueError(f'{name!r} is none of {known}{nearest(name, SUBCOMMANDS)}')
    module, words, _ = SUBCOMMANDS[name]
    if words and any(word.lstrip('-').partition('=')[0] == 'mode' for word in rest):
        raise ValueError(f'semmim {name} sets --mode itself: leave it out')
    return [f'semmim_jax.{module}', *words, *rest]


def usage() -> str:
    """The subcommands, a line each."""
    lines = [f'  {name:<11}{entry.about}' for name, entry in SUBCOMMANDS.items()]
    return '\n'.join(
        [
            'SemMIM vision-language pre-training in JAX.',
            '',
            'usage: semmim SUBCOMMAND --FLAG=VALUE ...',
            '',
            *lines,
            '',
            'semmim SUBCOMMAND --help lists its flags; semmim --version gives the version.',
            '',
            'semmim train --config=configs/pretrain.py:demo --workdir=runs/demo',
        ]
    )
