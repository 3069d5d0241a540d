"""What the encoding space learned: pattern codes of patches against their labels, beside controls.

The pattern of a patch is the encoding with the highest logit of the momentum head. Codes can agree
with labels for reasons that are not semantic: many codes, one code for a whole image, features that
cluster by themselves. So each figure stands beside what it is by chance, under two nulls (patches
shuffled; another image's codes, position by position: `clusterings`), and beside the same figure of
controls, with the standard error of the difference (`pattern_bootstrap`). What follows from them is
said in `pattern_verdict`. The figures are this project's, not the paper's: docs/method.md,
section 8.

    codes = PatchCodes(...)                 # collected by the caller over a validation set
    rows = evaluate_patterns(codes)
    print(pattern_verdict.format_table(rows))

Shapes: i images, n patches (row by row), s pixels a side, d width, k encodings.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from semmim_jax.evaluators import clusterings, pattern_bootstrap, pattern_controls

HEADS = {'told': 'momentum head, with text', 'untold': 'momentum head, without text'}
CONTROLS = {
    'random_head': 'random head',
    'pixel_kmeans': 'k-means on pixel patches',
    'feature_kmeans': 'k-means on patch features',
    'told_feature_kmeans': 'k-means, features with text',
    'nearest_word': 'nearest word of the caption',
    'cls_broadcast': 'CLS code on every patch',
    'image_random': 'random code per image',
}

_UNKNOWN = float('nan')


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PatchCodes:
    """What the protocol reads; checked on construction, where ValueError names the field.

    Attributes:
      codes_with_text: int [i, n], argmax of the momentum head on patches that saw the caption.
      codes_without_text: int [i, n], the same head on patches that did not; None: not read.
      cls_codes: int [i], argmax of the momentum head on the image's CLS token.
      random_codes_with_text: int [i, n], argmax of one freshly initialised head, the same for all
        images, on the tokens of `codes_with_text`.
      random_codes_without_text: int [i, n], of the same fresh head on those of
        `codes_without_text`.
      features: float [i, n, d], the momentum encoder's patch features, before any head and any
        text; None where there are no labels.
      features_with_text: float [i, n, d], the tokens of `codes_with_text`, before the head; None
        where there are no labels.
      pixels: uint8 [i, s, s, 3], the images as the encoder saw them.
      labels: int [i, n], 0 = background, 1 + concept elsewhere; None if unknown (only used codes
        and modal share).
      num_codes: k.
      word_codes: int [i, n], the word of the image's caption that a patch resembles most, as an
        entry of the run's lexicon; None where the model grounds no words.
    """

    codes_with_text: np.ndarray
    codes_without_text: np.ndarray | None
    cls_codes: np.ndarray
    random_codes_with_text: np.ndarray
    random_codes_without_text: np.ndarray | None
    features: np.ndarray | None
    features_with_text: np.ndarray | None
    pixels: np.ndarray
    labels: np.ndarray | None
    num_codes: int
    word_codes: np.ndarray | None = None

    def __post_init__(self):
        if self.codes_with_text.ndim != 2 or not self.codes_with_text.size:
            raise ValueError(
                f'codes_with_text: {self.codes_with_text.shape} is not [i, n], both > 0'
            )
        images, patches = self.codes_with_text.shape
        expected = {
            'codes_without_text': (images, patches),
            'cls_codes': (images,),
            'random_codes_with_text': (images, patches),
            'random_codes_without_text': (images, patches),
            'features': (images, patches, None),
            'features_with_text': (images, patches, None),
            'pixels': (images, *self.pixels.shape[1:2] * 2, 3),
            'labels': (images, patches),
            'word_codes': (images, patches),
        }
        for name, shape in expected.items():
            array = getattr(self, name)
            if array is None:
                continue
            width = array.shape[-1:] if shape[-1] is None else ()
            wanted = tuple(size for size in shape if size is not None) + width
            if array.shape != wanted:
                raise ValueError(f'{name}: shape {array.shape}, expected {wanted}')
            if (
                'codes' in name
                and name != 'word_codes'
                and not 0 <= array.min() <= array.max() < self.num_codes
            ):
                raise ValueError(
                    f'{name}: values {array.min()}..{array.max()} outside 0..{self.num_codes - 1}'
                )
        if self.codes_without_text is not None and self.random_codes_without_text is None:
            raise ValueError('random_codes_without_text: missing beside codes_without_text')
        if self.labels is not None:
            for name in ('features', 'features_with_text'):
                if getattr(self, name) is None:
                    raise ValueError(f'{name}: missing beside labels')


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatternRow:
    """The figures of one coding. A figure that cannot be known is NaN.

    `*_shuffled` is what a figure is where the codes are permuted: for object NMI and purity over
    all object patches, for in-image NMI inside each image (`clusterings.shuffled_mean`).
    `*_other_image` is what it is where each image has another image's codes, position by position
    (`clusterings.other_image_mean`). `*_gain_NULL` is a figure minus that null. Figures of k-means
    are means over its seeds.

    Attributes:
      reading: the head that it belongs to, a key of `HEADS`.
      coding: 'head', or a key of `CONTROLS`.
      codes: used codes, over all patches.
      codes_wanted: the used codes of the head.
      modal_share: mean share of an image's patches that carry its commonest code; 1 means no
        localisation.
      cross_image, cross_image_chance: of two object patches of different images that have the same
        code, or any two codes, how often the label is the same
        (`clusterings.cross_image_agreement`).
      seeds: over which the figures are means.
      seed_errors: `pattern_bootstrap.GAINS` -> standard error of the mean over seeds, 0 for one.
      errors: `pattern_bootstrap.GAINS` -> standard error of what the head has more than this coding
        (`pattern_bootstrap.standard_error`); {} of the head itself and where there are no labels.
    """

    reading: str
    coding: str
    codes: int
    codes_wanted: int
    modal_share: float
    object_nmi: float = _UNKNOWN
    object_nmi_shuffled: float = _UNKNOWN
    object_nmi_other_image: float = _UNKNOWN
    object_purity: float = _UNKNOWN
    object_purity_shuffled: float = _UNKNOWN
    object_purity_other_image: float = _UNKNOWN
    in_image_nmi: float = _UNKNOWN
    in_image_nmi_shuffled: float = _UNKNOWN
    in_image_nmi_other_image: float = _UNKNOWN
    cross_image: float = _UNKNOWN
    cross_image_chance: float = _UNKNOWN
    seeds: int = 1
    seed_errors: Mapping[str, float] = dataclasses.field(default_factory=dict)
    errors: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """For people."""
        return HEADS[self.reading] if self.is_head else CONTROLS[self.coding]

    @property
    def object_nmi_gain_shuffled(self) -> float:
        """Object NMI minus what it is with its codes shuffled."""
        return self.object_nmi - self.object_nmi_shuffled

    @property
    def object_nmi_gain_other_image(self) -> float:
        """Object NMI minus what it is with another image's codes."""
        return self.object_nmi - self.object_nmi_other_image

    @property
    def object_purity_gain_shuffled(self) -> float:
        """Object purity minus what it is with its codes shuffled."""
        return self.object_purity - self.object_purity_shuffled

    @property
    def object_purity_gain_other_image(self) -> float:
        """Object purity minus what it is with another image's codes."""
        return self.object_purity - self.object_purity_other_image

    @property
    def in_image_nmi_gain_shuffled(self) -> float:
        """In-image NMI minus what it is with its codes shuffled."""
        return self.in_image_nmi - self.in_image_nmi_shuffled

    @property
    def in_image_nmi_gain_other_image(self) -> float:
        """In-image NMI minus what it is with another image's codes."""
        return self.in_image_nmi - self.in_image_nmi_other_image

    @property
    def cross_image_gain(self) -> float:
        """Cross-image agreement minus that of any two codes."""
        return self.cross_image - self.cross_image_chance

    @property
    def is_head(self) -> bool:
        """Whether the coding is the model's own, no control."""
        return self.coding == 'head'

    @property
    def is_matched(self) -> bool:
        """Whether the coding uses as many codes as the head that it is compared with."""
        return self.codes == self.codes_wanted


