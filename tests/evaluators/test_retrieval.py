"""Retrieval on 2,000 captions of 400 images, against a scorer that sorts one query at a time."""

import types

import numpy as np
import pytest

from semmim_jax.evaluators import retrieval

IMAGES, EACH, WIDTH = 400, 5, 16


class Gallery:
    """Stands for EvalData and the predict functions: features and match scores are given."""

    def __init__(self, k_test):
        rng = np.random.default_rng(0)
        concept = rng.normal(size=(IMAGES, WIDTH))
        unit = lambda x: (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
        self.images = unit(concept + 0.7 * rng.normal(size=concept.shape))
        # Captions of an image do not stand together.
        self.image_of_text = rng.permutation(np.repeat(np.arange(IMAGES), EACH)).astype(np.int32)
        own = concept[self.image_of_text]
        self.text = unit(own + 0.9 * rng.normal(size=own.shape))
        own = self.image_of_text[None] == np.arange(IMAGES)[:, None]
        self.odds = (rng.normal(size=own.shape) + 2.5 * own).astype(np.float32)  # [i, t]
        self.settings = types.SimpleNamespace(k_test=k_test, batch_size=64)

    def texts(self):
        return [str(i) for i in range(len(self.text))], self.image_of_text

    def text_batches(self, texts):
        for ids in self._batches(np.arange(len(texts))):
            yield {'ids': ids[0], 'valid': ids[1]}

    def image_batches(self):
        for ids in self._batches(np.arange(IMAGES)):
            yield {'image': ids[0], 'valid': ids[1]}

    def _batches(self, ids):
        for first in range(0, len(ids), 64):
            chunk = ids[first : first + 64]
            yield np.resize(chunk, 64), np.arange(64) < len(chunk)

    def __contains__(self, name):
        return name in ('image', 'text', 'context', 'match')

    def __call__(self, name, *inputs):
        if name == 'text':
            (ids,) = inputs
            tokens = ids[:, None, None].astype(np.float32)
            return {'feature': self.text[ids], 'tokens': tokens, 'mask': ids[:, None] >= 0}
        if name == 'image':
            return self.images[inputs[0]]
        if name == 'context':
            return inputs[0]
        context, rows, tokens, _ = inputs
        return self.odds[context[rows], tokens[:, 0, 0].astype(int)]


def brute_force(gallery):
    """Every figure by sorting, one query after the other."""
    similarity, k_test = gallery.images @ gallery.text.T, gallery.settings.k_test
    asked = np.zeros(similarity.shape, bool)
    for i in range(IMAGES):
        asked[i, np.argsort(-similarity[i])[:k_test]] = True
    for t in range(len(gallery.text)):
        asked[np.argsort(-similarity[:, t])[:k_test], t] = True
    found = {}
    for suffix in ('itc', 'itm'):
        ranks = {'tr': [], 'ir': []}
        for side, own in (('tr', np.arange(IMAGES)), ('ir', gallery.image_of_text)):
            for query, right in enumerate(own):
                line = similarity[query] if side == 'tr' else similarity[:, query]
                order = np.argsort(-line)
                if suffix == 'itm':
                    told = asked[query] if side == 'tr' else asked[:, query]
                    odds = gallery.odds[query] if side == 'tr' else gallery.odds[:, query]
                    first = [c for c in np.argsort(-odds) if told[c]]
                    order = [*first, *(c for c in order if not told[c])]
                hits = [gallery.image_of_text[c] if side == 'tr' else c for c in order]
                ranks[side].append(hits.index(right))
        for side, each in ranks.items():
            for k in (1, 5, 10):
                found[f'{side}@{k}_{suffix}'] = float(np.mean(np.array(each) < k))
    return found


@pytest.mark.parametrize('k_test', [3, 32])  # 3: below the re-ranked the order is that of ITC
def test_figures_equal_the_brute_force(k_test):
    gallery = Gallery(k_test)
    report = retrieval.evaluate(gallery, gallery)
    expected = brute_force(gallery)
    assert {name: report.figures[name] for name in expected} == pytest.approx(expected, abs=0)
    assert (report.figures['images'], report.figures['texts']) == (IMAGES, IMAGES * EACH)
    assert 0.2 < expected['ir@1_itc'] < expected['ir@10_itc'] < 1
    assert expected['tr@1_itm'] != expected['tr@1_itc']
    assert report.chance['tr@10_itm'] == pytest.approx(10 * 5 / 2000)
    assert report.chance['ir@5_itc'] == pytest.approx(5 / 400)
