"""MSR-VTT: captions in JSON, and which videos are meant in a list of its own."""

import csv
import pathlib

from semmim_jax.data.json_files import Skip, each, field, read_json
from semmim_jax.data.readers.captions import check_captions
from semmim_jax.data.readers.clips import ClipText, VideoFolder, joined

_Listed = tuple[str, str, tuple[str, ...]]  # id, place and own captions of a video


def read_msrvtt(
    path: str, *, video_root: str, list_file: str, skip: Skip | None = None
) -> list[ClipText]:
    """One record a video, in the order of the list, with all its captions.

    Args:
      path: {"videos": [{"video_id"}], "sentences": [{"video_id", "caption"}]}, as published, or
        {"annotations": [{"image_id", "caption"}]}.
      video_root: folder of VIDEO_ID.mp4; '': that of `path`.
      list_file: a video id a line, as train_list_jsfusion.txt; or a CSV with the column video_id,
        and if it has `sentence`, as MSRVTT_JSFUSION_test.csv, that is the one caption. '': all
        videos of `path`.
      skip: called with the error of each malformed entry; without it the first is raised.

    Raises:
      ValueError: a file is missing or malformed; the message names file and entry.
    """
    root = video_root or str(pathlib.Path(path).parent)
    folder, captions = VideoFolder.of(root), _captions(path, skip)
    listed: list[_Listed] = [(video, f'{path}, video {video}', ()) for video in captions]
    if list_file:
        listed = _listed(list_file)

    def record(entry: tuple[str, tuple[str, ...]], where: str) -> ClipText:
        video, own = entry
        texts = own or tuple(captions.get(video, ()))
        if not texts:
            raise ValueError(f'{where}: {path} has no caption of {video!r:.60}')
        return folder.clip(video, where=where, captions=texts, root=root)

    placed = [((video, own), where) for video, where, own in listed]
    clips = joined(list(each(placed, record, skip=skip)))
    if not clips:
        raise ValueError(f'{list_file or path}: no videos')
    return clips


def _captions(path: str, skip: Skip | None) -> dict[str, list[str]]:
    """Captions by video."""
    data = read_json(path, skip=skip)
    published = isinstance(data, dict) and 'sentences' in data
    key, name = ('sentences', 'video_id') if published else ('annotations', 'image_id')
    captions: dict[str, list[str]] = {}

    def annotation(entry: object, where: str) -> None:
        video = field(entry, name, str, where)
        texts = check_captions([field(entry, 'caption', str, where)], where)
        captions.setdefault(video, []).extend(str(text) for text in texts)

    entries = enumerate(field(data, key, list, path))
    placed = ((entry, f'{path}, {key} {number}') for number, entry in entries)
    list(each(placed, annotation, skip=skip))
    return captions


def _listed(path: str) -> list[_Listed]:
    try:
        text = pathlib.Path(path).read_text(encoding='utf-8-sig')
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f'{path}: {getattr(error, "strerror", None) or error}') from None
    lines = text.splitlines()
    header = next(csv.reader(lines[:1]), [])
    if 'video_id' not in header:
        return [
            (line.strip(), f'{path}, line {number}', ())
            for number, line in enumerate(lines, start=1)
            if line.strip()
        ]
    listed: list[_Listed] = []
    rows = csv.DictReader(lines)
    for row in rows:
        own = (row['sentence'],) if row.get('sentence') else ()
        listed.append(((row['video_id'] or '').strip(), f'{path}, line {rows.line_num}', own))
    return listed
