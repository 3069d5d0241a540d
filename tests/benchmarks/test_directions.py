"""The experiment on directions: its labels, its control, and that it runs."""

import numpy as np
import pytest

from benchmarks.directions import LABELS, clips, experiment, main
from semmim_jax.data.frames import uniform_frames


@pytest.fixture(scope='module')
def data():
    """A few clips with all of their frames."""
    config = experiment(stddev=0.8, frames=2)
    return clips(config, 'val', count=30, places=uniform_frames(16, 16))


def test_a_reverse_has_the_frames_backwards_and_the_opposite_directions(data):
    np.testing.assert_array_equal(data.frames[:, 1], data.frames[:, 0, ::-1])
    pairs = data.forth.reshape(-1, LABELS // 2, 2), data.back.reshape(-1, LABELS // 2, 2)
    np.testing.assert_array_equal(pairs[0], pairs[1][..., ::-1])
    assert (data.forth != data.back).any(axis=1).all()
    assert set(data.objects) == {1, 2}


def test_the_kind_is_among_the_labels(data):
    moves = data.forth.reshape(len(data.kind), -1, 2).any(axis=-1)
    assert moves[np.arange(len(data.kind)), data.kind].all()


@pytest.mark.slow
def test_it_prints_a_line_for_clips_and_for_each_control(capsys):
    main(['--steps=10', '--seeds=3', '--pairs=40', '--unseen=20'])
    lines = capsys.readouterr().out.splitlines()
    shares = {line[6:30].strip(): [float(x) for x in line[30:].split()] for line in lines[1:]}
    assert list(shares) == ['frames in order', 'frames in a random order', 'one frame']
    assert all(0 <= x <= 1 or np.isnan(x) for values in shares.values() for x in values)
