"""Whether a caption is told from one of the same words in another order, or with one word changed.

A test has an image, its caption and wrong ones: it is passed where the caption has the highest
score (ARO, SugarCrepe). Or it has two images and two captions, caption i of image i, of the same
words (Winoground): the text score counts tests where each image prefers its caption, the image
score those where each caption prefers its image, the group score those with both. Ties count
against the model. Scores of pairs are those of ITC and, where the task matches, of ITM.
docs/method.md section 8.

Shapes: b images of a chunk, p pairs.
"""

import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from semmim_jax.data.readers import sources
from semmim_jax.data.text import clean_caption
from semmim_jax.data.transforms import eval_view
from semmim_jax.evaluators.report import EvalData, Report
from semmim_jax.evaluators.retrieval import RERANKS, fixed_parts
from semmim_jax.inference.predictor import to_host

MAX_KINDS = 12  # of a set with more (ARO has hundreds of pairs of attributes) only 'all' is given
PAIR_CHANCE = {'text': 1 / 4, 'image': 1 / 4, 'group': 1 / 6}


class _Test(NamedTuple):
    images: list[np.ndarray]  # uint8 [s, s, 3], one or two
    texts: list[str]  # the right one or two first
    kind: str


def evaluate(predict: Any, data: EvalData) -> Report:
    """Share of tests that are passed, of each set in `eval.compositions` and of each of its kinds.

    Figures of a set NAME with single images: `NAME/all_itc`, `NAME/KIND_itc` and the same with
    `_itm`; with pairs of images `NAME/text_itc`, `NAME/image_itc` and `NAME/group_itc`; and
    `NAME/tests`.

    Args:
      predict: 'image', 'text', 'context' and 'match', see `tasks.pretrain.predict.retrieval_fns`.
      data: for its settings and tokeniser; its records are not read.
    """
    figures, chance = {}, {}
    for name, spec in _named(data.settings.compositions):
        source = sources.make_source(spec, data.data)
        scores: dict[str, list[np.ndarray]] = {'itc': [], 'itm': []}
        kinds: list[str] = []
        for tests in _chunks(source, data):
            kinds += [test.kind for test in tests]
            for which, of_tests in _scored(predict, data, tests).items():
                scores[which] += of_tests
        figures[f'{name}/tests'] = len(kinds)
        for which, of_tests in scores.items():
            if of_tests:
                values, guess = summary(of_tests, kinds)
                figures |= {f'{name}/{key}_{which}': value for key, value in values.items()}
                chance |= {f'{name}/{key}_{which}': value for key, value in guess.items()}
    return Report(figures, chance=chance) if data.scores else Report({})


def check(config: Any) -> None:
    """Raises ValueError for a set that cannot be opened or has no tests, or the name of another."""
    for _, spec in _named(config.eval.compositions):
        try:
            source = sources.make_source(spec, config.data)
        except ValueError as error:
            raise ValueError(f'eval.compositions: {error}') from error
        if not len(source) or 'wrong' not in source.entry(0) and not _is_pair(source.entry(0)):
            raise ValueError(
                f'eval.compositions: {spec!r} has no captions that are wrong, and no two images '
                'with a caption each'
            )
        missing = source.missing_files()[0] if hasattr(source, 'missing_files') else ()
        if missing:
            raise ValueError(f'eval.compositions: no file {missing[0]}')


def summary(
    scores: Sequence[np.ndarray], kinds: Sequence[str]
) -> tuple[dict[str, float], dict[str, float]]:
    """Shares of tests passed, and what a guess would reach; see docs/method.md section 8.6.

    Args:
      scores: of each test float [images, texts], 1 or 2 images, the right texts first.
      kinds: of the tests.
    """
    if len(scores[0]) == 2:
        passed = {name: np.array([_pair(each)[name] for each in scores]) for name in PAIR_CHANCE}
        return {name: float(each.mean()) for name, each in passed.items()}, dict(PAIR_CHANCE)
    passed_ = np.array([each[0, 0] > each[0, 1:].max() for each in scores])
    guess = np.array([1 / each.shape[1] for each in scores])
    groups = {'all': np.ones(len(scores), bool)}
    names = np.array(kinds)
    if len(set(kinds)) <= MAX_KINDS:
        groups |= {kind: names == kind for kind in sorted(set(kinds)) if kind}
    return (
        {name: float(passed_[chosen].mean()) for name, chosen in groups.items()},
        {name: float(guess[chosen].mean()) for name, chosen in groups.items()},
    )


