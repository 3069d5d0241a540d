"""Videos as shards: lists in their true layouts, the right frames, a reason for each loss."""

import json
import pathlib

import numpy as np
import pytest

from configs.completion import get_config
from semmim_jax.data import pipeline
from semmim_jax.data.completion_examples import CompletionExamples
from semmim_jax.data.images import decode_image
from semmim_jax.data.readers.sources import make_source
from semmim_jax.data.shard_format import Manifest, ShardRecord
from semmim_jax.data.tokenizer import make_tokenizer
from semmim_jax.importers.verify import verify
from tests.data.video_files import number_of, turned, write_sound, write_video
from tests.importers.fixtures import write
from tests.importers.sets import dropped, prepared
from tests.importers.video_fixtures import CLIPS, write_lsmdc, write_msrvtt


def numbers(record: ShardRecord) -> list[int]:
    """Of the frames of a record."""
    frames = [decode_image(f, decoder='opencv', max_pixels=10**6) for f in record.frames]
    return [number_of(frame) for frame in frames]


def by_key(records: list[ShardRecord]) -> dict[str, tuple[str, ...]]:
    return {record.key: record.captions for record in records}


@pytest.fixture(scope='module')
def msrvtt(tmp_path_factory) -> pathlib.Path:
    """With the videos 0, 1 and 2."""
    root = tmp_path_factory.mktemp('msrvtt')
    write_msrvtt(root)
    return root


def test_msrvtt_by_its_lists(msrvtt, tmp_path):
    source, videos = msrvtt / 'MSRVTT_data.json', str(msrvtt / 'all')
    train = write(tmp_path / 'list.txt', 'video2\nvideo0\nvideo9\n')
    records = prepared(tmp_path / 'train', 'msrvtt', source, videos=videos, video_list=str(train))
    assert by_key(records) == {
        'video2': ('a dog swims',),
        'video0': ('a man runs', 'a man is running'),
    }
    assert dropped(tmp_path / 'train') == [('', 'malformed entry')]  # video9 has no caption
    # 19 i / 15, rounded
    assert numbers(records[0]) == [0, 1, 3, 4, 5, 6, 8, 9, 10, 11, 13, 14, 15, 16, 18, 19]
    assert records[0].times == pytest.approx([n / 10 for n in numbers(records[0])])
    assert records[0].size == (64, 96)
    assert numbers(records[1]) == [0]
    tested = prepared(
        tmp_path / 'test',
        'msrvtt',
        source,
        videos=videos,
        video_list=str(msrvtt / 'MSRVTT_JSFUSION_test.csv'),
    )
    assert by_key(tested) == {'video1': ('a red, old hat',), 'video0': ('he runs',)}
    other = prepared(
        tmp_path / 'other',
        'msrvtt',
        msrvtt / 'MSR_VTT.json',
        videos=videos,
        video_list=str(msrvtt / 'MSRVTT_train.9k.csv'),
    )
    assert by_key(other) == {'video1': ('a hat',)}
    whole = prepared(tmp_path / 'whole', 'msrvtt', source, videos=videos)
    assert list(by_key(whole)) == ['video0', 'video2', 'video1']
    assert list(verify(str(tmp_path / 'whole'), decode=None)) == []


def test_lsmdc_files_frames_and_lines(tmp_path):
    write_lsmdc(tmp_path)
    ids, path = CLIPS, tmp_path / 'LSMDC16_annos_training.csv'
    path.write_text(f'{path.read_text()}no columns\n')
    records = prepared(tmp_path / 'out', 'lsmdc', path, videos=str(tmp_path / 'clips'))
    assert by_key(records) == {
        ids[0]: ('SOMEONE walks 0.', 'SOMEONE walks 3.'),
        ids[1]: ('SOMEONE walks 1.',),
        ids[2]: ('SOMEONE walks 2.',),
    }
    assert dropped(tmp_path / 'out') == [('', 'malformed entry')]
    assert numbers(records[1]) == [0, 1, 2]
    # Frames of a second each, 39 i / 15 rounded; the first file is number 1.
    places = [0, 3, 5, 8, 10, 13, 16, 18, 21, 23, 26, 29, 31, 34, 36, 39]
    assert numbers(records[2]) == [place + 1 for place in places]
    assert records[2].times == tuple(map(float, places))


