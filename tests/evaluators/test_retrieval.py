"""Retrieval on 2,000 captions of 400 images, against a scorer that sorts one query at a time."""

import types

import numpy as np
import pytest

from semmim_jax.evaluators import retrieval
from semmim_jax.evaluators.further_sets import EvalSet
from semmim_jax.training.config_rules import check_ranges

IMAGES, EACH, WIDTH = 400, 5, 16


class Gallery:
    """Stands for EvalData and the predict functions: features and ITM logits are given."""

    scores = True

    def __init__(self, k_test, rerank):
        rng = np.random.default_rng(0)
        concept = rng.normal(size=(IMAGES, WIDTH))
        unit = lambda x: (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
        self.images = unit(concept + 0.7 * rng.normal(size=concept.shape))
        # Captions of an image do not stand together.
        self.image_of_text = rng.permutation(np.repeat(np.arange(IMAGES), EACH)).astype(np.int32)
        own = concept[self.image_of_text]
        self.text = unit(own + 0.9 * rng.normal(size=own.shape))
        own = self.image_of_text[None] == np.arange(IMAGES)[:, None]
        no_match, match = rng.normal(size=(2, *own.shape)) + 1.2 * np.stack([~own, own])
        self.logits = np.stack([no_match, match], axis=-1).astype(np.float32)  # [i, t, 2]
        self.settings = types.SimpleNamespace(
            k_test=k_test, batch_size=64, rerank=rerank, retrieval_sets=()
        )

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
        context, images, tokens, _ = inputs
        return self.logits[context[images], tokens[:, 0, 0].astype(int)]


class Recorded(Gallery):
    """A `Gallery` that knows which functions were called, on inputs of which shapes."""

    def __init__(self, *settings):
        super().__init__(*settings)
        self.calls = []

    def __call__(self, name, *inputs):
        self.calls.append((name, [np.shape(x) for x in inputs]))
        return super().__call__(name, *inputs)


def brute_force(gallery):
    """Every figure by sorting, one query after the other."""
    similarity, k_test = gallery.images @ gallery.text.T, gallery.settings.k_test
    asked = {side: np.zeros(similarity.shape, bool) for side in ('tr', 'ir')}
    for i in range(IMAGES):
        asked['tr'][i, np.argsort(-similarity[i])[:k_test]] = True
    for t in range(len(gallery.text)):
        asked['ir'][np.argsort(-similarity[:, t])[:k_test], t] = True
    scores = gallery.logits[..., 1]
    if gallery.settings.rerank == 'log_odds':
        scores = scores - gallery.logits[..., 0]
        asked = dict.fromkeys(asked, asked['tr'] | asked['ir'])
    recalls = {}
    for suffix in ('itc', 'itm'):
        ranks = {'tr': [], 'ir': []}
        for side, own in (('tr', np.arange(IMAGES)), ('ir', gallery.image_of_text)):
            for query, right in enumerate(own):
                line = similarity[query] if side == 'tr' else similarity[:, query]
                order = np.argsort(-line)
                if suffix == 'itm':
                    chosen = asked[side][query] if side == 'tr' else asked[side][:, query]
                    score = scores[query] if side == 'tr' else scores[:, query]
                    first = [c for c in np.argsort(-score) if chosen[c]]
                    order = [*first, *(c for c in order if not chosen[c])]
                hits = [gallery.image_of_text[c] if side == 'tr' else c for c in order]
                ranks[side].append(hits.index(right))
        for side, ranks_of_side in ranks.items():
            for k in (1, 5, 10):
                recalls[f'{side}@{k}_{suffix}'] = float(np.mean(np.array(ranks_of_side) < k))
    return recalls


@pytest.mark.parametrize('rerank', ['log_odds', 'match_logit'])
@pytest.mark.parametrize('k_test', [3, 32])  # 3: below the re-ranked the order is that of ITC
def test_figures_equal_the_brute_force(k_test, rerank):
    gallery = Gallery(k_test, rerank)
    report = retrieval.evaluate(gallery, gallery)
    expected = brute_force(gallery)
    assert {name: report.figures[name] for name in expected} == pytest.approx(expected, abs=0)
    assert (report.figures['images'], report.figures['texts']) == (IMAGES, IMAGES * EACH)
    assert 0.2 < expected['ir@1_itc'] < expected['ir@10_itc'] < 1
    assert expected['tr@1_itm'] != expected['tr@1_itc']
    assert report.chance['tr@10_itm'] == pytest.approx(10 * 5 / 2000)
    assert report.chance['ir@5_itc'] == pytest.approx(5 / 400)


def test_further_sets_have_their_own_figures(monkeypatch):
    """Each has those that it has alone, with its name before theirs."""
    first, second = Gallery(3, 'log_odds'), Gallery(32, 'match_logit')
    sets = [EvalSet('held_out_style', second, None)]
    monkeypatch.setattr(retrieval, 'retrieval_sets', lambda data: sets if data is first else [])
    both = retrieval.evaluate(first, first)
    alone = retrieval.evaluate(second, second)
    for together, own in ((both.figures, alone.figures), (both.chance, alone.chance)):
        assert {f'held_out_style/{name}' for name in own} < set(together)
        assert {name: together[f'held_out_style/{name}'] for name in own} == own
    assert both.figures['ir@1_itm'] != both.figures['held_out_style/ir@1_itm']


def test_a_process_that_does_not_score_makes_the_same_calls_which_are_collective():
    called = {}
    for scores in True, False:
        gallery = Recorded(3, 'log_odds')
        gallery.scores, called[scores] = scores, gallery.calls
        assert bool(retrieval.evaluate(gallery, gallery).figures) == scores
    assert called[True] == called[False] and len(called[True]) > 10


def test_each_direction_asks_for_pairs_of_its_own():
    """The best text of each image, and the best image of each text."""
    similarity = np.array([[0.9, 0.8, 0.1], [0.2, 0.3, 0.7]], np.float32)
    texts, images = retrieval.candidates(similarity, 1)
    np.testing.assert_array_equal(texts, [[1, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(images, [[1, 1, 0], [0, 0, 1]])


def test_a_rule_that_does_not_exist_is_refused_at_the_start():
    for rerank in retrieval.RERANKS:
        check_ranges({'eval': {'rerank': rerank}})
    with pytest.raises(ValueError, match="^eval.rerank='logit': must be log_odds or match_logit$"):
        check_ranges({'eval': {'rerank': 'logit'}})
