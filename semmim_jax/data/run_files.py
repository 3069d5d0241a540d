"""Files of a run that a checkpoint keeps beside the arrays: tokeniser, labels and lexicon."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from semmim_jax.data.cloud import path_of
from semmim_jax.data.json_files import read_json
from semmim_jax.data.lexicon import Lexicon, lexicon_of_text
from semmim_jax.data.tokenizer import Tokenizer, make_tokenizer, tokenizer_of_files

LABELS = 'labels.json'
LEXICON = 'lexicon.json'


def run_files(
    tokenizer: Tokenizer, labels: Sequence[str], lexicon: Lexicon | None
) -> dict[str, str]:
    """Text of each file by name.

    Args:
      tokenizer: of the run.
      labels: what the task chooses from, in the order of its classes.
      lexicon: of the training captions, if the run has one.
    """
    files = {**tokenizer.files(), LABELS: json.dumps(list(labels), ensure_ascii=False) + '\n'}
    return files | ({LEXICON: lexicon.text()} if lexicon else {})


class Saved(Protocol):
    """What a checkpoint says of its run; see training/checkpoint.py, SavedRun."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The resolved experiment as plain values."""

    @property
    def files(self) -> Mapping[str, str]:
        """Of `run_files`; {} in checkpoints of commit e475ad3 and before."""


def tokenizer_of_run(saved: Saved, *, workdir: str | pathlib.Path) -> Tokenizer:
    """The tokeniser of a checkpoint; the workdir's own where the checkpoint has no files."""
    end_token = saved.config['data']['end_token']
    if not saved.files:
        return make_tokenizer(str(workdir), texts=(), size=0, end_token=end_token)
    return tokenizer_of_files(saved.files, origin=f'of the run in {workdir}', end_token=end_token)


def labels_of_run(saved: Saved, *, workdir: str | pathlib.Path) -> tuple[str, ...]:
    """What the task of a checkpoint chooses from; as `tokenizer_of_run`."""
    if not saved.files:
        return tuple(cast(list[str], read_json(path_of(workdir) / LABELS)))
    return tuple(json.loads(saved.files[LABELS]))


def lexicon_of_run(saved: Saved, *, workdir: str | pathlib.Path) -> Lexicon | None:
    """The lexicon of a checkpoint's captions; None if its run had none."""
    if LEXICON not in saved.files:
        return None
    return lexicon_of_text(saved.files[LEXICON], origin=f'{LEXICON} of the run in {workdir}')
