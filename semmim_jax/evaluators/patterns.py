"""What the encoding space learned: pattern codes of patches against their labels, beside controls.

The pattern of a patch is the encoding with the highest logit of the momentum head. Codes can agree
with labels for reasons that are not semantic: many codes, one code for a whole scene, features that
cluster by themselves. So every figure stands beside the same figure for controls with the same
number of used codes, and the word "semantic" is only used where the codes beat those that explain
it away (`verdict`). The figures are this project's, not the paper's.

    codes = PatchCodes(...)                 # collected by the caller over a validation set
    rows = evaluate_patterns(codes)
    print(format_table(rows))

Shapes: i images, n patches (row by row), s pixels a side, d width, k encodings.
"""

import dataclasses
import math

import numpy as np

from semmim_jax.evaluators import clusterings, pattern_controls

HEAD_WITH_TEXT = 'momentum head, with text'
HEAD_WITHOUT_TEXT = 'momentum head, without text'
RANDOM_HEAD = 'random head'
PIXEL_KMEANS = 'k-means on pixel patches'
FEATURE_KMEANS = 'k-means on patch features'
CLS_BROADCAST = 'CLS code on every patch'

DECIDING_CONTROLS = (CLS_BROADCAST, FEATURE_KMEANS)
DECIDING_FIGURES = {
    'object_nmi_gain': 'object NMI minus shuffled',
    'in_image_nmi': 'in-image NMI',
    'in_image_nmi_gain': 'in-image NMI minus shuffled',
}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PatchCodes:
    """What the protocol reads; checked on construction, where ValueError names the field.

    Attributes:
      codes_with_text: int [i, n], argmax of the momentum head on patches that saw the caption.
      codes_without_text: int [i, n], the same head on patches that did not; None if the model
        injects no text.
      scores: float [i, n], the logit of `codes_with_text`; read by the cluster pictures, not by the
        figures.
      cls_codes: int [i], argmax of the momentum head on the image's CLS token.
      random_codes: int [i, n], argmax of a freshly initialised head on `features`.
      random_logits: float [i, n, k] behind `random_codes`, or None. With it, a random head that
        uses more codes than the momentum head is cut to as many; without it, it keeps them and the
        table marks the row.
      features: float [i, n, d], the momentum encoder's patch features, before any head and any
        text.
      pixels: uint8 [i, s, s, 3], the images as the encoder saw them.
      labels: int [i, n], 0 = background, 1 + concept elsewhere; None if unknown (only used codes
        and modal share).
      num_codes: k.
    """

    codes_with_text: np.ndarray
    codes_without_text: np.ndarray | None
    scores: np.ndarray
    cls_codes: np.ndarray
    random_codes: np.ndarray
    features: np.ndarray
    pixels: np.ndarray
    labels: np.ndarray | None
    num_codes: int
    random_logits: np.ndarray | None = None

    def __post_init__(self):
        if self.codes_with_text.ndim != 2 or not self.codes_with_text.size:
            raise ValueError(
                f'codes_with_text: {self.codes_with_text.shape} is not [i, n], both > 0'
            )
        images, patches = self.codes_with_text.shape
        expected = {
            'codes_without_text': (images, patches),
            'scores': (images, patches),
            'cls_codes': (images,),
            'random_codes': (images, patches),
            'random_logits': (images, patches, self.num_codes),
            'features': (images, patches, self.features.shape[-1]),
            'pixels': (images, *self.pixels.shape[1:2] * 2, 3),
            'labels': (images, patches),
        }
        for name, shape in expected.items():
            array = getattr(self, name)
            if array is not None and array.shape != shape:
                raise ValueError(f'{name}: shape {array.shape}, expected {shape}')
        for name in ('codes_with_text', 'codes_without_text', 'cls_codes', 'random_codes'):
            array = getattr(self, name)
            if array is not None and not 0 <= array.min() <= array.max() < self.num_codes:
                raise ValueError(
                    f'{name}: values {array.min()}..{array.max()} outside 0..{self.num_codes - 1}'
                )
        if self.labels is not None and not (self.labels > 0).any():
            raise ValueError('labels: no object patch (label > 0) in any image')


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatternRow:
    """The figures of one coding; `*_shuffled` is what they are by chance, `*_gain` the difference.

    For object NMI and purity the codes are permuted over all object patches; for in-image NMI over
    the patches of each image. Figures that need labels are NaN without them.

    Attributes:
      name: the coding.
      head: the head row that it is compared with; its own name for a head row.
      codes: used codes, over all patches.
      codes_wanted: the used codes of that head row; None where the number is what it is (heads, CLS
        broadcast).
      modal_share: mean share of an image's patches that carry its commonest code; 1 means no
        localisation.
    """

    name: str
    head: str
    codes: int
    codes_wanted: int | None
    object_nmi: float
    object_nmi_shuffled: float
    object_purity: float
    object_purity_shuffled: float
    in_image_nmi: float
    in_image_nmi_shuffled: float
    modal_share: float

    @property
    def object_nmi_gain(self) -> float:
        return self.object_nmi - self.object_nmi_shuffled

    @property
    def object_purity_gain(self) -> float:
        return self.object_purity - self.object_purity_shuffled

    @property
    def in_image_nmi_gain(self) -> float:
        return self.in_image_nmi - self.in_image_nmi_shuffled

    @property
    def is_head(self) -> bool:
        return self.name == self.head

    @property
    def is_matched(self) -> bool:
        """Whether the coding uses as many codes as the head that it is compared with."""
        return self.codes_wanted is None or self.codes == self.codes_wanted


