"""Fuzzing of videos: files of each container, and lists of clips."""

import functools
import io
import json
import pathlib

import av
import numpy as np
from hypothesis import strategies as st

from fuzz.files import changed
from fuzz.mutations import mutated
from semmim_jax.data.videos import read_clip
from semmim_jax.importers.candidates import Candidate, Dropped
from semmim_jax.importers.clips import read_clip_list
from semmim_jax.importers.plan import Options, read_part, write_part

_CODECS = {'mp4': 'libx264', 'webm': 'libvpx-vp9', 'avi': 'mpeg4'}
_LISTS = {
    'clips': [
        {'video': 'a.mp4', 'caption': 'a red square', 'start': 0.0, 'end': 1.5},
        {'video': 'a.mp4', 'caption': ['the blue bar', 'b']},
    ],
    'msrvtt': {
        'videos': [{'id': 0, 'video_id': 'a', 'split': 'train'}],
        'sentences': [{'sen_id': n, 'video_id': 'a', 'caption': 'a bar'} for n in (0, 1)],
    },
}
_TABLES = {
    'msrvtt': 'key,video_id,sentence\nret0,a,"a red, square bar"\nret1,b,none\n',
    'lsmdc': '0001_A_00.00.51.926\t0\t1\t0\t1\tSOMEONE walks.\na\t0\t1\t0\t1\tSOMEONE sits.\n',
}


@functools.cache
def video_files() -> tuple[bytes, ...]:
    """Six frames of 32 pixels in each container."""
    files = []
    for form, codec in _CODECS.items():
        stream = io.BytesIO()
        with av.open(stream, 'w', format=form) as container:
            video = container.add_stream(codec, rate=10)
            video.width, video.height, video.pix_fmt = 32, 32, 'yuv420p'
            for number in range(6):
                pixels = np.full((32, 32, 3), 40 * number, np.uint8)
                container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format='rgb24')))
            container.mux(video.encode())
        files.append(stream.getvalue())
    return tuple(files)


def video(data: st.DataObject, folder: pathlib.Path) -> None:
    path = folder / 'a.mp4'
    path.write_bytes(mutated(data, data.draw(st.sampled_from(video_files()))))
    clip = read_clip(path, count=4, max_pixels=100_000, seconds=10.0, short_side=16)
    assert 1 <= len(clip.frames) == len(clip.times) <= 4
    assert all(frame.dtype == np.uint8 and frame.ndim == 3 for frame in clip.frames)
    assert clip.times == sorted(clip.times)


def clip_list(data: st.DataObject, folder: pathlib.Path) -> None:
    kind = data.draw(st.sampled_from(('clips', 'msrvtt', 'lsmdc')))
    (folder / 'a.mp4').write_bytes(b'')
    raw = json.dumps(changed(data, _LISTS[kind])).encode() if kind in _LISTS else b''
    table = _TABLES.get(kind, '').encode()
    if not data.draw(st.integers(0, 2)):
        raw, table = mutated(data, raw) if raw else raw, mutated(data, table) if table else table
    (folder / 'list').write_bytes(table if kind == 'lsmdc' else raw)
    (folder / 'videos').write_bytes(table)
    options = Options(video_list=str(folder / 'videos') if kind == 'msrvtt' else '')
    items: list[Candidate | Dropped] = list(read_clip_list(kind, str(folder / 'list'), options))
    write_part(folder, 0, items)
    assert read_part(folder, 0) == items
