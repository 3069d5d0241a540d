"""Frames of videos: which of them an example shows (docs/method.md section 9)."""

import numpy as np

from semmim_jax.data.records import Source

SAMPLINGS = ('segments', 'uniform')


def has_videos(source: Source) -> bool:
    """Whether the records of a source have `frames`; a source without `is_video` has images."""
    return bool(getattr(source, 'is_video', False))


def has_twins(source: Source) -> bool:
    """Whether record i ^ 1 is record i in reversed time; a source without `twins` has none."""
    return bool(getattr(source, 'twins', False))


def check_sampling(sampling: str) -> None:
    """Raises ValueError for a way of sampling that does not exist."""
    if sampling not in SAMPLINGS:
        raise ValueError(f'data.frame_sampling={sampling!r}: must be one of {", ".join(SAMPLINGS)}')


def uniform_frames(there: int, wanted: int) -> np.ndarray:
    """int [wanted] of `there` frames, from the first to the last: linspace(0, there - 1, wanted).

    A frame is shown more than once where there are fewer than wanted. See docs/method.md section 9.
    """
    return np.linspace(0, there - 1, wanted).round().astype(int)


def segment_frames(there: int, wanted: int, rng: np.random.Generator) -> np.ndarray:
    """int [wanted]: one frame of each of `wanted` equal segments, each as likely.

    Segment i begins at frame floor(i there / wanted), and has that frame at least. See
    docs/method.md section 9.
    """
    starts = np.arange(wanted) * there // wanted
    stops = np.maximum(starts + 1, np.arange(1, wanted + 1) * there // wanted)
    return rng.integers(starts, stops)


def shuffled_frames(clips: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Clips [b, f, h, w, c] with the frames of each in a random order of its own.

    The control of docs/method.md section 9: what is left tells no direction.
    """
    order = rng.permuted(np.tile(np.arange(clips.shape[1]), (len(clips), 1)), axis=1)  # [b, f]
    return np.take_along_axis(clips, order[:, :, None, None, None], axis=1)
