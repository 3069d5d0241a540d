"""Whether word maps point at what a word names, on images with patch labels, beside chance.

    python -m benchmarks.word_maps --workdir=runs/demo --images=200

For each object that its image's first caption names: whether the patch where the map of the name is
greatest lies on the object. By chance that is the object's share of the patches. Means over
objects; errors are standard errors of what is above chance, over images drawn with replacement.
"""

import logging
import os

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

import numpy as np
import tqdm
from absl import app, flags

import semmim_jax
from semmim_jax.data.readers.sources import make_source
from semmim_jax.data.text import clean_caption
from semmim_jax.data.transforms import eval_view, patch_labels

_WORKDIR = flags.DEFINE_string('workdir', None, 'of pre-training or retrieval')
_SOURCE = flags.DEFINE_string('source', 'emoji_scenes:val', 'images with patch labels')
_IMAGES = flags.DEFINE_integer('images', 200, 'the first so many', lower_bound=2)
_LAYER = flags.DEFINE_integer('layer', None, 'of the fusion encoder', lower_bound=0)
KINDS = 'attention', 'gradcam'
DRAWS = 1000


def main(argv: list[str]) -> None:
    """Prints a line a kind of map."""
    del argv
    logging.getLogger().setLevel(logging.WARNING)
    model = semmim_jax.load(_WORKDIR.value, batch_size=25)
    source = make_source(_SOURCE.value, model.config.data)
    rows = pointings(model, source, min(_IMAGES.value, len(source)), layer=_LAYER.value)
    chance = rows[:, -1].mean()
    print(f'{len(rows)} named objects; share of the patches, which is chance: {chance:.3f}')
    for column, kind in enumerate(KINDS, start=1):
        above = rows[:, column] - rows[:, -1]
        error = bootstrap_error(above, rows[:, 0].astype(int))
        print(f'{kind:>10}: {rows[:, column].mean():.3f}, above chance {above.mean():.3f}', end='')
        print(f' +- {error:.3f}')


def pointings(model, source, images: int, *, layer: int | None) -> np.ndarray:
    """A row a named object: image, whether each of `KINDS` points at it, share of the patches."""
    data, rows = model.config.data, []
    for start in tqdm.trange(0, images, model.batch_size, disable=None):
        numbers = range(start, min(start + model.batch_size, images))
        records = [source[number] for number in numbers]
        captions = [record['captions'][0] for record in records]
        pixels = [record['image'] for record in records]
        explanations = model.explain(pixels, captions, layer=layer)
        for number, record, explanation in zip(numbers, records, explanations, strict=True):
            _, labels = eval_view(record['image'], record['labels'], size=data.image_size)
            covered = patch_labels(labels, data.patch_size).ravel()  # [n]
            for label in set(covered.tolist()) - {0}:
                name = clean_caption(source.patch_label_names[label - 1], max_words=None).split()
                words = places(explanation.words, name)
                if words:
                    maps = (getattr(explanation, kind)[words].mean(axis=0) for kind in KINDS)
                    found = [covered[x.argmax()] == label for x in maps]
                    rows.append([number, *found, (covered == label).mean()])
    return np.array(rows, np.float64).reshape(-1, 2 + len(KINDS))


def places(words: tuple[str, ...], name: list[str]) -> list[int]:
    """Positions of a name among the words, where it first stands as a whole; [] if nowhere."""
    starts = (i for i in range(len(words)) if list(words[i : i + len(name)]) == name)
    start = next(starts, None)
    return [] if start is None else list(range(start, start + len(name)))


def bootstrap_error(values: np.ndarray, images: np.ndarray) -> float:
    """Standard error of the mean of values, over images drawn with replacement."""
    rng = np.random.default_rng(0)
    _, image = np.unique(images, return_inverse=True)
    sums, counts = np.bincount(image, values), np.bincount(image)
    drawn = rng.integers(len(sums), size=(DRAWS, len(sums)))
    return float((sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)).std(ddof=1))


if __name__ == '__main__':
    flags.mark_flag_as_required('workdir')
    app.run(main)