def evaluate_patterns(
    data: PatchCodes,
    *,
    rounds: int = 5,
    kmeans_seeds: int = 3,
    draws: int = 100,
    seed: int = 0,
) -> list[PatternRow]:
    """The protocol of figures 2 and 3: one row a coding, each head followed by its own controls.

    See docs/method.md section 8.

    The controls of a head have its number of used codes where that can be chosen: k-means with as
    many clusters, on the pixels and on the features of all patches, background included, and a
    random code per image. The random head, which reads the same tokens as the head, the CLS code
    and the nearest word use as many as they do (the random head 60 to 96 of the demo's 128). Where
    there are no labels nothing is clustered.

    Args:
      data: codes, controls' inputs and labels of a validation set.
      rounds: over which each null is averaged.
      kmeans_seeds: over which each k-means is averaged.
      draws: of images with replacement, for standard errors; fewer than 2: none are known.
      seed: of the nulls, of the random code per image and of the draws, and the first of k-means.

    Returns:
      Rows: head with text and its controls, then, if given, head without text and its controls.
    """
    codings = _codings(data, kmeans_seeds=kmeans_seeds, seed=seed)
    different = {id(codes): codes for runs in codings.values() for codes in runs}
    figures = {
        key: _figures(codes, data.labels, rounds=rounds, seed=seed)
        for key, codes in different.items()
    }
    gains = {}
    if data.labels is not None:
        resampled = pattern_bootstrap.resampled_gains(
            list(different.values()), data.labels, draws=draws, seed=seed
        )  # [draws, codings, gains]
        gains = dict(zip(different, resampled.swapaxes(0, 1), strict=True))
    rows = []
    for (reading, coding), runs in codings.items():
        (head,) = codings[reading, 'head']
        name = {'reading': reading, 'coding': coding, 'codes_wanted': clusterings.used_codes(head)}
        of_seeds = [PatternRow(**name, **figures[id(codes)]) for codes in runs]
        means = {
            key: _mean([figures[id(codes)][key] for codes in runs]) for key in figures[id(head)]
        }
        errors = {}
        if gains:
            errors = _errors(
                of_seeds,
                head=None if coding == 'head' else gains[id(head)],
                resampled=[gains[id(codes)] for codes in runs],
            )
        rows.append(PatternRow(**name, **means, **errors, seeds=len(runs)))
    return rows


