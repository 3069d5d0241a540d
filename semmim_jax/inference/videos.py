"""What a user gives as a video: the file of a clip, a folder of its frames, or their pixels."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from semmim_jax.data.frames import uniform_frames
from semmim_jax.data.videos import read_clip
from semmim_jax.inference.inputs import as_pixels

Video = str | pathlib.Path | np.ndarray  # an array is uint8 [f, h, w, 3]
Videos = Video | Sequence[Video]

_FRAME_SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp')
_SECONDS = 60.0  # of processor time for a clip


def as_videos(videos: Videos) -> list[Any]:
    """The videos one by one, unread; one video is a list of one.

    Raises:
      ValueError: for what is neither a video nor a list of them.
    """
    if isinstance(videos, str | pathlib.Path) or getattr(videos, 'ndim', None) == 4:
        return [videos]
    if isinstance(videos, list | tuple):
        return list(videos)
    raise ValueError(
        'a video is a path to a clip, a folder of frames or an array [f, h, w, 3], not '
        f'{type(videos).__name__}'
    )


def as_frames(video: Video, *, count: int, decoder: str, max_pixels: int) -> list[np.ndarray]:
    """`count` frames of one video, uint8 [h, w, 3], from the first to the last.

    Args:
      video: see above; the frames of a folder are its images by name.
      count: frames; some are there twice where the video has fewer.
      decoder, max_pixels: of frames, see `data.images.read_image`.

    Raises:
      ValueError: for anything else; for what cannot be read, `UnreadableRecord`.
    """
    if isinstance(video, str | pathlib.Path):
        folder = pathlib.Path(video)
        if not folder.is_dir():
            clip = read_clip(folder, count=count, max_pixels=max_pixels, seconds=_SECONDS)
            return [clip.frames[i] for i in uniform_frames(len(clip.frames), count)]
        frames: Sequence[Any] = sorted(
            path for path in folder.iterdir() if path.suffix.lower() in _FRAME_SUFFIXES
        )
        if not frames:
            raise ValueError(f'{video}: no {", ".join(_FRAME_SUFFIXES)} file in this folder')
    elif getattr(video, 'ndim', None) == 4 and len(video):
        frames = video
    else:
        raise ValueError(f'a video of pixels is uint8 [f, h, w, 3], not {type(video).__name__}')
    chosen = [frames[i] for i in uniform_frames(len(frames), count)]
    return [as_pixels(frame, decoder=decoder, max_pixels=max_pixels) for frame in chosen]
