"""Patterns of a whole corpus, image by image, and the pictures of what they are.

`stream_patterns` reads every image once and holds counts (`pattern_tally`); the codes themselves
go to a file. `draw_patterns` reads again the few images that a picture shows. docs/method.md
section 8.

Shapes: i images, n patches, k codes.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
import tqdm

from semmim_jax.evaluators.pattern_report import collect
from semmim_jax.evaluators.pattern_tally import PatternTally
from semmim_jax.evaluators.pattern_words import WordOdds, caption_reader, pattern_words
from semmim_jax.evaluators.report import EvalData, spread
from semmim_jax.inference.explanation import word_maps
from semmim_jax.inference.predictor import to_host
from semmim_jax.models.grounding import WORD_FIELDS, Words
from semmim_jax.ops import masking
from semmim_jax.viz import clusters, masks, panels, patches, patterns, usage
from semmim_jax.viz.explanations import draw_explanation

READINGS = {'with_text': 'with text', 'without_text': 'without text'}
SHOWN = 8  # images in a picture of many images
EXPLAINED = 3  # images with word maps
NUM_PATTERNS, PER_SIDE, NUM_WORDS = 12, 6, 4
TEMPERATURES = (0.25, 1.0, 4.0)  # times the run's own T_mask; a random choice stands beside them


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patterns:
    """What `stream_patterns` found.

    Attributes:
      tallies: of each of READINGS.
      codes: file of the codes with text, npy, int [i, n].
    """

    tallies: dict[str, PatternTally]
    codes: pathlib.Path

    @property
    def main(self) -> PatternTally:
        """Of codes with text."""
        return self.tallies['with_text']

    def most_on_objects(self, count: int) -> list[int]:
        """The codes that are shown: as `viz.patterns.draw_clusters` takes them."""
        tally = self.main
        used = np.flatnonzero(tally.patches)
        if not tally.has_labels:
            order = np.argsort(-tally.patches[used], kind='stable')
        else:
            order = patterns.object_order(
                tally.labels[used, 1:].sum(1),
                patches=tally.patches[used],
                spread=tally.spread[used],
                images=PER_SIDE**2,
            )
        return used[order[:count]].tolist()


def stream_patterns(predict: Any, data: EvalData, *, codes: pathlib.Path) -> Patterns:
    """Reads every image with one of its captions (`EvalData.pair_batches`).

    Args:
      predict: 'patterns', see `tasks.pretrain.predict.pattern_fns`.
      data: the evaluation set.
      codes: the file to write.
    """
    tallies: dict[str, PatternTally] = {}
    count = data.num_images
    num_labels = 1 + len(data.concepts) if data.concepts else 0
    with codes.open('wb') as file, tqdm.tqdm(total=count, unit='image', disable=None) as bar:
        for outputs, batch in _outputs(predict, data):
            if not tallies:
                num_codes, n = int(outputs['num_codes'][0]), outputs['scores'].shape[1]
                dtype = np.uint16 if num_codes <= 2**16 else np.int32
                _write_header(file, (count, n), dtype)
                make = lambda k=num_codes: PatternTally(num_codes=k, num_labels=num_labels)
                tallies = {reading: make() for reading in READINGS}
            labels = batch['labels'] if num_labels and 'labels' in batch else None
            for reading, tally in tallies.items():
                scores = outputs['scores'] if reading == 'with_text' else None
                tally.add(outputs[f'codes_{reading}'], scores, labels)
            file.write(outputs['codes_with_text'].astype(dtype).tobytes())
            bar.update(len(outputs['scores']))
    return Patterns(tallies=tallies, codes=codes)


def words_of_patterns(
    found: Patterns, data: EvalData, chosen: Sequence[int]
) -> dict[int, list[WordOdds]]:
    """`pattern_words` of the captions that the codes were read with.

    Words are entries of the run's lexicon where it has one ('teddy bear' is one word), and what
    stands between blanks elsewhere.
    """
    captions, codes = data.captions(), np.load(found.codes, mmap_mode='r')
    lexicon = getattr(data.make_example, 'lexicon', None)
    read = caption_reader(data.tokenizer, lexicon, max_tokens=data.data.max_tokens)

    def images() -> Iterator[tuple[set[int], set[str]]]:
        for image in range(len(captions)):
            yield set(np.unique(codes[image]).tolist()), read(captions.read(image))

    return pattern_words(images(), chosen, count=NUM_WORDS)


def draw_patterns(
    predict: Any,
    data: EvalData,
    found: Patterns,
    *,
    words: dict[int, list[WordOdds]],
    mask_ratio: float,
    mask_temperature: float,
) -> dict[str, np.ndarray]:
    """The pictures: 'clusters', 'usage', 'components', 'temperatures', and of tasks that match
    'words_0', 'words_1', ...: word maps of the first images.

    Args:
      predict, data: as in `stream_patterns`.
      found: its result.
      words: of the patterns that are shown, in their order.
      mask_ratio, mask_temperature: of the run.
    """
    images = spread(data.num_images, SHOWN)
    collected, captions = collect(predict, data, images=images, always_features=True)
    pictures = {
        'clusters': _draw_clusters(data, found, words),
        'usage': usage.draw_usage(
            {READINGS[name]: tally.patches for name, tally in found.tallies.items()}
        ),
        'temperatures': _draw_temperatures(
            predict, data, captions, ratio=mask_ratio, temperature=mask_temperature
        ),
    }
    features = {'without text': 'features', 'with text': 'features_with_text'}
    shown = {name: collected[key] for name, key in features.items()}
    pictures['components'] = panels.draw_components(
        collected['image'], shown, attribution=data.attribution
    )
    pictures |= _draw_word_maps(predict, data, collected['image'], captions)
    return pictures


def _draw_word_maps(
    predict: Any, data: EvalData, images: np.ndarray, captions: Sequence[str]
) -> dict[str, np.ndarray]:
    """What each word of the first captions reads; see `inference.explanation`."""
    if 'explain' not in predict:
        return {}
    size = data.settings.batch_size
    count = min(EXPLAINED, len(captions), size)
    images, pictures = images[:count], {}
    filled = np.concatenate([images, np.repeat(images[-1:], size - count, axis=0)])
    (batch,) = data.text_batches(list(captions[:count]))
    outputs = to_host(predict('explain', filled, batch['ids']))
    layer = (outputs['attention'].shape[1] - 1) // 2  # as of `Model.explain`
    for number, text in enumerate(captions[:count]):
        of_one = {name: array[number] for name, array in outputs.items()}
        words = data.tokenizer.words(text, data.data.max_tokens)
        maps = word_maps(words, of_one, layer=layer)
        pictures[f'words_{number}'] = draw_explanation(
            images[number],
            maps.words,
            attention=np.vstack([maps.caption_attention, maps.attention]),
            gradcam=np.vstack([maps.caption_gradcam, maps.gradcam]),
            match=maps.match,
            text=text,
            attribution=data.attribution,
        )
    return pictures


def _draw_clusters(data: EvalData, found: Patterns, words: dict[int, list[WordOdds]]) -> np.ndarray:
    tally, chosen = found.main, list(words)
    best = {code: tally.best(code) for code in chosen}
    windows, cell = _windows(data, [place for places in best.values() for place in places])
    labels = tally.labels if tally.has_labels else np.zeros((len(tally.patches), 0), int)
    shown = [
        clusters.Cluster(
            code=code,
            patches=int(tally.patches[code]),
            windows=[windows[place] for place in best[code]],
            label=patterns.commonest_label(labels[code], data.concepts),
            words=', '.join(f'{each.word} {each.log_odds:+.1f}' for each in words[code]),
        )
        for code in chosen
    ]
    note = patterns.cluster_note(PER_SIDE**2, images=tally.images, used=tally.used)
    how = 'with most of their patches on objects' if tally.has_labels else 'most used'
    return clusters.draw_cluster_sheet(
        shown,
        cell=cell,
        per_side=PER_SIDE,
        columns=4,
        title='Patterns: the best-scoring patches of each code',
        note=f'{note} Shown: those {how}. Beneath: the words most over-represented in captions of '
        'images with the pattern, and their log odds ratio.',
        attribution=data.attribution,
    )


def _windows(
    data: EvalData, places: Sequence[tuple[int, int]]
) -> tuple[dict[tuple[int, int], np.ndarray], int]:
    """(image, patch) -> the window around it; and the pixels of a patch."""
    wanted: dict[int, list[int]] = {}
    for image, patch in places:
        wanted.setdefault(image, []).append(patch)
    order, windows = sorted(wanted), {}
    n = (data.data.image_size // data.data.patch_size) ** 2
    batches = data.pair_batches(images=order)
    numbers = iter(order)
    for batch, _ in batches:
        for pixels in batch['image'][batch['valid']]:
            image = next(numbers)
            for patch in wanted[image]:
                windows[image, patch] = patches.window(
                    pixels, patch, num_patches=n, reach=clusters.REACH
                )
    return windows, data.data.patch_size


def _draw_temperatures(
    predict: Any, data: EvalData, captions: Sequence[str], *, ratio: float, temperature: float
) -> np.ndarray:
    """The masks of some images, each with its own caption and with the next one's."""
    count = min(4, len(captions), data.settings.batch_size)
    positions = spread(data.num_images, SHOWN)[:count]
    (batch, _), *_ = data.pair_batches(images=positions)
    own = list(captions[:count])
    images, examples = batch['image'], []
    grid = data.data.image_size // data.data.patch_size
    temperatures = {f'T = {temperature * t:g}': temperature * t for t in TEMPERATURES}
    temperatures |= {'random': float('inf')}
    relevances = [
        _relevance(predict, data, images, texts)[:count] for texts in (own, own[1:] + own[:1])
    ]
    for number in range(count):
        for which, (kind, relevance) in enumerate(zip(('own', 'other'), relevances, strict=True)):
            text = own[(number + which) % count]
            heat = masks.heat_map(relevance[number].reshape(grid, grid), data.data.patch_size)
            pictures, notes = [images[number], heat], ['', f'{np.ptp(relevance[number]):.2g}']
            for t in temperatures.values():
                chosen = masking.select_patches(
                    jax.random.key(number),
                    relevance[number][None],
                    count=masking.patch_count(ratio, grid**2),
                    temperature=t,
                )
                masked = np.zeros(grid**2, bool)
                masked[np.asarray(chosen[0])] = True
                masked = masked.reshape(grid, grid)
                pictures.append(masks.striped(images[number], masked, data.data.patch_size))
                notes.append('')
            caption = f'{kind} caption: {text}'
            examples.append(panels.Panels(pictures=pictures, notes=notes, caption=caption))
    return panels.draw_panels(
        examples,
        names=['image', 'relevance', *temperatures],
        title='Masks by temperature, for the own caption of an image and for another one',
        note=f'{ratio:.0%} of the patches are masked. A lower T_mask keeps closer to the '
        f'relevance; that of the run is {temperature:g}. Bright: relevant; beneath: how far '
        'relevance goes, from its least to its greatest.',
        attribution=data.attribution,
    )