def _errors(
    of_seeds: Sequence[PatternRow], *, head: np.ndarray | None, resampled: Sequence[np.ndarray]
) -> dict[str, dict[str, float]]:
    """`seed_errors` and `errors` of a coding's row.

    Args:
      of_seeds: its row for each seed.
      head: the head's gains on draws, float [draws, gains]; None for the head itself.
      resampled: the coding's, for each seed.
    """
    by_seed = {name: [getattr(row, name) for row in of_seeds] for name in pattern_bootstrap.GAINS}
    seed_errors = {k: pattern_bootstrap.error_of_mean(x) for k, x in by_seed.items()}
    if head is None:
        return {'seed_errors': seed_errors}
    differences = head - np.mean(resampled, axis=0)  # [draws, gains]
    errors = {
        name: pattern_bootstrap.standard_error(differences[:, place], by_seed[name])
        for place, name in enumerate(pattern_bootstrap.GAINS)
    }
    return {'seed_errors': seed_errors, 'errors': errors}


def _mean(values: Sequence[float]) -> float:
    """Of equal values exactly that value, so that counts stay whole."""
    return values[0] if len(set(values)) == 1 else float(np.mean(values))


def _codings(
    data: PatchCodes, *, kmeans_seeds: int, seed: int
) -> dict[tuple[str, str], list[np.ndarray]]:
    """(reading, coding) -> codes [i, n], one for each seed. Of equal codes it is the same array."""
    images, patches = data.codes_with_text.shape
    heads = {
        'told': (data.codes_with_text, data.random_codes_with_text),
        'untold': (data.codes_without_text, data.random_codes_without_text),
    }

    def clustered(points: np.ndarray, wanted: int) -> list[np.ndarray]:
        codes = lambda run: pattern_controls.kmeans_codes(
            points.reshape(images * patches, -1), num_clusters=wanted, seed=seed + run
        )
        return [codes(run).reshape(images, patches) for run in range(kmeans_seeds)]

    def matched(wanted: int) -> dict[str, list[np.ndarray]]:
        number = {'num_codes': wanted, 'seed': seed}
        of_coding = {'image_random': [pattern_controls.image_codes(images, patches, **number)]}
        if data.labels is not None:
            pixels = pattern_controls.pixel_patches(data.pixels, num_patches=patches)
            of_coding['pixel_kmeans'] = clustered(pixels, wanted)
            of_coding['feature_kmeans'] = clustered(data.features, wanted)
        return of_coding

    cls = pattern_controls.broadcast_codes(data.cls_codes, num_patches=patches)
    codings, of_number = {}, {}
    for reading, (head, random_head) in heads.items():
        if head is None:
            continue
        wanted = clusterings.used_codes(head)
        if wanted not in of_number:
            of_number[wanted] = matched(wanted)
        of_coding = {'head': [head], 'random_head': [random_head], 'cls_broadcast': [cls]}
        of_coding |= of_number[wanted]
        if reading == 'told' and data.labels is not None:
            of_coding['told_feature_kmeans'] = clustered(data.features_with_text, wanted)
        if reading == 'told' and data.word_codes is not None:
            of_coding['nearest_word'] = [data.word_codes]
        order = [name for name in ('head', *CONTROLS) if name in of_coding]
        codings |= {(reading, name): of_coding[name] for name in order}
    return codings