def _pair(scores: np.ndarray) -> dict[str, bool]:
    """Whether each score of two images and two texts, [2, 2], is won."""
    right = np.diag(scores)
    text = bool((right > scores[[0, 1], [1, 0]]).all())
    image = bool((right > scores[[1, 0], [0, 1]]).all())
    return {'text': text, 'image': image, 'group': text and image}


def _chunks(source: Any, data: EvalData) -> Iterator[list[_Test]]:
    """The tests of a source, as many at a time as have no more images than a batch."""
    per_chunk, config = data.settings.batch_size, data.data
    tests: list[_Test] = []
    for record in map(source.__getitem__, range(len(source))):
        pixels = record.get('images') or [record['image']]
        images = [eval_view(each, None, size=config.image_size)[0] for each in pixels]
        texts = [*record['captions'], *record.get('wrong', ())]
        if config.clean_text:
            texts = [clean_caption(text, max_words=config.max_words) for text in texts]
        if sum(len(test.images) for test in tests) + len(images) > per_chunk:
            yield tests
            tests = []
        tests.append(_Test(images, texts, record.get('question_type', '')))
    if tests:
        yield tests


def _scored(predict: Any, data: EvalData, tests: list[_Test]) -> dict[str, list[np.ndarray]]:
    """'itc', and 'itm' where the task matches -> of each test float [images, texts]."""
    size = data.settings.batch_size
    images = np.stack([image for test in tests for image in test.images])
    images = np.concatenate([images, np.repeat(images[-1:], size - len(images), axis=0)])
    texts = [text for test in tests for text in test.texts]
    encoded = [(to_host(predict('text', b['ids'])), b['valid']) for b in data.text_batches(texts)]
    text = {name: np.concatenate([t[name][ok] for t, ok in encoded]) for name in encoded[0][0]}
    rows, columns, image, column = [], [], 0, 0
    for test in tests:
        pairs = itertools.product(range(len(test.images)), range(len(test.texts)))
        for i, t in pairs:
            rows.append(image + i)
            columns.append(column + t)
        image, column = image + len(test.images), column + len(test.texts)
    row, col = np.array(rows), np.array(columns)
    features = to_host(predict('image', images))
    flat = {'itc': (features[row] * text['feature'][col]).sum(-1)}  # [p]
    if 'match' in predict:
        context = predict('context', images)
        logits = [
            to_host(
                predict('match', context, row[at], text['tokens'][col[at]], text['mask'][col[at]])
            )
            for at in fixed_parts(len(row), size)
        ]
        flat['itm'] = RERANKS['log_odds'](np.concatenate(logits)[: len(row)])
    sizes = [(len(test.images), len(test.texts)) for test in tests]
    ends = np.cumsum([i * t for i, t in sizes])[:-1]
    return {
        name: [part.reshape(shape) for part, shape in zip(np.split(each, ends), sizes, strict=True)]
        for name, each in flat.items()
    }


def _is_pair(entry: Any) -> bool:
    return len(entry.get('captions', ())) == 2


def _named(specs: tuple[str, ...]) -> list[tuple[str, str]]:
    """Name of each set: its source, or of a file the part of its name before the dot."""
    for spec in specs:
        if not isinstance(spec, str):  # --config.eval.compositions=0 is parsed as one of numbers
            raise ValueError(f'eval.compositions={tuple(specs)!r}: {spec!r} is no source')
    names = [
        pathlib.PurePath(spec.partition(':')[2]).stem if '.' in spec else spec.partition(':')[0]
        for spec in specs
    ]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f'eval.compositions={tuple(specs)!r}: two of them are named {name!r}')
    return list(zip(names, specs, strict=True))
