"""Laws of emoji videos: twins are each other reversed, and no single frame tells which is which."""

import pickle

import numpy as np
import pytest

from configs.completion import get_config
from semmim_jax.data.emoji.motion import CIRCLE, FRAMES, TWINNED, Motion, draw_moving, turn_is_seen
from semmim_jax.data.emoji.scenes import SPLITS
from semmim_jax.data.emoji.videos import Video
from semmim_jax.data.readers.sources import make_source

OPPOSITE = {
    **{'right': 'left', 'left': 'right', 'up': 'down', 'down': 'up'},
    **{'clockwise': 'counterclockwise', 'counterclockwise': 'clockwise'},
    **{'grows': 'shrinks', 'shrinks': 'grows', 'grow': 'shrink', 'shrink': 'grow'},
    **{'growing': 'shrinking', 'shrinking': 'growing'},
}


def videos(split: str, **options):
    config = get_config('demo').data
    config.emoji_scenes.update(**options)
    return make_source(f'emoji_videos:{split}', config)


@pytest.fixture(scope='module')
def train():
    return videos('train')


@pytest.mark.parametrize('split', SPLITS)
def test_twins_are_each_other_reversed_bit_for_bit(split):
    source = videos(split, eval_size=24)
    for pair in range(12):
        forwards, backwards = source[2 * pair]['frames'], source[2 * pair + 1]['frames']
        assert forwards.shape == (16, 64, 64, 3) and forwards.dtype == np.uint8
        assert (backwards == forwards[::-1]).all()
        assert (backwards != forwards).any()


@pytest.mark.parametrize('kind', TWINNED)
def test_a_frame_is_as_likely_in_either_direction(train, kind):
    scene = next(
        video.scene
        for video in map(train.video, range(0, 200, 2))
        if len(video.motions) == 1
        and turn_is_seen(video.scene.objects[0].emoji, video.scene.objects[0].style)
    )

    def frames(direction):
        """uint8 [20, 16, pixels] of the clips over all starts."""
        starts = range(0, CIRCLE, 48)
        clips = [train.render(Video(scene, (Motion(kind, direction, s),))) for s in starts]
        return np.stack(clips).reshape(len(clips), FRAMES, -1)

    forth, back = frames(1), frames(-1)
    for number in range(FRAMES):
        multisets = [sorted(map(bytes, clips[:, number])) for clips in (forth, back)]
        assert multisets[0] == multisets[1]
    assert len(set(map(bytes, forth[0]))) > 12  # of 16; an object grows by whole pixels


def test_captions_of_twins_differ_in_direction_words_alone(train):
    for pair in range(200):
        one, other = train.captions(2 * pair), train.captions(2 * pair + 1)
        assert len(one) == 5
        for number, (mine, theirs) in enumerate(zip(one, other, strict=True)):
            mirrored = ' '.join(
                OPPOSITE.get(word.strip(','), word.strip(',')) + ',' * word.endswith(',')
                for word in mine.split()
            )
            assert mirrored == theirs
            assert (mine != theirs) == (number != 3)  # the fourth has names only


def test_a_caption_of_evaluation_is_full_and_the_only_one_of_its_kind():
    source = videos('val')
    texts = [source.captions(i) for i in range(len(source))]
    assert len(texts) == 500 and all(len(text) == 1 for text in texts)
    told = set()
    for i, (text,) in enumerate(texts):
        video = source.video(i)
        assert all(thing.name in text for thing in video.scene.objects)
        assert text.endswith(f' {video.scene.background} background')
        halves = text.partition(' on ')[0].split(' while ')
        told.add((frozenset(halves), video.scene.background))
    assert len(told) == 500


def test_held_out_splits_show_what_they_are_about():
    source = videos('held_out_concepts', eval_size=24)
    for i in range(24):
        concepts = [thing.concept for thing in source.video(i).scene.objects]
        assert sum(concept >= source.scenes.concepts for concept in concepts) == 1
    source = videos('held_out_combinations', eval_size=24)
    for i in range(24):
        pair = tuple(sorted(thing.concept for thing in source.video(i).scene.objects))
        assert pair in source.scenes.held_out_pair_list


def mark_at(kind: str, phase: int):
    """Where the centre of the red corner of a square is drawn, x and y, from its middle; its area.

    The square has 20 pixels and its corner, upper left, 8; its middle is the canvas's, 32."""
    art = np.zeros((20, 20, 4), np.uint8)
    art[..., 3] = 255
    art[:8, :8, 0] = 255
    image = np.full((64, 64, 3), 100, np.uint8)
    draw_moving(image, art, (22, 22, 42, 42), kind=kind, phase=phase)
    ys, xs = np.nonzero((image[..., 0] > 200) & (image[..., 1] < 50))
    centre = (xs.mean() + 0.5 - 32, ys.mean() + 0.5 - 32) if len(xs) else (0.0, 0.0)
    return *centre, int((image != 100).any(-1).sum())


def test_phases_move_turn_and_scale_as_their_names_say():
    assert mark_at('still', 500) == (-6, -6, 400)
    assert mark_at('across', 240) == (-6 + 16, -6, 400)  # a quarter of 64 pixels to the right
    assert mark_at('along', 240) == (-6, -6 + 16, 400)  # and down
    assert mark_at('across', 720) == (-6 - 16, -6, 400)  # round the torus
    np.testing.assert_allclose(mark_at('turn', 240)[:2], (6, -6), atol=1)  # clockwise: upper right
    np.testing.assert_allclose(mark_at('turn', 480)[:2], (6, 6), atol=1)
    assert mark_at('scale', 0)[2] == 100  # half the side
    areas = [mark_at('scale', phase)[2] for phase in range(0, 960, 160)]
    assert areas == sorted(areas) and areas[-1] > 250
    assert sum(mark_at('blink', phase)[2] > 0 for phase in range(0, 960, 48)) == 10


def test_a_source_can_be_copied_to_workers_and_knows_its_end(train):
    copy = pickle.loads(pickle.dumps(train))
    assert (copy[7]['frames'] == train[7]['frames']).all()
    assert copy.captions(7) == train.captions(7)
    with pytest.raises(IndexError):
        train[len(train)]
    assert len({train.image_id(i) for i in range(50)}) == 50


def test_the_vocabulary_has_every_word(train):
    words = {word for text in train.vocabulary_texts() for word in text.replace(',', '').split()}
    for i in range(5000, 5400):
        for text in train.captions(i):
            assert set(text.replace(',', '').split()) <= words


def test_an_odd_number_of_videos_is_refused():
    with pytest.raises(ValueError, match='emoji_scenes.eval_size=25: videos come in pairs'):
        videos('val', eval_size=25)
