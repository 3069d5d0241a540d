"""What the encoding space learned: pattern codes of patches against their labels, beside controls.

The pattern of a patch is the encoding with the highest logit of the momentum head. Codes can agree
with labels for reasons that are not semantic: many codes, one code for a whole image, features that
cluster by themselves. So each figure stands beside what it is by chance, under two nulls (patches
shuffled; another image's codes, position by position: `clusterings`), and beside the same figure of
controls. What follows from them is said in `pattern_verdict`. The figures are this project's, not
the paper's: docs/method.md section 8.

    codes = PatchCodes(...)                 # collected by the caller over a validation set
    rows = evaluate_patterns(codes)
    print(pattern_verdict.format_table(rows))

Shapes: i images, n patches (row by row), s pixels a side, d width, k encodings.
"""

import dataclasses

import numpy as np

from semmim_jax.evaluators import clusterings, pattern_controls

HEADS = {'told': 'momentum head, with text', 'untold': 'momentum head, without text'}
CONTROLS = {
    'random_head': 'random head',
    'pixel_kmeans': 'k-means on pixel patches',
    'feature_kmeans': 'k-means on patch features',
    'told_feature_kmeans': 'k-means, features with text',
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
        }
        for name, shape in expected.items():
            array = getattr(self, name)
            if array is None:
                continue
            width = array.shape[-1:] if shape[-1] is None else ()
            wanted = tuple(size for size in shape if size is not None) + width
            if array.shape != wanted:
                raise ValueError(f'{name}: shape {array.shape}, expected {wanted}')
            if 'codes' in name and not 0 <= array.min() <= array.max() < self.num_codes:
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
    (`clusterings.other_image_mean`). `*_gain_NULL` is a figure minus that null.

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


def evaluate_patterns(data: PatchCodes, *, rounds: int = 5, seed: int = 0) -> list[PatternRow]:
    """The protocol of figures 2 and 3: one row a coding, each head followed by its own controls.

    See docs/method.md section 8.

    The controls of a head have its number of used codes where that can be chosen: k-means with as
    many clusters, on the pixels and on the features of all patches, background included, and a
    random code per image. The random head, which reads the same tokens as the head, and the CLS
    code use as many as they do (the random head 60 to 96 of the demo's 128). Where there are no
    labels nothing is clustered.

    Args:
      data: codes, controls' inputs and labels of a validation set.
      rounds: over which each null is averaged.
      seed: of the nulls, of k-means and of the random code per image.

    Returns:
      Rows: head with text and its controls, then, if given, head without text and its controls.
    """
    heads = {
        'told': (data.codes_with_text, data.random_codes_with_text),
        'untold': (data.codes_without_text, data.random_codes_without_text),
    }
    options = {'rounds': rounds, 'seed': seed}
    rows, shared = [], {}
    for reading, (head_codes, random_codes) in heads.items():
        if head_codes is None:
            continue
        wanted = clusterings.used_codes(head_codes)
        if wanted not in shared:
            shared[wanted] = {
                coding: _figures(codes, data.labels, **options)
                for coding, codes in _controls(data, wanted, seed).items()
            }
        figures = {
            'head': _figures(head_codes, data.labels, **options),
            'random_head': _figures(random_codes, data.labels, **options),
            **shared[wanted],
        }
        rows += [
            PatternRow(reading=reading, coding=coding, codes_wanted=wanted, **values)
            for coding, values in figures.items()
            if (reading, coding) != ('untold', 'told_feature_kmeans')
        ]
    return rows


def _controls(data: PatchCodes, wanted: int, seed: int) -> dict[str, np.ndarray]:
    """Codes [i, n] of the controls that are chosen by the number of used codes, and of the CLS."""
    images, patches = data.codes_with_text.shape
    found = {}
    if data.labels is not None:
        inputs = {
            'pixel_kmeans': pattern_controls.pixel_patches(data.pixels, num_patches=patches),
            'feature_kmeans': data.features.reshape(images * patches, -1),
            'told_feature_kmeans': data.features_with_text.reshape(images * patches, -1),
        }
        for name, points in inputs.items():
            codes = pattern_controls.kmeans_codes(points, num_clusters=wanted, seed=seed)
            found[name] = codes.reshape(images, patches)
    found['cls_broadcast'] = pattern_controls.broadcast_codes(data.cls_codes, num_patches=patches)
    found['image_random'] = pattern_controls.image_codes(
        images, patches, num_codes=wanted, seed=seed
    )
    return found


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
