"""Shared set-up: absl flags for Grain, compiled programs kept between runs, the shrunk config."""

import importlib.util
import os
import pathlib

os.environ.setdefault(
    'JAX_COMPILATION_CACHE_DIR', str(pathlib.Path(__file__).parent.parent / '.cache' / 'jax')
)
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Programs of tests run a few times: compiling them is what takes long.
os.environ.setdefault(
    'XLA_FLAGS', '--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0'
)
os.environ.setdefault('HF_HUB_OFFLINE', '1')

import ml_collections
import numpy as np
import pytest
from absl import flags

from configs.pretrain import get_config
from semmim_jax.ops.special_tokens import SpecialTokens

flags.FLAGS.mark_as_parsed()
os.makedirs(os.environ['JAX_COMPILATION_CACHE_DIR'], exist_ok=True)  # the fuzzer sees who makes it


@pytest.fixture
def config() -> ml_collections.ConfigDict:
    """configs/pretrain.py:tiny; every part of the model at the least size."""
    return get_config('tiny')


@pytest.fixture(scope='session')
def special() -> SpecialTokens:
    """Special ids as in a vocabulary made from captions, for the tiny config."""
    vocab_size = get_config('tiny').model.text.vocab_size
    return SpecialTokens(pad=0, cls=2, sep=3, mask=4, vocab_size=vocab_size)


def make_batch(config, *, rows: int, seed: int = 0, labels: bool = False):
    """A random batch of the form that `data/pipeline.py` gives, captions of unequal length."""
    rng = np.random.default_rng(seed)
    size, tokens = config.data.image_size, config.data.max_tokens
    words = config.model.text.vocab_size
    ids = np.zeros((rows, tokens), np.int32)
    for row in ids:
        length = rng.integers(2, tokens - 1)
        row[0], row[1 : length + 1], row[length + 1] = 2, rng.integers(5, words, length), 3
    batch = {
        'image1': rng.integers(0, 256, (rows, size, size, 3), np.uint8),
        'image2': rng.integers(0, 256, (rows, size, size, 3), np.uint8),
        'ids': ids,
        'image_id': np.arange(rows, dtype=np.int32),
    }
    if labels:
        patches = (size // config.data.patch_size) ** 2
        batch['labels1'] = rng.integers(0, 3, (rows, patches), np.int32)
    return batch | make_words(config, ids, rng) | make_match(config, rows, rng)


def make_words(config, ids: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Words of random captions: every second one is a name of two tokens."""
    rows, places = len(ids), config.data.max_tokens - 2
    words = np.full((rows, places), -1, np.int32)
    tokens = np.full((rows, places, config.data.lexicon.max_tokens), -1, np.int32)
    for caption, entries, of_entry in zip(ids, words, tokens, strict=True):
        named = caption[caption > 4]
        for place, token in enumerate(named[: -(-len(named) // 2)]):
            entries[place] = of_entry[place, 0] = token
            if token % 2:
                of_entry[place, 1] = (token * 7) % 50 + 5  # the same for the same entry
    rarity = np.where(words >= 0, rng.gamma(2.0, size=1 + words.max())[words], 0)
    return {'words': words, 'word_tokens': tokens, 'rarity': rarity.astype(np.float32)}


def make_match(config, rows: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random matches of the views' patches, some with none."""
    patches = (config.data.image_size // config.data.patch_size) ** 2
    return {'match': rng.integers(-4, patches, (rows, patches), np.int32).clip(-1)}


@pytest.fixture(scope='session')
def cloud_storage():
    """A Cloud Storage server, which this process and those that it starts take for the true one."""
    from tests.cloud_storage import CloudStorage

    if importlib.util.find_spec('gcsfs') is None:  # importing it would come before its settings
        pytest.skip('needs gcsfs')

    with CloudStorage() as storage, pytest.MonkeyPatch.context() as patch:
        for name, value in storage.env.items():
            patch.setenv(name, value)
        yield storage
