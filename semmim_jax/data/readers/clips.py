"""Lists of video clips with captions: the record of all readers, and the project's own list."""

import dataclasses
import os
import pathlib
import re

from semmim_jax.data.json_files import Skip, as_object, each, field, read_entries
from semmim_jax.data.readers.captions import check_captions
from semmim_jax.data.videos import SUFFIXES

_FRAME = re.compile(r'(.+)_\d{6}\.jpe?g', re.IGNORECASE)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClipText:
    """One clip before it is read.

    Attributes:
      key: unique in a list.
      video: path of a file; or
      frames: paths of its frames, in order.
      where: file and line or id, for error messages.
      captions: as written.
      span: seconds from the start of the video on; None: all.
    """

    key: str
    where: str
    captions: tuple[str, ...]
    video: str = ''
    frames: tuple[str, ...] = ()
    span: tuple[float, float] | None = None


def read_clips(path: str, *, video_root: str, skip: Skip | None = None) -> list[ClipText]:
    """Records of {"video": path, "caption": str or [str], "start"?, "end"?}, in seconds.

    A JSON array, or one object a line. Relative paths are taken from `video_root`, or from the
    folder of the list if that is ''. Entries of one clip join. `skip` is called with the error of
    each malformed entry; without it the first is raised.

    Raises:
      ValueError: the list is missing, empty or malformed; the message names file and entry.
    """
    root = pathlib.Path(video_root or pathlib.Path(path).parent)

    def parse(entry: object, where: str) -> ClipText:
        entry = as_object(entry, where)
        video = field(entry, 'video', str, where)
        if not video or '\0' in video:
            raise ValueError(f'{where}: "video" cannot be {video!r:.60}')
        captions = field(entry, 'caption', (str, list), where)
        span = None
        if 'start' in entry or 'end' in entry:
            start, end = (
                float(field(entry, name, (int, float), where)) for name in ('start', 'end')
            )
            if not 0 <= start < end:
                raise ValueError(f'{where}: from second {start:g} to {end:g} there is nothing')
            span = start, end
        return ClipText(
            key=video if span is None else f'{video}#{span[0]:g}-{span[1]:g}',
            video=str(root / video),
            where=where,
            captions=check_captions([captions] if isinstance(captions, str) else captions, where),
            span=span,
        )

    return joined(list(each(read_entries(path, skip=skip), parse, skip=skip)))


def joined(clips: list[ClipText]) -> list[ClipText]:
    """One record a key, in the order of the first, with the captions of all."""
    by_key: dict[str, ClipText] = {}
    for clip in clips:
        if before := by_key.get(clip.key):
            clip = dataclasses.replace(before, captions=before.captions + clip.captions)
        by_key[clip.key] = clip
    return list(by_key.values())


@dataclasses.dataclass(frozen=True)
class VideoFolder:
    """What lies in a folder of videos, its subfolders too.

    Attributes:
      videos: path by the name without its suffix.
      frames: paths, in order, by the id of a clip whose frames are ID_000001.jpg and so on.
    """

    videos: dict[str, str]
    frames: dict[str, tuple[str, ...]]

    @classmethod
    def of(cls, root: str) -> 'VideoFolder':
        """Looks through a folder. Raises ValueError if there is none."""
        if not os.path.isdir(root):
            raise ValueError(f'--videos={root}: no such folder')
        videos: dict[str, str] = {}
        frames: dict[str, list[str]] = {}
        for folder, folders, names in os.walk(root):
            folders.sort()
            for name in sorted(names):
                stem, suffix = os.path.splitext(name)
                if suffix.lower() in SUFFIXES:
                    videos.setdefault(stem, os.path.join(folder, name))
                elif match := _FRAME.fullmatch(name):
                    frames.setdefault(match[1], []).append(os.path.join(folder, name))
        return cls(videos, {clip: tuple(paths) for clip, paths in frames.items()})

    def clip(self, clip_id: str, *, where: str, captions: tuple[str, ...], root: str) -> ClipText:
        """The clip of an id; one that is not there has the path where it should be."""
        video = self.videos.get(clip_id, '')
        frames = () if video else self.frames.get(clip_id, ())
        if not (video or frames):
            video = os.path.join(root, f'{clip_id}{SUFFIXES[0]}')
        return ClipText(key=clip_id, video=video, frames=frames, where=where, captions=captions)
