"""Frames of a clip: which are shown, and that one draw of augmentation holds for all of them."""

import numpy as np
import pytest

from configs import pretrain
from configs.completion import get_config
from semmim_jax.data import pipeline, transforms
from semmim_jax.data.completion_examples import CompletionExamples
from semmim_jax.data.frames import segment_frames, uniform_frames
from semmim_jax.data.readers.sources import make_source
from semmim_jax.data.tokenizer import make_tokenizer
from semmim_jax.data.transforms import Augment
from semmim_jax.run.data_checks import check_training_files

WORDS = make_tokenizer('', texts=['a cat moves right'], size=120)


def video_config():
    """`tiny` on pairs of emoji videos, as large as they are drawn."""
    config = get_config('tiny')
    config.data.update(train='emoji_videos:train', eval='emoji_videos:val', frames=3)
    config.data.emoji_scenes.update(canvas=32, train_size=12, eval_size=12)
    return config


def test_uniform_frames_go_from_the_first_to_the_last():
    assert uniform_frames(16, 4).tolist() == [0, 5, 10, 15]
    assert uniform_frames(3, 4).tolist() == [0, 1, 1, 2]
    assert uniform_frames(1, 4).tolist() == [0, 0, 0, 0]
    assert uniform_frames(16, 1).tolist() == [0]


def test_every_frame_of_a_segment_is_drawn_and_no_other():
    rng = np.random.default_rng(0)
    drawn = np.stack([segment_frames(50, 4, rng) for _ in range(600)])
    ends = [0, 12, 25, 37, 50]  # 50 i / 4, rounded down
    for segment in range(4):
        assert set(drawn[:, segment]) == set(range(ends[segment], ends[segment + 1]))
    assert segment_frames(1, 4, rng).tolist() == [0, 0, 0, 0]
    assert segment_frames(3, 4, rng).tolist() == [0, 0, 1, 2]


def test_all_frames_of_a_clip_are_augmented_by_the_same_draws():
    augment = Augment(crop_scale=(0.3, 1.0), flip=True, ops=2, level=7, prob=0.9, fill=128)
    clip = np.random.default_rng(1).integers(0, 256, (4, 40, 50, 3), np.uint8)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        views = transforms.augmented_clip(clip, rng, size=32, may_flip=True, augment=augment)
        for frame, view in zip(clip, views, strict=True):
            alone = np.random.default_rng(seed)
            image = transforms.augmented_view(
                frame, None, alone, size=32, may_flip=True, augment=augment
            ).image
            assert (view == image).all()
        assert rng.random() == alone.random()  # a clip draws as much as an image


def test_an_example_shows_one_frame_of_each_segment_in_order():
    config = video_config().data
    config.augment.update(crop_scale=(1.0, 1.0), flip=False, ops=0)
    source = make_source(config.train, config)
    make = CompletionExamples.of(WORDS, config)
    record = source[0]
    places = set()
    for seed in range(40):
        frames = make(record, np.random.default_rng(seed))['frames']
        assert frames.shape == (3, 32, 32, 3)
        same = (frames[:, None] == record['frames'][None]).all((2, 3, 4))  # [3, 16]
        assert same.any(axis=1).all()
        places.add(tuple(same.argmax(axis=1)))
    assert len(places) > 20
    assert all(a < 5 <= b < 10 <= c for a, b, c in places)  # segments of 5, 5 and 6 frames


def test_evaluation_shows_frames_from_the_first_to_the_last():
    config = video_config().data
    source = make_source(config.eval, config)
    batches = list(pipeline.eval_image_batches(source, config, batch_size=8))
    assert [batch['image'].shape for batch in batches] == [(8, 3, 32, 32, 3)] * 2
    expected = source[9]['frames'][[0, 8, 15]]  # 7.5 is rounded to the even 8
    assert (batches[1]['image'][1] == expected).all()
    assert batches[1]['valid'].tolist() == [True] * 4 + [False] * 4


def test_a_wrong_way_of_sampling_is_named():
    config = video_config().data
    config.frame_sampling = 'random'
    with pytest.raises(ValueError, match="data.frame_sampling='random': must be one of segments"):
        CompletionExamples.of(WORDS, config)


def test_a_task_of_images_refuses_videos():
    config = pretrain.get_config('tiny')
    config.data.train = 'emoji_videos:train'
    source = make_source(config.data.train, config.data)
    with pytest.raises(ValueError, match="data.train='emoji_videos:train' has videos, and the tas"):
        check_training_files(config, source)


def test_images_and_videos_are_not_joined():
    config = video_config().data
    config.emoji_scenes.train_size = 12
    with pytest.raises(ValueError, match='images and videos do not fit one batch'):
        make_source('emoji_videos:train + emoji_scenes:train', config)
    joined = make_source('emoji_videos:train + emoji_videos:val', config)
    assert joined.is_video and joined.twins
    assert (joined[13]['frames'] == joined[12]['frames'][::-1]).all()
