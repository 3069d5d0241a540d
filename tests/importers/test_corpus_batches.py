"""The demo from shards is the demo from its scenes: the same vocabulary, lexicon and batches."""

import hashlib
import itertools
import json

import numpy as np
import pytest

from configs.pretrain import get_config
from semmim_jax.data import pipeline
from semmim_jax.data.examples import PretrainExamples
from semmim_jax.data.lexicon import make_lexicon
from semmim_jax.data.readers.sources import make_source
from semmim_jax.data.shard_format import MANIFEST, VOCABULARY, Manifest
from semmim_jax.data.tokenizer import train_tokenizer
from semmim_jax.importers.verify import verify
from tests.data.batches import assert_equal, first_batches
from tests.importers.sets import prepared

SCENES = 30


@pytest.fixture(scope='module')
def data():
    """The tiny demo's own options of data, with fewer scenes."""
    data = get_config('tiny').data
    data.workers = 0
    data.emoji_scenes.update(train_size=SCENES, eval_size=10)
    return data


@pytest.fixture(scope='module')
def folder(data, tmp_path_factory):
    """Shards of both splits. Not to be changed."""
    folder = tmp_path_factory.mktemp('shards')
    for split in ('train', 'val'):
        options = dict(corpus=data.to_dict(), shard_records=12)
        prepared(folder / split, 'emoji', split, **options)
    return folder


def made(source, data):
    """Vocabulary, lexicon and the maker of examples, as a run makes them."""
    tokenizer = train_tokenizer(
        source.vocabulary_texts(),
        kind=data.vocab_kind,
        size=512,
        min_count=data.vocab_min_count,
        strip_accents=data.strip_accents,
        fill=True,
        end_token=data.end_token,
    )
    lexicon = make_lexicon(source, tokenizer, data_config=data)
    return tokenizer, lexicon, PretrainExamples.of(tokenizer, data, lexicon=lexicon)


def test_training_is_the_same_bit_for_bit(data, folder):
    scenes, shards = (
        make_source(spec, data) for spec in ('emoji_scenes:train', f'shards:{folder}/train')
    )
    (words, lexicon, make), (stored_words, stored_lexicon, make_stored) = (
        made(source, data) for source in (scenes, shards)
    )
    assert stored_words.tokens() == words.tokens()
    assert stored_lexicon == lexicon
    batches = first_batches(scenes, make, data, count=8)  # two epochs and more
    assert {'image1', 'image2', 'ids', 'labels1', 'image_id'} <= batches[0].keys()
    assert_equal(batches, first_batches(shards, make_stored, data, count=8))


def test_evaluation_is_the_same_bit_for_bit(data, folder):
    scenes, shards = (
        make_source(spec, data) for spec in ('emoji_scenes:val', f'shards:{folder}/val')
    )
    texts, image_of_text = pipeline.eval_texts(scenes, data)
    stored_texts, stored_image_of_text = pipeline.eval_texts(shards, data)
    assert stored_texts == texts
    np.testing.assert_array_equal(stored_image_of_text, image_of_text)
    pairs = itertools.zip_longest(
        pipeline.eval_image_batches(scenes, data, batch_size=4),
        pipeline.eval_image_batches(shards, data, batch_size=4),
    )
    for batch, stored in pairs:
        first = batch.pop('image_id')[0] - stored.pop('image_id')[0]
        assert first >= 0  # a scene's number is one of all splits, a record's one of its set
        assert_equal([batch], [stored])


def test_a_vocabulary_that_was_changed_is_refused(data, folder, tmp_path):
    for name in (MANIFEST, VOCABULARY):
        (tmp_path / name).write_bytes((folder / 'train' / name).read_bytes())
    source = make_source(f'shards:{tmp_path}', data)
    path = tmp_path / VOCABULARY
    assert (
        hashlib.sha256(path.read_bytes()).hexdigest()
        == (Manifest.read(str(tmp_path)).source['vocabulary'])
    )
    path.write_text(json.dumps(['other']))
    with pytest.raises(ValueError, match=f'{path}: another SHA-256'):
        source.vocabulary_texts()
    assert any(line.startswith(f'{path}: another') for line in verify(str(tmp_path), decode=0))
    path.unlink()
    with pytest.raises(ValueError, match=f'{path}: No such file'):
        source.vocabulary_texts()
    assert f'{path}: is missing' in list(verify(str(tmp_path), decode=0))
    assert not [line for line in verify(str(folder / 'train'), decode=None)]
