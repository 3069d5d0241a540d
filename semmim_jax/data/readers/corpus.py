"""Corpora that are made, not read from a list: the plug-ins of data/readers/sources.py."""

import dataclasses
import importlib.metadata
from collections.abc import Callable

from semmim_jax.data.config import DataConfig
from semmim_jax.data.records import Source

GROUP = 'semmim_jax.corpora'  # entry points: each names a dict of Corpus


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A corpus by name, as in `config.data.train='NAME:SPLIT'`.

    Attributes:
      make: (split, config.data) -> source. Raises ValueError for a split or option that is wrong.
      attribution: of what its pictures show, for whoever publishes them; '' if none is due.
    """

    make: Callable[[str, DataConfig], Source]
    attribution: str = ''


def installed_corpora() -> dict[str, Corpus]:
    """Corpora of all installed packages, this one's too, by name."""
    corpora: dict[str, Corpus] = {}
    for entry in importlib.metadata.entry_points(group=GROUP):
        corpora |= entry.load()
    return corpora
