"""Shared set-up: absl flags for Grain, and a data config with every key."""

import ml_collections
import pytest
from absl import flags

flags.FLAGS.mark_as_parsed()


def make_data_config() -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict(
        dict(
            train='emoji_scenes:train',
            eval='emoji_scenes:val',
            image_size=64,
            patch_size=8,
            max_tokens=25,
            max_words=30,
            vocab='',
            decoder='opencv',
            max_pixels=50_000_000,
            max_replaced=0.01,
            workers=0,
            prefetch=2,
            emoji_scenes=dict(
                concepts=150,
                held_out_concepts=15,
                held_out_pairs=0.05,
                min_objects=2,
                max_objects=4,
                styles='openmoji',
                canvas=64,
                small=(0.32, 0.4),
                medium=(0.46, 0.54),
                large=(0.6, 0.76),
                max_overlap=0.3,
                min_cover=0.85,
                train_size=100_000,
                eval_size=500,
                seed=0,
            ),
            captions=dict(image_root=''),
            augment=dict(crop_scale=(0.5, 1.0), flip=True, ops=2, level=7, prob=0.5, fill=128),
        )
    )


@pytest.fixture
def data_config() -> ml_collections.ConfigDict:
    return make_data_config()
