"""JSON and JSON-lines files whose mistakes are named by file and line."""

import json
import pathlib
import re
from typing import TypeVar, cast, overload

_Kind = TypeVar('_Kind')
_Other = TypeVar('_Other')
_HALF = re.compile(r'\\u[dD][89a-fA-F]')  # an escape of half a character, often one of a pair


def read_json(path: str | pathlib.Path) -> object:
    """The parsed file. Raises ValueError, one line, for a missing or malformed one."""
    return _parse(_read(path), path, first_line=1)


def read_entries(path: str | pathlib.Path) -> list[tuple[object, str]]:
    """Entries of a JSON array, or of a file with one JSON value a line; empty lines are skipped.

    Returns each entry with the words that name its place in error messages. Raises ValueError for
    a file that is missing, malformed or without entries.
    """
    text = _read(path)
    if text.lstrip().startswith('['):
        parsed = _parse(text, path, first_line=1)
        entries = [
            (entry, f'{path}, entry {i}') for i, entry in enumerate(cast(list[object], parsed))
        ]
    else:
        entries = [
            (_parse(line, path, first_line=number), f'{path}, line {number}')
            for number, line in enumerate(text.split('\n'), start=1)
            if line.strip()
        ]
    if not entries:
        raise ValueError(f'{path}: no entries')
    return entries


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


def _parse(text: str, path: str | pathlib.Path, *, first_line: int) -> object:
    try:
        value = json.loads(text)
        if _HALF.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as e:
        raise ValueError(f'{path}, line {first_line + e.lineno - 1}: not JSON: {e.msg}') from None
    except UnicodeEncodeError:
        raise ValueError(f'{path}, line {first_line} on: half a character in a string') from None
    except (RecursionError, ValueError) as e:  # nested thousands deep, or a number as long
        raise ValueError(f'{path}, line {first_line} on: cannot be read: {e}') from None
    return value


def _read(path: str | pathlib.Path) -> str:
    try:
        return pathlib.Path(path).read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as e:
        raise ValueError(f'{path}: {getattr(e, "strerror", None) or e}') from None
