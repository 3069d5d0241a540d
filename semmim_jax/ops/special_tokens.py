"""Ids that a tokeniser gives a meaning."""

from typing import NamedTuple


class SpecialTokens(NamedTuple):
    """Ids of [PAD], [CLS], [SEP] and [MASK], and the size of the vocabulary."""

    pad: int
    cls: int
    sep: int
    mask: int
    vocab_size: int
