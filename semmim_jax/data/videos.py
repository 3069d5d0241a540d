"""Frames of video files, decoded by PyAV: exact ones, by seeking, under limits of size and time."""

import bisect
import functools
import io
import math
import pathlib
import stat
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import cv2
import numpy as np

from semmim_jax.data.frames import uniform_frames
from semmim_jax.data.json_files import shown
from semmim_jax.data.unreadable import UnreadableRecord

SUFFIXES = ('.mp4', '.avi', '.webm', '.mkv', '.mov', '.m4v', '.mpg', '.mpeg')
# Containers alone: FFmpeg would also take a text for a playlist and open what it names.
_FORMATS = 'mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf'
_LATE = 1.0  # seconds that a stream may end before its container says
_MOST_FRAMES = 4096  # of a clip at `fps`


class UnreadableVideo(UnreadableRecord):
    """A video cannot be read: `reason` in a few words that are the same for all of the kind."""

    def __init__(self, reason: str, message: str = ''):
        super().__init__(f'{reason}: {message}' if message else reason)
        self.reason, self.message = reason, message


class Clip(NamedTuple):
    """Frames uint8 [h, w, 3], upright; the second of each; height and width of the original."""

    frames: list[np.ndarray]
    times: list[float]
    size: tuple[int, int]


def read_clip(
    path: str | pathlib.Path,
    *,
    count: int,
    max_pixels: int,
    seconds: float,
    fps: float = 0.0,
    span: tuple[float, float] | None = None,
    short_side: int = 0,
) -> Clip:
    """Decodes some frames of a video file.

    Args:
      path: the file.
      count: frames, at linspace(0, last, count); all of them where there are fewer.
      max_pixels: of a frame.
      seconds: of processor time that reading may take.
      fps: frames a second from the first on, instead of `count`; 0: `count`.
      span: seconds from the first frame on that are read; None: all.
      short_side: pixels that a frame's short side has at most; 0: whatever it has.

    Raises:
      UnreadableVideo: 'missing video', 'not a file', 'empty', 'corrupt video', 'no frames', 'too
        many pixels' or 'too slow'.
      ImportError: PyAV is not installed.
    """
    av = _pyav()
    data = _opened(pathlib.Path(path))
    deadline = time.thread_time() + seconds
    try:
        if _is_cut_mp4(data):
            raise UnreadableVideo('corrupt video', 'the file is cut')
        with data, _container(av, data) as container:
            if not container.streams.video:
                raise UnreadableVideo('no frames', 'no stream of video')
            again = functools.partial(_container, av, data)
            reader = _Reader(container, again, max_pixels=max_pixels, deadline=deadline)
            chosen = _chosen(reader.times, count=count, fps=fps, span=span)
            frames, size = [], (0, 0)
            for pixels in reader.decode(chosen):
                size = pixels.shape[:2]
                frames.append(_scaled(pixels, short_side))
            return Clip(frames, [reader.times[i] for i in chosen], size)
    except UnreadableVideo as error:
        message = f'{shown(str(path))}: {error.message}' if error.message else shown(str(path))
        raise UnreadableVideo(error.reason, message) from None
    except (av.error.FFmpegError, OSError, ValueError, MemoryError, EOFError) as error:
        why = ' '.join(str(getattr(error, 'strerror', None) or error).split())
        raise UnreadableVideo('corrupt video', f'{shown(str(path))}: {why:.100}') from None


