"""The corruption drill on a state of three arrays; the command runs it on the tiny model's."""

from drills.corruption import corrupt
from drills.small_state import one_device


def test_no_flipped_bit_and_no_cut_end_is_restored(tmp_path):
    # 17 files: each is hit by several flips and by one cut.
    outcome = corrupt(one_device(1), one_device(2), tmp_path, flips=120, truncations=20)
    assert outcome.missed == []
    assert outcome.detected >= 130  # a bit of white space in digests.json is harmless
    assert outcome.detected + outcome.harmless == 140
