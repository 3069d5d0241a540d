"""Small sets of videos in the true layouts of MSR-VTT and LSMDC, with every video made here."""

import pathlib

import numpy as np

from tests.data.video_files import write_video
from tests.importers.fixtures import encoded, lines, write

CLIPS = ('0001_Film_00.00.51.926-00.00.54.129', '0001_Film_00.01.02.000-00.01.03.500', '0002_B')


def write_msrvtt(root: pathlib.Path) -> None:
    """MSR-VTT as published, lists of both kinds, and the captions in another form."""
    for number, frames in enumerate((1, 3, 20)):
        write_video(root / 'all' / f'video{number}.mp4', frames)
    texts = [(0, 'a man runs'), (2, 'a dog swims'), (0, 'a man is running'), (1, 'a hat')]
    sentences = [
        {'sen_id': n, 'video_id': f'video{v}', 'caption': c} for n, (v, c) in enumerate(texts)
    ]
    entry = dict(category=3, url='https://x', split='train')
    videos = [
        {'id': n, 'video_id': f'video{n}', 'start time': 1.5, 'end time': 9.0, **entry}
        for n in range(3)
    ]
    write(root / 'MSRVTT_data.json', {'info': {}, 'videos': videos, 'sentences': sentences})
    annotations = [{'image_id': f'video{v}', 'caption': c} for v, c in texts]
    write(root / 'MSR_VTT.json', {'annotations': annotations})
    write(root / 'train_list_jsfusion.txt', 'video2\nvideo0\n')
    write(
        root / 'MSRVTT_JSFUSION_test.csv',
        'key,vid_key,video_id,sentence\n'
        'ret0,msr1,video1,"a red, old hat"\n'
        'ret1,msr2,video0,he runs\n',
    )
    write(root / 'MSRVTT_train.9k.csv', 'video_id\nvideo1\n')


def write_lsmdc(root: pathlib.Path) -> None:
    """LSMDC: files at two depths, one clip as 40 frames of a second, one with two sentences."""
    write_video(root / 'clips' / 'Film' / f'{CLIPS[0]}.avi', 20)
    write_video(root / 'clips' / f'{CLIPS[1]}.mp4', 3)
    for number in range(1, 41):
        level = np.full((64, 96, 3), 30 + 4 * number, np.uint8)
        write(root / 'clips' / '0002' / f'{CLIPS[2]}_{number:06d}.jpg', encoded(level))
    times = '\t'.join(['00.00.51.926', '00.00.54.129'] * 2)
    rows = [f'{clip}\t{times}\tSOMEONE walks {n}.' for n, clip in enumerate([*CLIPS, CLIPS[0]])]
    write(root / 'LSMDC16_annos_training.csv', '\n'.join(rows) + '\n')


def write_clips(root: pathlib.Path) -> None:
    """A list of one's own clips, one of them a part of a video."""
    write_video(root / 'cat.webm', 50)
    entries = [
        {'video': 'cat.webm', 'caption': 'a cat sleeps', 'start': 1, 'end': 2.5},
        {'video': 'cat.webm', 'caption': ['a cat sleeps and wakes', 'a cat']},
    ]
    write(root / 'clips.jsonl', lines(entries))


def write_videos(root: pathlib.Path) -> None:
    """All of them, below a folder."""
    write_msrvtt(root / 'msrvtt')
    write_lsmdc(root / 'lsmdc')
    write_clips(root / 'videos')
