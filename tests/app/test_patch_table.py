"""The patches of a folder: nearest ones, words, and the memory that they may take."""

import numpy as np
import PIL.Image
import pytest

from configs.pretrain import get_config
from semmim_jax.app.patch_table import PatchTable, read_patches, unit
from semmim_jax.data.tokenizer import make_tokenizer
from semmim_jax.inference.outputs import Patches

RNG = np.random.default_rng(0)


def table(images=70, n=4, d=8, codes=3, words=()):
    features = unit(RNG.normal(size=(images, n, d))).astype(np.float16)
    return PatchTable(
        paths=tuple(f'{i}.png' for i in range(images)),
        codes=RNG.integers(0, codes, (images, n)).astype(np.uint16),
        features=features,
        words=words,
        of=images,
    )


def test_neighbours_are_those_of_a_plain_search():
    t, query = table(), RNG.normal(size=8)
    cosines = t.features.astype(np.float64) @ (query / np.linalg.norm(query))  # [i, n]
    best = cosines.max(1)
    best[11] = -2
    order = np.argsort(-best)[:5]
    found = t.neighbours(query, count=5, besides='11.png')
    assert [p.image for p in found] == order.tolist()
    assert [p.patch for p in found] == cosines[order].argmax(1).tolist()
    assert [p.cosine for p in found] == pytest.approx(best[order], abs=1e-3)


def test_a_cluster_is_the_patches_of_a_code_by_their_mean_one_a_picture():
    t = table()
    members = t.features[t.codes == 1].astype(np.float64)
    centre = members.mean(0) / np.linalg.norm(members.mean(0))
    cosines = np.where(t.codes == 1, t.features.astype(np.float64) @ centre, -2).max(1)
    found = t.cluster(1, count=6)
    assert [p.image for p in found] == np.argsort(-cosines)[:6].tolist()
    assert all(t.codes[p.image, p.patch] == 1 for p in found)
    assert t.cluster(9, count=6) == []
    assert t.patches_of(1) == (len(members), int((t.codes == 1).any(1).sum()))
    assert len(t.cluster(1, count=1000)) == t.patches_of(1)[1]


def test_words_are_those_of_the_pictures_that_show_the_code():
    t = table(images=4)
    t.codes[:] = [[0, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    words = tuple(map(frozenset, ({'a', 'cat'}, {'a', 'dog'}, {'a', 'dog'}, {'a', 'cat'})))
    t = PatchTable(paths=t.paths, codes=t.codes, features=t.features, words=words, of=4)
    (dog,) = t.words_of(1, count=3)
    # By hand: a = 2, b = 0, c = 0, d = 2, half an image added to each.
    assert dog.word == 'dog' and dog.log_odds == pytest.approx(2 * np.log(5))


class Encoding:
    """A model whose patches are the means of the picture's cells; codes are their red level."""

    batch_size = 3
    lexicon = None

    def __init__(self):
        self.config = get_config('tiny')
        self.config.model.image.width = 3
        self.tokenizer = make_tokenizer('', texts=['a dog', 'a cat'], size=100)
        self.most, self.texts = 0, []

    def encode_patches(self, pixels, texts=None):
        n = (self.config.data.image_size // self.config.data.patch_size) ** 2
        self.most = max(self.most, len(pixels))
        means = np.stack([np.broadcast_to(x.mean((0, 1)), (n, 3)) for x in pixels])
        codes = means[..., 0].astype(np.int32)
        self.texts += texts or []
        features = means.astype(np.float32)
        return Patches(features, features, codes, None if texts is None else codes + 1)


@pytest.fixture
def folder(tmp_path):
    for i in range(8):
        PIL.Image.fromarray(np.full((5, 5, 3), [i, 1, 2], np.uint8)).save(tmp_path / f'{i}.png')
    (tmp_path / '2.png').write_bytes(b'no picture')
    return tmp_path


PATHS = [f'{i}.png' for i in range(8)]
BYTES = 16 * (2 * 3 + 2)  # of a picture: codes and features of 16 patches


def test_every_picture_is_read_once_and_what_cannot_be_read_is_named(folder, capsys):
    model = Encoding()
    t = read_patches(model, folder, PATHS, captions={}, max_bytes=2**20)
    assert t.paths == tuple(p for p in PATHS if p != '2.png') and t.of == 8
    assert t.codes[:, 0].tolist() == [0, 1, 3, 4, 5, 6, 7] and t.words == ()
    expected = np.array([7, 1, 2]) / np.sqrt(54)
    np.testing.assert_allclose(t.features[-1, 0], expected, atol=1e-3)
    assert model.most <= model.batch_size
    assert 'left out' in (said := capsys.readouterr().err) and '2.png' in said


def test_a_large_folder_is_sampled_evenly_within_the_memory(folder):
    t = read_patches(Encoding(), folder, PATHS, captions={}, max_bytes=3 * BYTES + 5)
    assert t.paths == ('0.png', '4.png', '7.png') and t.of == 8
    assert t.codes.nbytes + t.features.nbytes == 3 * BYTES
    with pytest.raises(ValueError, match='hold the patches of no picture'):
        read_patches(Encoding(), folder, PATHS, captions={}, max_bytes=BYTES - 1)


def test_with_captions_only_captioned_pictures_are_read_with_them(folder):
    model = Encoding()
    captions = {'1.png': 'a dog', '3.png': 'a cat'}
    t = read_patches(model, folder, PATHS, captions=captions, max_bytes=2**20)
    assert t.paths == ('1.png', '3.png') and model.texts == ['a dog', 'a cat']
    assert t.codes[:, 0].tolist() == [2, 4]  # with text
    assert t.words == (frozenset({'a', 'dog'}), frozenset({'a', 'cat'}))
    with pytest.raises(ValueError, match='names no picture'):
        read_patches(model, folder, PATHS, captions={'9.png': 'a'}, max_bytes=2**20)


def test_a_run_without_codes_is_refused(folder):
    model = Encoding()
    plain = lambda pixels, texts=None: Encoding.encode_patches(model, pixels)._replace(codes=None)
    model.encode_patches = plain
    with pytest.raises(ValueError, match='have no codes'):
        read_patches(model, folder, PATHS, captions={}, max_bytes=2**20)
