"""Members of a plain tar: names and places, by its headers alone. Nothing is ever extracted."""

import os
import re
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

_BLOCK = 512
_MAX_HEADER = 2**20  # bytes of a long name, or of one member's extended header
_DRIVE = re.compile(r'[A-Za-z]:')


class Member(NamedTuple):
    """One member.

    Attributes:
      name: as the tar has it.
      kind: 'file', 'folder' or 'other': links, devices, pipes, sparse files.
      offset: of its first byte in the tar.
      size: in bytes, as its header says.
    """

    name: str
    kind: str
    offset: int
    size: int


class TarError(ValueError):
    """A tar that is cut, or no plain tar. The message does not name the file."""


class NotATar(TarError):
    """What is no plain tar from its first byte on: compressed, or of another kind."""


def tar_members(file: BinaryIO) -> Iterator[Member]:
    """The members in order. The file may be read and moved between them.

    Raises:
      TarError: after the last member that is whole, where the file is no tar or ends early; a
        member whose end is beyond the file's comes before that.
    """
    total = file.seek(0, os.SEEK_END)
    position, name, size = 0, None, None
    while True:
        file.seek(position)
        block = file.read(_BLOCK)
        if len(block) == _BLOCK and not any(block):
            return
        if len(block) < _BLOCK:
            raise TarError(f'ends at byte {total}, inside a header or without the closing block')
        try:
            header = tarfile.TarInfo.frombuf(block, 'utf-8', 'surrogateescape')
        except (tarfile.HeaderError, ValueError):
            if position == 0:
                raise NotATar('not a plain tar') from None
            raise TarError(f'no header at byte {position}') from None
        position += _BLOCK
        if header.size < 0:
            raise TarError(f'a negative size at byte {position}')
        if header.type in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
            if header.size > _MAX_HEADER or position + header.size > total:
                raise TarError(f'a header of {header.size} bytes at byte {position}')
            data = file.read(header.size)
            if header.type == tarfile.XHDTYPE:
                fields = _extended(data)
                name = fields.get('path', name)
                size = _number(fields['size'], position) if 'size' in fields else size
            else:
                name = data.rstrip(b'\0').decode('utf-8', 'surrogateescape')
            position = _next(position, header.size)
            continue
        if header.type in (tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGLINK):
            position = _next(position, header.size)
            continue
        if header.type == tarfile.GNUTYPE_SPARSE:
            position = _after_sparse_map(file, block, position)
        kind = 'folder' if header.isdir() else 'other'
        if header.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE):
            kind = 'file'
        stored = header.size if size is None else size
        if kind == 'other' and header.type != tarfile.GNUTYPE_SPARSE:
            stored = 0  # links have the size of what they lead to, and no data
        yield Member(header.name if name is None else name, kind, position, stored)
        position = _next(position, stored)
        if position > total:
            raise TarError(f'ends at byte {total}, inside a member')
        name = size = None


def is_safe(name: str) -> bool:
    """Whether a name stays below the folder that it would be unpacked in."""
    parts = name.replace('\\', '/').split('/')
    return not (name.startswith(('/', '\\')) or '..' in parts or _DRIVE.match(name))


def _next(position: int, size: int) -> int:
    return position + -(-size // _BLOCK) * _BLOCK


def _number(text: str, position: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise TarError(f'a size that is no number at byte {position}')
    return int(text)


def _extended(data: bytes) -> dict[str, str]:
    """Fields of an extended header: lines of "LENGTH KEY=VALUE"; what is no such line ends it."""
    fields, at = {}, 0
    while (space := data.find(b' ', at, at + 8)) > at and data[at:space].isdigit():
        end = at + int(data[at:space])
        key, is_field, value = data[space + 1 : end - 1].partition(b'=')
        if not is_field or end <= space:
            break
        fields[key.decode(errors='replace')] = value.decode('utf-8', 'surrogateescape')
        at = end
    return fields


def _after_sparse_map(file: BinaryIO, header: bytes, position: int) -> int:
    """Where the data of an old GNU sparse member begins: its map may go on in further blocks."""
    goes_on = header[482]
    while goes_on:
        file.seek(position)
        block = file.read(_BLOCK)
        if len(block) < _BLOCK:
            raise TarError('ends inside the map of a sparse file')
        position, goes_on = position + _BLOCK, block[504]
    return position