def test_own_clips_with_spans_and_frames_a_second(tmp_path):
    write_video(tmp_path / 'v' / 'a.webm', 50)
    entries = [
        {'video': 'v/a.webm', 'caption': 'first', 'start': 1, 'end': 2.5},
        {'video': 'v/a.webm', 'caption': ['second', 'third']},
        {'video': 'v/a.webm', 'caption': 'again', 'start': 1.0, 'end': 2.5},
        {'video': 'v/a.webm', 'caption': 'backwards', 'start': 2, 'end': 1},
        {'video': 'v/a.webm', 'caption': 'after the end', 'start': 90, 'end': 91},
    ]
    path = write(tmp_path / 'list.jsonl', ''.join(json.dumps(entry) + '\n' for entry in entries))
    records = prepared(tmp_path / 'out', 'clips', path, fps=2.0)
    assert by_key(records) == {
        'v/a.webm#1-2.5': ('first', 'again'),
        'v/a.webm': ('second', 'third'),
    }
    assert numbers(records[0]) == [10, 15, 20, 25]
    assert numbers(records[1]) == [0, 5, 10, 15, 20, 25, 30, 35, 40, 45]
    assert dropped(tmp_path / 'out') == [
        ('', 'malformed entry'),
        ('v/a.webm#90-91', 'no frames'),
    ]


def test_hostile_videos_are_dropped_with_a_reason_and_odd_ones_kept(tmp_path):
    whole = write_video(tmp_path / 'whole.mp4', 20).read_bytes()
    write_sound(tmp_path / 'sound.mp4')
    write_video(tmp_path / 'large.mp4', 2, width=640, height=400)
    write_video(tmp_path / 'one.avi', 1)
    for name, content in {
        'empty.mp4': b'',
        'page.mp4': b'<html>404</html>',
        'cut.mp4': whole[: len(whole) * 2 // 3],
        'list.mp4': b'#EXTM3U\n#EXTINF:1,\nwhole.mp4\n#EXT-X-ENDLIST\n',
        'turned.mp4': turned(whole),
    }.items():
        (tmp_path / name).write_bytes(content)
    names = [
        *('empty.mp4', 'page.mp4', 'cut.mp4', 'list.mp4', 'turned.mp4', 'sound.mp4', 'large.mp4'),
        *('one.avi', 'gone.mp4', 'whole.mp4'),
    ]
    path = write(tmp_path / 'list.json', [{'video': n, 'caption': f'the {n}'} for n in names])
    records = prepared(tmp_path / 'out', 'clips', path, max_pixels=200_000)
    assert list(by_key(records)) == ['turned.mp4', 'one.avi', 'whole.mp4']
    assert [record.size for record in records] == [(96, 64), (64, 96), (64, 96)]
    assert dropped(tmp_path / 'out') == [
        ('empty.mp4', 'empty'),
        ('page.mp4', 'corrupt video'),
        ('cut.mp4', 'corrupt video'),
        ('list.mp4', 'corrupt video'),
        ('sound.mp4', 'no frames'),
        ('large.mp4', 'too many pixels'),
        ('gone.mp4', 'missing video'),
    ]


def test_flags_of_videos_and_odd_pairs_are_refused(tmp_path):
    path = write(tmp_path / 'list.json', [{'video': 'a.mp4', 'caption': 'a'}])
    with pytest.raises(ValueError, match='--dedup=sha256: images are compared, no videos'):
        prepared(tmp_path / 'out', 'clips', path, dedup='sha256')
    with pytest.raises(ValueError, match='--list is of msrvtt'):
        prepared(tmp_path / 'out', 'clips', path, video_list=str(path))
    with pytest.raises(ValueError, match='--videos, --list and --fps are of msrvtt, lsmdc, clips'):
        prepared(tmp_path / 'out', 'folder', tmp_path, fps=1.0)
    with pytest.raises(ValueError, match='--videos=nowhere: no such folder'):
        prepared(tmp_path / 'out', 'msrvtt', write(tmp_path / 'm', {}), videos='nowhere')


def test_training_on_shards_of_emoji_videos_is_that_on_the_corpus(tmp_path):
    config = get_config('tiny').data
    config.update(train='emoji_videos:train', frames=3, workers=0)
    config.emoji_scenes.update(canvas=32, train_size=12, eval_size=12)
    out = tmp_path / 'out'
    options = dict(corpus=config.to_dict(), shard_records=5)
    prepared(out, 'emoji_videos', 'train', **options)
    with pytest.raises(ValueError, match='--limit=3: emoji_videos come in pairs'):
        prepared(tmp_path / 'odd', 'emoji_videos', 'train', limit=3, **options)
    assert Manifest.read(str(out)).kind == 'frames'
    assert list(verify(str(out), decode=None)) == []
    stored, made = (make_source(s, config) for s in (f'shards:{out}', config.train))
    assert stored.is_video and stored.twins
    tokenizer = make_tokenizer('', texts=made.vocabulary_texts(), size=320)
    make = CompletionExamples.of(tokenizer, config)
    batches = []
    for source in (stored, made):
        options = dict(batch_size=4, seed=0, start_step=2, process_index=0, process_count=1)
        with pipeline.train_batches(source, make, config, **options) as batch:
            batches.append(next(batch).arrays)
    for name in ('frames', 'ids'):
        np.testing.assert_array_equal(batches[0][name], batches[1][name])
