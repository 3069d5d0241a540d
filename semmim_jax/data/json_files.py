"""JSON and JSON-lines files whose mistakes are named by file and line."""

import io
import json
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar, cast, overload

from semmim_jax.data.cloud import path_of

# Called by a reader with the error of each malformed entry; without one the reader raises it.
Skip = Callable[[ValueError], None]

_Kind = TypeVar('_Kind')
_Other = TypeVar('_Other')
_HALF = re.compile(r'\\u[dD][89a-fA-F]')  # an escape of half a character, often one of a pair


class DuplicateEntry(ValueError):
    """An entry of a list whose id, or all of whose texts, came before."""


def read_json(path: str | pathlib.Path, *, skip: Skip | None = None) -> object:
    """The parsed file. Raises ValueError, one line, for a missing or malformed one.

    With `skip`, bytes that are not UTF-8 and halves of characters stay in the strings, as
    'surrogateescape' and JSON's escapes give them: whoever skips entries checks each text.
    """
    return _parse(_read(path, skip), path, first_line=1, checked=skip is None)


def read_entries(path: str | pathlib.Path, *, skip: Skip | None = None) -> list[tuple[object, str]]:
    """Entries of a JSON array, or of a file with one JSON value a line; empty lines are skipped.

    Args:
      path: the file.
      skip: called with the error of each malformed line, see also `read_json`.

    Returns each entry with the words that name its place in error messages. Raises ValueError for
    a file that is missing, malformed or without entries.
    """
    text = _read(path, skip)
    checked = skip is None
    if text.lstrip().startswith('['):
        parsed = _parse(text, path, first_line=1, checked=checked)
        entries = [
            (entry, f'{path}, entry {i}') for i, entry in enumerate(cast(list[object], parsed))
        ]
    else:
        lines = enumerate(text.split('\n'), start=1)
        placed = (((n, line), f'{path}, line {n}') for n, line in lines if line.strip())

        def parse(numbered: tuple[int, str], where: str) -> tuple[object, str]:
            number, line = numbered
            return _parse(line, path, first_line=number, checked=checked), where

        entries = list(each(placed, parse, skip=skip))
    if not entries:
        raise ValueError(f'{path}: no entries')
    return entries


def each(
    entries: Iterable[tuple[_Other, str]],
    parse: Callable[[_Other, str], _Kind],
    *,
    skip: Skip | None,
) -> Iterator[_Kind]:
    """parse(entry, where) of each; `skip`, if there is one, is called with what it raises."""
    for entry, where in entries:
        try:
            parsed = parse(entry, where)
        except ValueError as error:
            if skip is None:
                raise
            skip(error)
        else:
            yield parsed


def as_object(entry: object, where: str) -> dict[str, object]:
    """The entry, which must be a JSON object. Raises ValueError beginning with `where`."""
    if not isinstance(entry, dict):
        raise ValueError(f'{where}: an object is needed, not {type(entry).__name__}')
    return entry


@overload
def field(entry: object, key: str, kind: type[_Kind], where: str) -> _Kind: ...
@overload
def field(
    entry: object, key: str, kind: tuple[type[_Kind], type[_Other]], where: str
) -> _Kind | _Other: ...
def field(entry: object, key: str, kind: type | tuple[type, ...], where: str) -> object:
    """entry[key], which must be of `kind`. Raises ValueError beginning with `where`."""
    entry = as_object(entry, where)
    if key not in entry:
        has = ', '.join(sorted(map(repr, entry))) or 'none'
        raise ValueError(f'{where}: needs the key "{key}"; has {has:.100}')
    value = entry[key]
    if not isinstance(value, kind) or isinstance(value, bool) and kind is int:
        raise ValueError(f'{where}: "{key}" cannot be {value!r:.60}')
    return value


def shown(text: str) -> str:
    """A name for a message of one line: as it is, or quoted where it has line breaks and such."""
    return text if text.isprintable() else repr(text)


def _parse(text: str, path: str | pathlib.Path, *, first_line: int, checked: bool) -> object:
    try:
        value = json.loads(text)
        if checked and _HALF.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as e:
        raise ValueError(f'{path}, line {first_line + e.lineno - 1}: not JSON: {e.msg}') from None
    except UnicodeEncodeError:
        raise ValueError(f'{path}, line {first_line} on: half a character in a string') from None
    except (RecursionError, ValueError) as e:  # nested thousands deep, or a number as long
        raise ValueError(f'{path}, line {first_line} on: cannot be read: {e}') from None
    return value


def _read(path: str | pathlib.Path, skip: Skip | None) -> str:
    try:
        errors = 'strict' if skip is None else 'surrogateescape'
        with io.TextIOWrapper(path_of(path).open('rb'), encoding='utf-8', errors=errors) as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as e:
        raise ValueError(f'{path}: {getattr(e, "strerror", None) or e}') from None