def _figures(codes: np.ndarray, labels: np.ndarray | None, *, rounds: int, seed: int) -> dict:
    """What is measured of a coding, as fields of `PatternRow`."""
    figures = {
        'codes': clusterings.used_codes(codes),
        'modal_share': clusterings.modal_share(codes),
    }
    if labels is None:
        return figures
    is_object = labels > 0  # [i, n]
    measures = {'in_image_nmi': (clusterings.in_image_nmi, ...)}
    if is_object.any():
        measures['object_nmi'] = clusterings.nmi, is_object
        measures['object_purity'] = clusterings.purity, is_object
        items = codes[is_object], labels[is_object], np.nonzero(is_object)[0]  # [m] each
        figures['cross_image'] = clusterings.cross_image_agreement(*items)
        one_code = np.zeros_like(items[0]), *items[1:]
        figures['cross_image_chance'] = clusterings.cross_image_agreement(*one_code)
    for name, (measure, where) in measures.items():
        values = _with_nulls(measure, codes, labels, where, rounds=rounds, seed=seed)
        keys = name, f'{name}_shuffled', f'{name}_other_image'
        figures |= dict(zip(keys, values, strict=True))
    return figures


def _with_nulls(measure, codes, labels, where, *, rounds: int, seed: int) -> tuple[float, ...]:
    """A measure on the patches `where` (a mask [i, n], or ... for all), and its two nulls."""
    on_images = lambda codes, labels: measure(codes[where], labels[where])
    options = {'rounds': rounds, 'seed': seed}
    return (
        on_images(codes, labels),
        clusterings.shuffled_mean(measure, codes[where], labels[where], **options),
        clusterings.other_image_mean(on_images, codes, labels, **options),
    )
