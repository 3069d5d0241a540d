"""LSMDC: sentences about clips of films, in a table without a header."""

import pathlib

from semmim_jax.data.json_files import Skip, each
from semmim_jax.data.readers.clips import ClipText, VideoFolder, joined

_COLUMNS = 6  # id of the clip, start and end as aligned and as extracted, sentence


def read_lsmdc(path: str, *, video_root: str, skip: Skip | None = None) -> list[ClipText]:
    """One record a clip, with its sentences, of a table with tabs between six columns.

    CLIP_ID, START_ALIGNED, END_ALIGNED, START_EXTRACTED, END_EXTRACTED, SENTENCE; the clips are
    files of the extracted times. A clip may come twice.

    Args:
      path: LSMDC16_annos_training.csv and the like.
      video_root: folder that has CLIP_ID.avi or .mp4 at any depth, or frames CLIP_ID_000001.jpg;
        '': that of `path`.
      skip: called with the error of each malformed line; without it the first is raised.

    Raises:
      ValueError: the file is missing, empty or malformed; the message names file and line.
    """
    root = video_root or str(pathlib.Path(path).parent)
    errors = 'strict' if skip is None else 'surrogateescape'
    try:
        text = pathlib.Path(path).read_text(encoding='utf-8', errors=errors)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f'{path}: {getattr(error, "strerror", None) or error}') from None
    folder = VideoFolder.of(root)

    def record(line: str, where: str) -> ClipText:
        columns = line.split('\t')
        if len(columns) != _COLUMNS or not columns[0]:
            raise ValueError(f'{where}: {_COLUMNS} columns are needed, not {len(columns)}')
        return folder.clip(columns[0], where=where, captions=(columns[-1],), root=root)

    lines = [
        (line, f'{path}, line {number}')
        for number, line in enumerate(text.split('\n'), start=1)
        if line
    ]
    if not lines:
        raise ValueError(f'{path}: no clips')
    return joined(list(each(lines, record, skip=skip)))
