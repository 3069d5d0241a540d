"""Small videos, made here by PyAV, of frames that are told apart after lossy coding."""

import pathlib

import av
import numpy as np

CODECS = {  # suffix -> codec and its options; B-frames where there can be any
    '.mp4': ('libx264', {'bf': '3', 'g': '12', 'crf': '12'}),
    '.webm': ('libvpx-vp9', {'g': '12', 'crf': '20', 'b': '0'}),
    '.avi': ('mpeg4', {'bf': '2', 'b': '20000000', 'qmin': '1', 'qmax': '2'}),
}


def frame(number: int, *, width: int = 96, height: int = 64) -> np.ndarray:
    """uint8 [h, w, 3]: grey of a level that tells the number, and a lighter square at its place.

    The square is in the upper left corner, so that turned frames are seen to be turned."""
    pixels = np.full((height, width, 3), 30 + 4 * (number % 50), np.uint8)
    pixels[: height // 4, : height // 4] = 250
    return pixels


def number_of(pixels: np.ndarray) -> int:
    """The number of a decoded frame, by its level away from the square."""
    return round((float(np.median(pixels)) - 30) / 4)


def write_video(path: pathlib.Path, frames: int, *, width: int = 96, height: int = 64):
    """Writes a video of ten frames a second in the codec of its suffix; gives the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    codec, options = CODECS[path.suffix]
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(codec, rate=10, options=dict(options))
        stream.width, stream.height, stream.pix_fmt = width, height, 'yuv420p'
        for number in range(frames):
            pixels = frame(number, width=width, height=height)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format='rgb24')))
        container.mux(stream.encode())
    return path


def write_sound(path: pathlib.Path) -> pathlib.Path:
    """A file of sound alone."""
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('aac', rate=8000, layout='mono')
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), 'fltp', 'mono')
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    return path


def turned(mp4: bytes) -> bytes:
    """The file with a matrix that says to show its frames turned clockwise by a quarter."""
    start = mp4.index(b'tkhd') + 44  # of the matrix, in a header of version 0
    rows = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    matrix = b''.join(value.to_bytes(4, 'big', signed=True) for value in rows)
    return mp4[:start] + matrix + mp4[start + 36 :]
