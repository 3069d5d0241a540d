"""The shipped data config, at the size of the demo but with the full range of scenes."""

import ml_collections
import pytest

from configs.pretrain import get_config


def make_data_config() -> ml_collections.ConfigDict:
    data = get_config('base').data
    data.train, data.eval, data.vocab = 'emoji_scenes:train', 'emoji_scenes:val', ''
    data.image_size, data.patch_size, data.workers = 64, 8, 0
    data.augment.crop_scale = (0.5, 1.0)
    return data


@pytest.fixture
def data_config() -> ml_collections.ConfigDict:
    return make_data_config()
