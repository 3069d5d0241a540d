"""The direction figure and recall with twins, on models of which all is known by hand."""

import types

import numpy as np
import pytest

from semmim_jax.evaluators import direction, retrieval

PAIRS = 100
VIDEOS = 2 * PAIRS
# Frame j of video 2k is k everywhere but for one pixel, which is j; video 2k + 1 is its reverse.
FRAMES = np.zeros((VIDEOS, 4, 8, 8, 3), np.uint8)
FRAMES += (np.arange(VIDEOS) // 2).astype(np.uint8)[:, None, None, None, None]
FRAMES[:, :, 0, 0, 0] = np.arange(4)
FRAMES[1::2, :, 0, 0, 0] = np.arange(4)[::-1]


class Videos:
    """Stands for EvalData, and for a model whose features are the pair's number and a sign.

    `ordered`: the sign is whether the first frame comes before the last; else it is always 1, a
    model that is blind to order. Texts 2k and 2k + 1 have signs 1 and -1.
    """

    scores = True
    attribution = ''

    def __init__(self, *, ordered: bool):
        self.ordered = ordered
        self.settings = types.SimpleNamespace(
            k_test=VIDEOS, batch_size=64, rerank='log_odds', retrieval_sets=()
        )
        self.source = self
        self.twins = True
        self.positions = list(range(VIDEOS))

    def __getitem__(self, index):
        return {'frames': FRAMES[index]}

    def texts(self):
        return [f'text {t}' for t in range(VIDEOS)], np.arange(VIDEOS)

    def text_batches(self, texts):
        for start in range(0, len(texts), 64):
            ids = np.resize(np.arange(start, min(start + 64, VIDEOS)), 64)
            yield {'ids': ids, 'valid': np.arange(64) < VIDEOS - start}

    def image_batches(self):
        for start in range(0, VIDEOS, 64):
            chunk = FRAMES[start : start + 64]
            batch = np.zeros((64, *FRAMES.shape[1:]), np.uint8)
            batch[: len(chunk)] = chunk
            yield {'image': batch, 'valid': np.arange(64) < len(chunk)}

    def __contains__(self, name):
        return name != 'directions'

    def __call__(self, name, *inputs):
        if name == 'text':
            ids = inputs[0]
            feature = self.features(ids // 2, 1 - 2 * (ids % 2))
            return {'feature': feature, 'tokens': feature[:, None], 'mask': np.ones((64, 1), bool)}
        if name == 'match':
            context, rows, tokens, _ = inputs
            score = (context[rows] * tokens[:, 0]).sum(-1)
            return np.stack([np.zeros_like(score), score], axis=-1)
        clips = inputs[0].astype(int)
        sign = np.ones(len(clips), int)
        if self.ordered:
            sign = np.sign(clips[:, -1, 0, 0, 0] - clips[:, 0, 0, 0, 0])
        return self.features(clips[:, 0, -1, -1, 0], sign)

    def features(self, pair, sign):
        """[n, PAIRS + 1]."""
        return np.concatenate([2.0 * np.eye(PAIRS)[pair], sign[:, None]], axis=1)


class NamesDirections(Videos):
    """Names 'right' where the first frame comes before the last. Of every fourth pair both captions
    say up and down too, of the others nothing is said of them."""

    data = types.SimpleNamespace(opposites=(('right', 'left'), ('up', 'down')))

    def texts(self):
        more = ' up and down', '', '', ''
        texts = [f'it goes {("right", "left")[t % 2]}{more[t // 2 % 4]}' for t in range(VIDEOS)]
        return texts, np.arange(VIDEOS)

    def __contains__(self, name):
        return name == 'directions'

    def __call__(self, name, *inputs):
        assert name == 'directions', name
        clips = inputs[0].astype(int)
        sign = np.sign(clips[:, -1, 0, 0, 0] - clips[:, 0, 0, 0, 0])
        logits = np.full((len(clips), 2, 2), -7.0)  # of up and down the same for both captions
        logits[:, 0] = np.stack([sign, -sign], axis=-1)
        return logits


def test_a_model_that_names_directions_is_asked_for_words():
    videos = NamesDirections(ordered=True)
    figures = direction.evaluate(videos, videos).figures
    assert figures['direction_words'] == figures['direction_words_right'] == 1
    assert figures['direction_words_shuffled'] == pytest.approx(0.5, abs=0.107)
    assert not any('up' in name for name in figures)  # no clip of which one alone is said


def test_a_model_that_sees_order_tells_all_twins_and_none_of_shuffled_frames():
    report = direction.evaluate(*[Videos(ordered=True)] * 2)
    assert report.figures['direction_itc'] == report.figures['direction_itm'] == 1
    # Of shuffled frames the first comes before the last in half of the clips; 3 standard errors.
    assert report.figures['direction_itc_shuffled'] == pytest.approx(0.5, abs=0.107)
    assert report.figures['direction_itm_shuffled'] == report.figures['direction_itc_shuffled']
    assert report.figures['videos'] == VIDEOS
    assert set(report.chance.values()) == {0.5}


def test_a_model_that_is_blind_to_order_is_at_one_half_exactly():
    report = direction.evaluate(*[Videos(ordered=False)] * 2)
    assert all(report.figures[f'direction_{name}'] == 0.5 for name in ('itc', 'itm'))
    assert report.figures['direction_itc_shuffled'] == 0.5


@pytest.mark.parametrize(('ordered', 'recall', 'median'), [(True, 1.0, 1.0), (False, 0.5, 1.5)])
def test_recall_takes_twins_for_two_clips_and_for_one(ordered, recall, median):
    videos = Videos(ordered=ordered)
    figures = retrieval.evaluate(videos, videos).figures
    for suffix in ('itc', 'itm'):
        assert figures[f'tr@1_{suffix}'] == recall
        assert figures[f'tr@1_{suffix}_twin_blind'] == figures[f'ir@1_{suffix}_twin_blind'] == 1
        assert figures[f'tr_median_{suffix}'] == median
    # A text scores alike with both clips where the model is blind: a tie is the second place.
    assert figures['ir@1_itc'] == (1.0 if ordered else 0.0)
    assert figures['ir_median_itc'] == (1 if ordered else 2)


def test_recall_of_twins_has_twice_the_chance_and_clips_are_drawn():
    videos = Videos(ordered=True)
    report = retrieval.evaluate(videos, videos)
    assert report.chance['tr@5_itm'] == pytest.approx(5 / VIDEOS)
    assert report.chance['tr@5_itm_twin_blind'] == pytest.approx(10 / VIDEOS)
    picture = report.pictures['retrieved_clips']
    assert picture.dtype == np.uint8 and picture.ndim == 3
    green = (picture == (0x1A, 0x7A, 0x3C)).all(-1)
    assert green.any()  # a right clip is among the first


def test_a_source_without_twins_gives_no_figures():
    videos = Videos(ordered=True)
    videos.twins = False
    assert direction.evaluate(videos, videos).figures == {}
    assert not any('twin' in name for name in retrieval.evaluate(videos, videos).figures)