class _Reader:
    """One stream: the times of its frames, read from packets, and frames by their number.

    In other files than MP4 and Matroska (WebM) packets may not say when they are shown: of those
    frames are decoded from the first on.

    Args:
      container: the file.
      again: opens it anew, at its beginning.
      max_pixels: of a frame.
      deadline: of time.thread_time.
    """

    def __init__(
        self, container: Any, again: Callable[[], Any], *, max_pixels: int, deadline: float
    ):
        self._container, self._stream = container, container.streams.video[0]
        self._again = again
        self._max_pixels, self._deadline = max_pixels, deadline
        context = self._stream.codec_context
        if context is None:
            raise UnreadableVideo('corrupt video', 'coded in a way that is not known')
        self._stream.thread_type = 'NONE'  # the workers are the threads
        self._check_size(context.width, context.height)
        shown_at, keys = set[int](), set[int]()
        self._packets = 0
        for packet in container.demux(self._stream):
            self._check_time()
            if packet.size == 0 or packet.is_discard:
                continue
            self._packets += 1
            if packet.pts is not None:
                shown_at.add(packet.pts)
                if packet.is_keyframe:
                    keys.add(packet.pts)
        if not self._packets:
            raise UnreadableVideo('no frames')
        self._check_end(max(shown_at, default=0))
        self._pts, self._keys = sorted(shown_at), sorted(keys)
        self._by_seeking = (
            bool({'mp4', 'matroska'} & set(container.format.name.split(',')))
            and len(shown_at) == self._packets  # each packet is one frame, at a time of its own
            and self._keys[:1] == self._pts[:1]
        )
        if not self._by_seeking:
            self._pts = self._evenly_spaced()
        if not self._pts:
            raise UnreadableVideo('no frames')

    @property
    def times(self) -> list[float]:
        """Seconds of the frames, from the first on."""
        base = float(self._stream.time_base or 1)
        return [(pts - self._pts[0]) * base for pts in self._pts]

    def decode(self, numbers: list[int]) -> Iterator[np.ndarray]:
        """uint8 [h, w, 3] of frames by number, which rise, each number once."""
        found = self._sought(numbers) if self._by_seeking else self._in_order(numbers)
        count = 0
        for frame in found:
            self._check_size(frame.width, frame.height)
            turned = np.rot90(frame.to_ndarray(format='rgb24'), frame.rotation // 90)
            yield np.ascontiguousarray(turned)
            count += 1
        if count < len(numbers):
            raise UnreadableVideo('corrupt video', f'frame {numbers[count]} cannot be decoded')

    def _sought(self, numbers: list[int]) -> Iterator[Any]:
        position = -math.inf  # of the frame decoded last
        frames: Iterator[Any] = iter(())
        for number in numbers:
            wanted = self._pts[number]
            key = self._keys[bisect.bisect_right(self._keys, wanted) - 1]
            if key > position:
                self._container.seek(key, stream=self._stream)
                frames = self._container.decode(self._stream)
            for frame in frames:
                self._check_time()
                position = -math.inf if frame.pts is None else frame.pts
                if position == wanted:
                    yield frame
                if position >= wanted:
                    break

    def _in_order(self, numbers: list[int]) -> Iterator[Any]:
        for number, frame in enumerate(self._every()):
            if number in numbers:
                yield frame
            if number >= numbers[-1]:
                return

    def _every(self) -> Iterator[Any]:
        with self._again() as container:
            container.streams.video[0].thread_type = 'NONE'
            for frame in container.decode(container.streams.video[0]):
                self._check_time()
                yield frame

    def _evenly_spaced(self) -> list[int]:
        """Times of as many frames as there are, by the stream's rate."""
        count = sum(1 for _ in self._every())
        step = 1 / (self._stream.average_rate or 1) / (self._stream.time_base or 1)
        return [round(step * number) for number in range(count)]

    def _check_end(self, last: int) -> None:
        """A file that was cut has fewer frames, or ends earlier, than its header says."""
        if self._stream.frames > self._packets:
            why = f'{self._packets} of {self._stream.frames} frames'
            raise UnreadableVideo('corrupt video', why)
        whole = self._container.duration
        if whole and self._stream.time_base and len(self._container.streams) == 1:
            left = whole / 1e6 - float(last * self._stream.time_base)
            if left > max(_LATE, 0.2 * whole / 1e6):
                raise UnreadableVideo('corrupt video', f'ends {left:.1f} s early')

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self._max_pixels:
            raise UnreadableVideo('too many pixels', f'{width} x {height} pixels')

    def _check_time(self) -> None:
        if time.thread_time() > self._deadline:
            raise UnreadableVideo('too slow')


def _chosen(
    times: list[float], *, count: int, fps: float, span: tuple[float, float] | None
) -> list[int]:
    """Numbers of the frames to read, each once."""
    start, end = span or (0.0, float('inf'))
    inside = [i for i, second in enumerate(times) if start <= second <= end]
    if not inside:
        raise UnreadableVideo('no frames', f'none from second {start:g} to {end:g}')
    if fps:
        first, last = times[inside[0]], times[inside[-1]]
        steps = np.arange(min(_MOST_FRAMES, int((last - first) * fps + 1e-6) + 1)) / fps
        places = np.searchsorted([times[i] for i in inside], first + steps - 1e-6)
    else:
        places = uniform_frames(len(inside), count)
    return [inside[i] for i in sorted(set(places.tolist()))]


def _scaled(pixels: np.ndarray, short_side: int) -> np.ndarray:
    height, width = pixels.shape[:2]
    short = min(height, width)
    if not short_side or short <= short_side:
        return pixels
    to = (round(width * short_side / short), round(height * short_side / short))
    return cv2.resize(pixels, to, interpolation=cv2.INTER_AREA)


def _opened(path: pathlib.Path) -> io.BufferedReader:
    """The file; by a path FFmpeg would also take addresses."""
    name = shown(str(path))
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe or a device may never end
            raise UnreadableVideo('not a file', name)
        if not found.st_size:
            raise UnreadableVideo('empty', name)
        return open(path, 'rb')
    except (OSError, ValueError) as error:
        if isinstance(error, UnreadableVideo):
            raise
        why = getattr(error, 'strerror', None) or error
        raise UnreadableVideo('missing video', f'{name}: {why}') from None


def _is_cut_mp4(data: io.BufferedReader) -> bool:
    """Whether a file of MP4's kind ends within one of the boxes that it consists of."""
    end, place = data.seek(0, io.SEEK_END), 0
    while place + 8 <= end:
        data.seek(place)
        header = data.read(16)
        if not place and header[4:8] != b'ftyp':
            return False  # of another kind
        size = int.from_bytes(header[:4], 'big')
        if size == 1:  # it stands behind the name
            size = int.from_bytes(header[8:], 'big')
        if size < 8:  # 0: to the end of the file
            return False
        place += size
    return place != end


def _container(av: ModuleType, data: io.BufferedReader) -> Any:
    data.seek(0)
    return av.open(data, options={'format_whitelist': _FORMATS})


def _pyav() -> ModuleType:
    try:
        import av
    except ImportError:
        raise ImportError('videos need PyAV: pip install semmim_jax[video]') from None
    av.logging.set_level(None)  # damage is reported by our own messages
    return av
