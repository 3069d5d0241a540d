"""Search with a model whose features and matches are known: ITC, then ITM on the best."""

import pathlib

import numpy as np
import PIL.Image
import pytest

from configs.pretrain import get_config
from semmim_jax.inference.image_index import ImageIndex, IndexWriter
from semmim_jax.inference.search import Search, probe_of

COLOURS = {'red': (250, 0, 0), 'green': (0, 250, 0), 'yellow': (200, 200, 0), 'blue': (0, 0, 250)}


def unit(x):
    x = np.asarray(x, np.float32)
    return x / np.linalg.norm(x)


class Colours:
    """The feature of an image is its mean colour, that of a text the colours that it names."""

    config, batch_size, matches = get_config('tiny'), 2, True

    def encode_image(self, image):
        image = np.asarray(PIL.Image.open(image)) if isinstance(image, pathlib.Path) else image
        return unit(image.reshape(-1, 3).mean(axis=0) + 1)[None]

    def encode_text(self, text):
        return unit(sum(np.float32(COLOURS[word]) for word in text.split()))[None]

    def encoded_texts(self, text):
        return {'feature': self.encode_text(text)}

    def pair_log_odds(self, images, text, row, column):
        """ITM sees what ITC does not: blue is what fits best."""
        assert len(images) <= self.batch_size
        return np.float32([images[r][..., 2].mean() - 100 for r in row])


@pytest.fixture
def search(tmp_path):
    model, folder = Colours(), tmp_path / 'pictures'
    folder.mkdir()
    writer = IndexWriter(tmp_path / 'index', images=folder, probe=probe_of(model))
    for name, colour in COLOURS.items():
        PIL.Image.new('RGB', (8, 8), colour).save(folder / f'{name}.png')
        feature = model.encode_image(folder / f'{name}.png')
        writer.add([f'{name}.png'], [bytes(32)], feature)
    writer.close()
    return Search(model, ImageIndex(tmp_path / 'index'), faiss=False)


def names(hits):
    return [hit.path.removesuffix('.png') for hit in hits]


def test_by_text_by_image_and_by_both(search, tmp_path):
    hits, _ = search(text='red', count=2, rerank=0)
    assert names(hits) == ['red', 'yellow'] and hits[0].match is None
    assert hits[0].similarity == pytest.approx(1, abs=1e-3)
    assert hits[1].similarity == pytest.approx(2**-0.5, abs=0.01)
    assert names(search(image=tmp_path / 'pictures' / 'blue.png', count=1, rerank=9)[0]) == ['blue']
    both = search(text='red', image=tmp_path / 'pictures' / 'green.png', count=3, rerank=0)[0]
    assert names(both) == ['yellow', 'red', 'green'] or names(both) == ['yellow', 'green', 'red']
    with pytest.raises(ValueError, match='needs a text, an image or both'):
        search(count=1, rerank=0)


def test_itm_sorts_the_best_and_names_what_it_cannot_read(search, tmp_path):
    hits, missing = search(text='red', count=4, rerank=4)
    assert names(hits)[0] == 'blue' and not missing
    assert hits[0].match == pytest.approx(1 / (1 + np.exp(-150)))
    assert hits[1].match == pytest.approx(1 / (1 + np.exp(100)))
    few, _ = search(text='red', count=4, rerank=2)
    assert names(few)[:2] == ['red', 'yellow'] and few[2].match is None
    (tmp_path / 'pictures' / 'yellow.png').unlink()
    hits, missing = search(text='red', count=4, rerank=4)
    assert names(hits)[-1] == 'yellow' and len(hits) == 4
    assert len(missing) == 1 and 'yellow.png' in missing[0]


def test_an_index_of_other_weights_is_refused(search, tmp_path):
    class Other(Colours):
        def encode_image(self, image):
            return unit(super().encode_image(image)[0] + [0.1, 0, 0])[None]

    with pytest.raises(ValueError, match='made by another model'):
        Search(Other(), ImageIndex(tmp_path / 'index'))