def evaluate_patterns(data: PatchCodes, *, shuffles: int = 5, seed: int = 0) -> list[PatternRow]:
    """The protocol of figures 2 and 3: one row a coding, each head followed by its own controls.

    See docs/method.md section 8.

    The controls of a head have its number of used codes: a random head reduced to its most used
    codes (`pattern_controls.keep_most_used`), k-means with as many clusters on the pixels and on
    the features of all patches, background included. The CLS code uses as many as it does.

    Args:
      data: codes, controls' inputs and labels of a validation set.
      shuffles: permutations over which chance is averaged.
      seed: of the permutations and of k-means.

    Returns:
      Rows: head with text and its 4 controls, then, if given, head without text and its 4 controls.
    """
    heads = {HEAD_WITH_TEXT: data.codes_with_text, HEAD_WITHOUT_TEXT: data.codes_without_text}
    rows, measured = [], {}
    for head, head_codes in heads.items():
        if head_codes is None:
            continue
        wanted = clusterings.used_codes(head_codes)
        rows.append(_measure(head_codes, data.labels, head, head, None, shuffles, seed))
        if wanted not in measured:
            measured[wanted] = [
                _measure(codes, data.labels, name, head, count, shuffles, seed)
                for name, codes, count in _controls(data, wanted, seed)
            ]
        rows += [dataclasses.replace(row, head=head) for row in measured[wanted]]
    return rows


def verdict(rows: list[PatternRow], *, margin: float = 0.0) -> list[str]:
    """Says for each head whether its patterns may be called semantic, and what they do not beat.

    See docs/method.md section 8.

    Semantic means: above the CLS broadcast and above k-means on the encoder's own features, by more
    than `margin`, on every figure of `DECIDING_FIGURES`. The last of these keeps many arbitrary
    codes from passing, whose in-image NMI is high by chance. The other controls are named where
    they are not beaten, and do not decide. A tie is not a win.

    Returns:
      One sentence a head, then one for each control that it does not beat.
    """
    sentences = []
    for head in (row for row in rows if row.is_head):
        if math.isnan(head.object_nmi) or math.isnan(head.in_image_nmi):
            why = 'no patch labels' if math.isnan(head.object_nmi) else 'no image with two labels'
            sentences.append(f'{head.name}: not called semantic: {why}, so nothing was compared.')
            continue
        failures = {}
        for control in rows:
            if control.is_head or control.head != head.name:
                continue
            lost = [
                f'{text} ({getattr(head, key):.3f} against {getattr(control, key):.3f})'
                for key, text in DECIDING_FIGURES.items()
                if not getattr(head, key) > getattr(control, key) + margin
            ]
            if lost:
                failures[control.name] = lost
        deciding = [name for name in DECIDING_CONTROLS if name in failures]
        missing = [
            name
            for name in DECIDING_CONTROLS
            if not any(row.name == name and row.head == head.name for row in rows)
        ]
        if missing:
            sentences.append(
                f'{head.name}: not called semantic: {" and ".join(missing)} not measured.'
            )
        elif deciding:
            sentences.append(
                f'{head.name}: not called semantic: does not beat {" and ".join(deciding)}.'
            )
        else:
            sentences.append(f'{head.name}: semantic: beats {" and ".join(DECIDING_CONTROLS)}.')
        sentences += [
            f'{head.name}: {name} is not beaten on {", ".join(lost)}.'
            for name, lost in failures.items()
        ]
    return sentences