def _relevance(predict: Any, data: EvalData, images: np.ndarray, texts: list[str]) -> np.ndarray:
    """float [b, n] of images with these texts, of which there are up to b."""
    (batch,) = data.text_batches(texts)
    outputs = predict(
        'patterns', images, batch['ids'], _read(data, batch['ids']), jax.random.key(0)
    )
    return to_host(outputs['relevance'])


def _outputs(predict: Any, data: EvalData) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """What `predict` gives of each batch, as far as it is counted, and the batch; valid rows."""
    key = jax.random.key(0)  # of masks that are not looked at
    for batch, _ in data.pair_batches():
        words = Words(*(batch[x] for x in WORD_FIELDS)) if WORD_FIELDS[0] in batch else None
        outputs = predict('patterns', batch['image'], batch['ids'], words, key)
        names = ('scores', 'num_codes', *(f'codes_{reading}' for reading in READINGS))
        valid = batch['valid']
        kept = {name: to_host(outputs[name])[valid] for name in names}
        yield kept, {k: x[valid] for k, x in batch.items() if k == 'labels'}


def _read(data: EvalData, ids: np.ndarray) -> Words | None:
    lexicon = getattr(data.make_example, 'lexicon', None)
    if not lexicon:
        return None
    fields = lexicon.words_of_batch(ids)
    return Words(*(fields[name] for name in WORD_FIELDS))


def _write_header(file: Any, shape: tuple[int, ...], dtype: Any) -> None:
    description = np.lib.format.dtype_to_descr(np.dtype(dtype))
    header = {'descr': description, 'fortran_order': False, 'shape': shape}
    np.lib.format.write_array_header_1_0(file, header)
