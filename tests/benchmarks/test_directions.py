"""The experiment on directions: its clips and labels against the source, and that it runs."""

import numpy as np
import pytest

from benchmarks.directions import LABELS, clips, experiment, main
from semmim_jax.data.emoji.motion import TWINNED
from semmim_jax.data.readers.sources import make_source

PAIRS, PLACES = 120, np.array([0, 3, 9])  # of one pair of them the labels are the same
# Words of captions for the opposite direction and the direction 1, in the order of the labels.
WORDS = 'left right up down counterclockwise clockwise shrinks grows'.split()


@pytest.fixture(scope='module')
def records():
    """The first records of the source, clips and their twins in turns."""
    source = make_source('emoji_videos:val', experiment(stddev=0.8, frames=2).data)
    return [source[i] for i in range(2 * PAIRS)]


def words_told(record):
    """Which of WORDS a caption says; of a plural, too, which grow or shrink."""
    said = {w + 's' if w in ('grow', 'shrink') else w for w in record['captions'][0].split()}
    return [word in said for word in WORDS]


def test_clips_and_labels_are_those_of_the_records_and_their_twins(records):
    data = clips(experiment(stddev=0.8, frames=2), 'val', count=PAIRS, places=PLACES)
    told = np.array([words_told(record) for record in records])  # [2 pairs, LABELS]
    differs = (told[::2] != told[1::2]).any(axis=1)
    shown = np.stack([record['frames'][PLACES] for record in records])
    assert told.shape[1] == LABELS and differs.sum() == PAIRS - 1
    np.testing.assert_array_equal(data.frames[:, 0], shown[::2][differs])
    np.testing.assert_array_equal(data.frames[:, 1], shown[1::2][differs])
    np.testing.assert_array_equal(data.forth, told[::2][differs])
    np.testing.assert_array_equal(data.back, told[1::2][differs])
    pairs = data.forth.reshape(-1, len(TWINNED), 2).any(axis=-1)
    assert pairs[np.arange(len(data.kind)), data.kind].all() and set(data.objects) == {1, 2}


@pytest.mark.parametrize('flag', ['--frames=1', '--pairs=9', '--unseen=999', '--seeds=a'])
def test_an_impossible_number_is_refused_by_name(flag, capsys):
    with pytest.raises(SystemExit):
        main([flag])
    assert flag in capsys.readouterr().err


@pytest.mark.slow
def test_it_prints_a_line_for_clips_and_for_each_control(capsys):
    main(['--steps=10', '--seeds=3', '--pairs=64', '--unseen=20'])
    lines = capsys.readouterr().out.splitlines()
    shares = {line[6:30].strip(): [float(x) for x in line[30:].split()] for line in lines[1:]}
    assert list(shares) == ['frames in order', 'frames in a random order', 'one frame']
    assert all(0 <= x <= 1 or np.isnan(x) for values in shares.values() for x in values)
