"""Clips: from lists of videos to the frames that shards hold."""

from collections.abc import Iterator
from typing import NamedTuple

from semmim_jax.data.frames import uniform_frames
from semmim_jax.data.json_files import Skip
from semmim_jax.data.readers.clips import ClipText, read_clips
from semmim_jax.data.readers.lsmdc import read_lsmdc
from semmim_jax.data.readers.msrvtt import read_msrvtt
from semmim_jax.data.videos import UnreadableVideo, read_clip
from semmim_jax.importers.candidates import Candidate, Dropped, DropReason
from semmim_jax.importers.pictures import encoded_jpeg, stored_image
from semmim_jax.importers.plan import Options

VIDEO_READERS = ('msrvtt', 'lsmdc', 'clips')
FRAMES = 16  # of a clip, at linspace(0, last, 16): four in evaluation are 0, 5, 10 and 15
_SECONDS = 60.0  # of processor time for a clip
_FRAME_RATE = 1.0  # of frames in files of their own, a second


class StoredClip(NamedTuple):
    """Encoded frames, the second of each, height and width of the original."""

    frames: tuple[bytes, ...]
    times: tuple[float, ...]
    size: tuple[int, int]


def clip_files(argument: str, options: Options) -> list[str]:
    """The files that a list of videos is read from."""
    return [argument, *filter(None, [options.video_list])]


def read_clip_list(kind: str, argument: str, options: Options) -> Iterator[Candidate | Dropped]:
    """The clips of one list, and what is left out.

    Args:
      kind: of VIDEO_READERS.
      argument: of the reader.
      options: for `videos`, `video_list` and `fps`.

    Raises:
      ValueError: the list is missing, or cannot be read at all.
    """
    wrong: list[ValueError] = []
    clips = _read(kind, argument, options, wrong.append)
    yield from (Dropped(key='', reason='malformed entry', where=str(e)) for e in wrong)
    for clip in clips:
        # Of frames that lie in files of their own the chosen ones alone are read.
        places = range(len(clip.frames)) if options.fps else _places(len(clip.frames))
        yield Candidate(
            key=clip.key,
            video=clip.video,
            frames=tuple(clip.frames[i] for i in places),
            times=tuple(i / _FRAME_RATE for i in places),
            span=clip.span or (),
            where=clip.where,
            captions=clip.captions,
        )


def _read(kind: str, argument: str, options: Options, skip: Skip) -> list[ClipText]:
    if options.video_list and kind != 'msrvtt':
        raise ValueError('--list is of msrvtt')
    if kind == 'msrvtt':
        return read_msrvtt(
            argument, video_root=options.videos, list_file=options.video_list, skip=skip
        )
    read = read_lsmdc if kind == 'lsmdc' else read_clips
    return read(argument, video_root=options.videos, skip=skip)


def stored_clip(candidate: Candidate, options: Options) -> StoredClip:
    """The frames of a candidate as a shard holds them: JPEGs, PNGs of those that are made.

    Raises:
      DropReason: they cannot be read, or are beyond the limits.
    """
    if candidate.frames:
        limits = {'max_pixels': options.max_pixels, 'max_bytes': options.max_bytes}
        stored = [stored_image(frame, size=options.size, **limits) for frame in candidate.frames]
        if len({image.size for image in stored}) > 1:
            raise DropReason('frame sizes', 'frames of different sizes')
        return StoredClip(tuple(image.data for image in stored), candidate.times, stored[0].size)
    try:
        clip = read_clip(
            candidate.video,
            count=FRAMES,
            fps=options.fps,
            span=(candidate.span[0], candidate.span[1]) if candidate.span else None,
            max_pixels=options.max_pixels,
            seconds=_SECONDS,
            short_side=options.size,
        )
    except UnreadableVideo as error:
        raise DropReason(error.reason, error.message) from None
    frames = tuple(encoded_jpeg(pixels) for pixels in clip.frames)
    return StoredClip(frames, tuple(clip.times), clip.size)


def _places(there: int) -> list[int]:
    return sorted(set(uniform_frames(there, FRAMES).tolist())) if there else []