def format_table(rows: list[PatternRow]) -> str:
    """A plain-text table, each head above its controls, with what the columns mean beneath."""
    header = ('coding', 'codes', 'obj NMI', '-shuf', 'purity', '-shuf', 'in-img', '-shuf', 'modal')
    lines = []
    for row in rows:
        figures = (
            row.object_nmi,
            row.object_nmi_gain,
            row.object_purity,
            row.object_purity_gain,
            row.in_image_nmi,
            row.in_image_nmi_gain,
            row.modal_share,
        )
        name = row.name if row.is_head else f'  {row.name}'
        codes = f'{row.codes}' if row.is_matched else f'{row.codes}*'
        lines.append((name, codes, *('-' if math.isnan(x) else f'{x:.3f}' for x in figures)))
    widths = [max(len(line[c]) for line in [header, *lines]) for c in range(len(header))]

    def join(cells):
        return '  '.join(
            [cells[0].ljust(widths[0])]
            + [x.rjust(w) for x, w in zip(cells[1:], widths[1:], strict=True)]
        )

    table = [join(header), '-' * (sum(widths) + 2 * (len(widths) - 1))]
    for row, line in zip(rows, lines, strict=True):
        if row.is_head and len(table) > 2:
            table.append('')
        table.append(join(line))
    table += [
        '',
        'obj NMI, purity: code against label on object patches. in-img: NMI of code and label,',
        'background included, inside each image. -shuf: minus the mean for permuted codes.',
        'modal: share of an image that carries its commonest code.',
    ]
    if not all(row.is_matched for row in rows):
        table.append('* not the number of used codes of the head above: not a fair comparison.')
    return '\n'.join(table)


def to_dict(rows: list[PatternRow], *, margin: float = 0.0) -> dict:
    """Rows and verdict as plain values for JSON; figures that are not known are None."""
    table = []
    for row in rows:
        values = dataclasses.asdict(row)
        for key in ('object_nmi_gain', 'object_purity_gain', 'in_image_nmi_gain', 'is_matched'):
            values[key] = getattr(row, key)
        table.append(
            {
                key: None if isinstance(value, float) and math.isnan(value) else value
                for key, value in values.items()
            }
        )
    return {'rows': table, 'verdict': verdict(rows, margin=margin)}


def _controls(data: PatchCodes, wanted: int, seed: int):
    """Yields (name, codes [i, n], number of codes it should use or None)."""
    shape = data.codes_with_text.shape
    random_codes = data.random_codes
    if data.random_logits is not None:
        random_codes = pattern_controls.keep_most_used(
            random_codes, data.random_logits, num_codes=wanted
        )
    yield RANDOM_HEAD, random_codes, wanted
    pixels = pattern_controls.pixel_patches(data.pixels, num_patches=shape[1])
    features = data.features.reshape(-1, data.features.shape[-1])
    for name, inputs in ((PIXEL_KMEANS, pixels), (FEATURE_KMEANS, features)):
        codes = pattern_controls.kmeans_codes(inputs, num_clusters=wanted, seed=seed)
        yield name, codes.reshape(shape), wanted
    yield (
        CLS_BROADCAST,
        pattern_controls.broadcast_codes(data.cls_codes, num_patches=shape[1]),
        None,
    )


def _measure(codes, labels, name, head, wanted, shuffles, seed) -> PatternRow:
    figures = dict.fromkeys(
        ('object_nmi', 'object_purity', 'in_image_nmi'), (float('nan'), float('nan'))
    )
    if labels is not None:
        is_object = labels > 0  # [i, n]
        pairs = {
            'object_nmi': (clusterings.nmi, codes[is_object], labels[is_object]),
            'object_purity': (clusterings.purity, codes[is_object], labels[is_object]),
            'in_image_nmi': (clusterings.in_image_nmi, codes, labels),
        }
        for key, (measure, its_codes, its_labels) in pairs.items():
            chance = clusterings.shuffled_mean(
                measure, its_codes, its_labels, rounds=shuffles, seed=seed
            )
            figures[key] = (measure(its_codes, its_labels), chance)
    return PatternRow(
        name=name,
        head=head,
        codes=clusterings.used_codes(codes),
        codes_wanted=wanted,
        modal_share=clusterings.modal_share(codes),
        **{key: value for key, (value, _) in figures.items()},
        **{f'{key}_shuffled': chance for key, (_, chance) in figures.items()},
    )
