"""Padding the texts of a batch to the shortest of a few lengths (`data.text_buckets`)."""

from collections.abc import Mapping, Sequence

import numpy as np

# Fields of an example along its caption, and how many places fewer than the caption they have.
ALONG_TEXT = {'ids': 0, 'words': 2, 'word_tokens': 2, 'rarity': 2}


def needed_length(fields: Mapping[str, np.ndarray], *, pad_id: int) -> int:
    """Tokens of the longest caption of some examples, or what the places of its words ask for.

    Args:
      fields: of examples, stacked: ids [b, t], and words [b, t - 2] where there is a lexicon.
      pad_id: of the tokenizer.
    """
    length = int((fields['ids'] != pad_id).sum(axis=1).max())
    if 'words' in fields:
        length = max(length, int((fields['words'] >= 0).sum(axis=1).max()) + 2)
    return length


def bucket_of(length: int, lengths: Sequence[int]) -> int:
    """The first of ascending `lengths` that holds `length` tokens."""
    return next(bucket for bucket in lengths if bucket >= length)


def padded_to(fields: Mapping[str, np.ndarray], length: int) -> dict[str, np.ndarray]:
    """The fields with captions of `length` tokens: padding is cut off, all else stays."""
    return {
        name: array[:, : length - ALONG_TEXT[name]] if name in ALONG_TEXT else array
        for name, array in fields.items()
    }


def bucket_shares(texts: np.ndarray, lengths: Sequence[int], *, batch_size: int) -> np.ndarray:
    """Share of the batches that are padded to each length, if their texts are drawn at random.

    The longest of B texts has at most l tokens with the probability that one has, to the power B.

    Args:
      texts: [n] tokens of texts that stand for all.
      lengths: ascending; the last holds all texts, or cuts them.
      batch_size: B, texts of a batch.

    Returns:
      [lengths], of sum 1.
    """
    within = [(texts <= length).mean() ** batch_size for length in lengths[:-1]]
    return np.diff([0.0, *within, 1.0])
