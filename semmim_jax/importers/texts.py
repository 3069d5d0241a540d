"""Texts as shards hold them: as they were written, in one Unicode form and on one line."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import cast

from semmim_jax.data.records import Texts
from semmim_jax.data.text import clean_caption
from semmim_jax.importers.candidates import Candidate, DropReason

MAX_BYTES = 8192  # of a text
# Bytes that are not UTF-8, as sources decode them: errors='surrogateescape' gives these.
_ESCAPED = re.compile('[\udc80-\udcff]')
_HALVES = re.compile('[\ud800-\udfff]')
_CONTROL = {code: ' ' for code in range(0xA0) if unicodedata.category(chr(code)) == 'Cc'}


def stored_text(text: str) -> str:
    """A text in composed form (NFC), control characters and runs of white space as a space.

    Raises:
      DropReason: it has bytes that are not UTF-8 or half a character, or is too long.
    """
    if _HALVES.search(text):
        raise DropReason('bad utf-8' if _ESCAPED.search(text) else 'bad text', f'in {text!r:.60}')
    kept = ' '.join(unicodedata.normalize('NFC', text).translate(_CONTROL).split())
    if len(kept.encode()) > MAX_BYTES:
        raise DropReason('caption too long', f'{len(kept.encode())} bytes')
    return kept


def stored_captions(
    captions: Iterable[str], *, limit: int, left_out: Counter[str]
) -> tuple[str, ...]:
    """The distinct captions that have words, in order.

    Args:
      captions: of one image.
      limit: how many are kept, 0 for all.
      left_out: counts by reason the captions that cannot be stored; neither repeats nor those
        beyond the limit are counted.

    Raises:
      DropReason: none is left; the reason of the first.
    """
    kept: dict[str, None] = {}
    reasons = []
    for caption in captions:
        try:
            text = stored_text(caption)
            if not clean_caption(text, max_words=1):
                raise DropReason('no caption', f'{caption!r:.60} is empty')
        except DropReason as reason:
            reasons.append(reason)
        else:
            kept[text] = None
    if not kept:
        raise reasons[0] if reasons else DropReason('no caption')
    left_out.update(reason.reason for reason in reasons)
    return tuple(kept)[: limit or None]


def stored_entries(entries: Iterable[Texts], *, left_out: Counter[str]) -> tuple[Texts, ...]:
    """The entries, each text in them as `stored_text` gives it, other values unchanged.

    Raises:
      DropReason: none is left; the reason of the first.
    """
    kept, reasons = [], []
    for entry in entries:
        try:
            kept.append(cast(Texts, {key: _stored(value) for key, value in entry.items()}))
        except DropReason as reason:
            reasons.append(reason)
    if not kept:
        raise reasons[0] if reasons else DropReason('missing text')
    left_out.update(reason.reason for reason in reasons)
    return tuple(kept)


def check_texts(candidate: Candidate) -> None:
    """Raises DropReason if no text of a candidate can be stored."""
    if candidate.entries:
        stored_entries(candidate.entries, left_out=Counter())
    elif not candidate.exact:
        stored_captions(candidate.captions, limit=0, left_out=Counter())


def stored_meta(meta: Mapping[str, object]) -> dict[str, object]:
    """What else is kept. A text that cannot be stored is left out."""
    kept = {}
    for name, value in meta.items():
        try:
            kept[name] = _stored(value)
        except DropReason:
            continue
    return kept


def _stored(value: object) -> object:
    if isinstance(value, str):
        return stored_text(value)
    if isinstance(value, list | tuple):
        return [_stored(item) for item in value]
    if isinstance(value, dict):
        return {stored_text(str(key)): _stored(item) for key, item in value.items()}
    if value is None or isinstance(value, bool | float | bytes):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    return stored_text(str(value))
