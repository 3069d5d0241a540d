"""Frames of video files: the right ones in every container, and a reason for each bad file."""

import os

import cv2
import numpy as np
import pytest

from semmim_jax.data.videos import UnreadableVideo, read_clip
from tests.data.video_files import CODECS, number_of, turned, write_sound, write_video

LIMITS = dict(count=16, max_pixels=10**6, seconds=60.0)


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Suffix and number of frames -> a video."""
    folder = tmp_path_factory.mktemp('videos')
    return {
        (suffix, frames): write_video(folder / f'{frames}{suffix}', frames)
        for suffix in CODECS
        for frames in (1, 3, 50)
    }


@pytest.mark.parametrize('suffix', CODECS)
@pytest.mark.parametrize(
    ('frames', 'expected'),
    [
        (1, [0]),
        (3, [0, 1, 2]),
        # 49 i / 15 for i = 0 to 15, rounded
        (50, [0, 3, 7, 10, 13, 16, 20, 23, 26, 29, 33, 36, 39, 42, 46, 49]),
    ],
)
def test_frames_are_those_of_linspace_in_every_container(files, suffix, frames, expected):
    clip = read_clip(files[suffix, frames], **LIMITS)
    assert [number_of(pixels) for pixels in clip.frames] == expected
    np.testing.assert_allclose(clip.times, np.array(expected) / 10, atol=1e-6)
    assert clip.size == (64, 96)
    assert clip.frames[0].dtype == np.uint8


@pytest.mark.parametrize('suffix', CODECS)
def test_pixels_are_those_that_opencv_decodes(files, suffix):
    for frames in (1, 3, 50):
        video, decoded = cv2.VideoCapture(str(files[suffix, frames])), []
        while (read := video.read())[0]:
            decoded.append(read[1][..., ::-1])  # BGR
        clip = read_clip(files[suffix, frames], **LIMITS | {'count': frames})
        np.testing.assert_array_equal(clip.frames, decoded)


def test_frames_found_by_seeking_are_those_of_decoding_all(files):
    path = files['.mp4', 50]
    every = read_clip(path, **LIMITS | {'count': 50}).frames
    sought = read_clip(path, **LIMITS | {'count': 3}).frames
    assert [number_of(pixels) for pixels in every] == list(range(50))
    for pixels, number in zip(sought, (0, 24, 49), strict=True):  # 24.5 is rounded to the even
        assert (pixels == every[number]).all()


def test_a_span_and_frames_a_second(files):
    clip = read_clip(files['.webm', 50], **LIMITS | {'count': 4}, span=(1.0, 2.2))
    assert [number_of(pixels) for pixels in clip.frames] == [10, 14, 18, 22]
    clip = read_clip(files['.avi', 50], **LIMITS, fps=2.0, span=(0.0, 1.9))
    assert [number_of(pixels) for pixels in clip.frames] == [0, 5, 10, 15]
    with pytest.raises(UnreadableVideo, match='no frames.*none from second 9 to 10'):
        read_clip(files['.mp4', 50], **LIMITS, span=(9, 10))


def test_frames_are_scaled_to_a_short_side_and_upright(files, tmp_path):
    clip = read_clip(files['.mp4', 3], **LIMITS, short_side=32)
    assert clip.frames[0].shape == (32, 48, 3) and clip.size == (64, 96)
    path = tmp_path / 'turned.mp4'
    path.write_bytes(turned(files['.mp4', 3].read_bytes()))
    clip = read_clip(path, **LIMITS)
    assert clip.size == (96, 64)
    assert clip.frames[0][:12, -12:].mean() > 230  # clockwise: the square is upper right now
    assert clip.frames[0][:12, :12].mean() < 60


def recoded(avi: bytes) -> bytes:
    """The file with a code of four letters that is no codec's."""
    assert b'FMP4' in avi
    return avi.replace(b'FMP4', b'QQQQ')


def cut(data: bytes, share: float) -> bytes:
    return data[: int(share * len(data))]


BAD = {
    'empty.mp4': (lambda files: b'', 'empty'),
    'page.mp4': (lambda files: b'<!DOCTYPE html><html>404</html>', 'corrupt video'),
    'list.mp4': (
        lambda files: b'#EXTM3U\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST',
        'corrupt video',
    ),
    'concat.mp4': (lambda files: b'ffconcat version 1.0\nfile 50.mp4\n', 'corrupt video'),
    'no_moov.mp4': (lambda files: cut(files['.mp4', 50].read_bytes(), 0.7), 'corrupt video'),
    'cut.webm': (lambda files: cut(files['.webm', 50].read_bytes(), 0.5), 'corrupt video'),
    'codec.avi': (lambda files: recoded(files['.avi', 3].read_bytes()), 'corrupt video'),
    'cut.avi': (lambda files: cut(files['.avi', 50].read_bytes(), 0.8), 'corrupt video'),
}


@pytest.mark.parametrize('name', BAD)
def test_a_bad_file_has_a_reason(files, name, tmp_path):
    content, reason = BAD[name]
    path = tmp_path / name
    path.write_bytes(content(files))
    with pytest.raises(UnreadableVideo) as caught:
        read_clip(path, **LIMITS)
    assert caught.value.reason == reason
    assert name in str(caught.value) and '\n' not in str(caught.value)


def test_what_is_no_file_and_what_has_no_frames_or_too_many_pixels(files, tmp_path):
    def reason(path, **changes):
        with pytest.raises(UnreadableVideo) as caught:
            read_clip(path, **LIMITS | changes)
        return caught.value.reason

    os.mkfifo(tmp_path / 'pipe.mp4')
    assert reason(tmp_path / 'pipe.mp4') == 'not a file'
    assert reason(tmp_path) == 'not a file'
    assert reason(tmp_path / 'gone.mp4') == 'missing video'
    assert reason('http://127.0.0.1:9/a.mp4') == 'missing video'
    assert reason(write_sound(tmp_path / 'sound.mp4')) == 'no frames'
    assert reason(files['.mp4', 3], max_pixels=64 * 96 - 1) == 'too many pixels'
    assert reason(files['.mp4', 50], seconds=0.0) == 'too slow'
