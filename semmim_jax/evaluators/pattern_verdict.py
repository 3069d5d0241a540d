"""What the figures of pattern codes allow to be said: a verdict, a table, JSON.

The word "semantic" is only used where the codes beat the controls that explain them away:
docs/method.md section 8.
"""

import dataclasses
import math

from semmim_jax.evaluators.patterns import CONTROLS, PatternRow

DECIDING_CONTROLS = ('cls_broadcast', 'feature_kmeans')
DECIDING_FIGURES = {
    'object_nmi_gain_other_image': "object NMI minus other image's",
    'in_image_nmi': 'in-image NMI',
    'in_image_nmi_gain_shuffled': 'in-image NMI minus shuffled',
    'in_image_nmi_gain_other_image': "in-image NMI minus other image's",
    'cross_image_gain': 'same label across images minus chance',
}
COLUMNS = (  # of the table: heading, and what of a row stands beneath
    ('obj NMI', 'object_nmi'),
    ('-shuf', 'object_nmi_gain_shuffled'),
    ('-other', 'object_nmi_gain_other_image'),
    ('purity', 'object_purity'),
    ('-shuf', 'object_purity_gain_shuffled'),
    ('-other', 'object_purity_gain_other_image'),
    ('in-img', 'in_image_nmi'),
    ('-shuf', 'in_image_nmi_gain_shuffled'),
    ('-other', 'in_image_nmi_gain_other_image'),
    ('cross', 'cross_image'),
    ('-chance', 'cross_image_gain'),
    ('modal', 'modal_share'),
)
NOTE = """\
obj NMI, purity: code against label on object patches. in-img: NMI of code and label, background
included, inside each image. -shuf: minus the mean for shuffled patches, which rewards what is
constant in an image. -other: minus the mean for another image's codes, position by position.
cross: of two object patches of different images with the same code, how often they have the same
label; -chance: minus the same for any two. modal: share of an image with its commonest code."""
UNMATCHED_NOTE = """\
* not the number of used codes of the head above, so NMI and purity do not compare well. That of a
  random head cannot be matched: its weights decide which codes are the highest for any patch."""


def unbeaten(
    rows: list[PatternRow], reading: str, *, margin: float = 0.0
) -> dict[str, dict[str, tuple[float, float]]]:
    """Which figures of which controls a head does not beat by more than `margin`.

    A tie is not a win. A control's figure that is unknown, because no two of its patches in
    different images have the same code, is taken to be at chance: a gain of 0.

    Returns:
      Coding -> key of `DECIDING_FIGURES` -> (the head's figure, the control's).
    """
    head = next(row for row in rows if row.reading == reading and row.is_head)
    found = {}
    for row in rows:
        if row.reading != reading or row.is_head:
            continue
        pairs = {key: (getattr(head, key), getattr(row, key)) for key in DECIDING_FIGURES}
        lost = {
            key: (own, other)
            for key, (own, other) in pairs.items()
            if not own > (0.0 if math.isnan(other) else other) + margin
        }
        if lost:
            found[row.coding] = lost
    return found


def is_semantic(rows: list[PatternRow], reading: str, *, margin: float = 0.0) -> bool:
    """Whether a head's patterns may be called semantic.

    See docs/method.md section 8.

    Semantic means: above the CLS broadcast and above k-means on the encoder's own features, by more
    than `margin`, on every figure of `DECIDING_FIGURES`. Object NMI minus shuffled patches is none
    of them: a random code per image has as much of it as the CLS broadcast.
    """
    present = {row.coding for row in rows if row.reading == reading}
    lost = unbeaten(rows, reading, margin=margin)
    return all(name in present and name not in lost for name in DECIDING_CONTROLS)


def verdict(rows: list[PatternRow], *, margin: float = 0.0) -> list[str]:
    """Says for each head whether its patterns may be called semantic, and what they do not beat.

    See docs/method.md section 8.

    See `is_semantic`. The controls that do not decide are named where they are not beaten.

    Returns:
      One sentence a head, then one for each control that it does not beat.
    """
    sentences = []
    for head in (row for row in rows if row.is_head):
        refused = f'{head.name}: not called semantic'
        unknown = [text for key, text in DECIDING_FIGURES.items() if math.isnan(getattr(head, key))]
        if math.isnan(head.object_nmi):
            sentences.append(f'{refused}: no labelled object, so nothing was compared.')
            continue
        if unknown:
            sentences.append(f'{refused}: not known here: {", ".join(unknown)}.')
            continue
        present = {row.coding for row in rows if row.reading == head.reading}
        missing = [CONTROLS[name] for name in DECIDING_CONTROLS if name not in present]
        lost = unbeaten(rows, head.reading, margin=margin)
        deciding = ' and '.join(CONTROLS[name] for name in DECIDING_CONTROLS if name in lost)
        if missing:
            sentences.append(f'{refused}: {" and ".join(missing)} not measured.')
        elif deciding:
            sentences.append(f'{refused}: does not beat {deciding}.')
        else:
            beaten = ' and '.join(CONTROLS[name] for name in DECIDING_CONTROLS)
            sentences.append(f'{head.name}: semantic: beats {beaten}.')
        for name, figures in lost.items():
            listed = ', '.join(
                f'{DECIDING_FIGURES[key]} ({own:.3f} against {other:.3f})'
                for key, (own, other) in figures.items()
            )
            sentences.append(f'{head.name}: {CONTROLS[name]} is not beaten on {listed}.')
    return sentences


def format_table(rows: list[PatternRow]) -> str:
    """A plain-text table, each head above its controls, with what the columns mean beneath.

    Figures that are unknown for all codings have no column.
    """
    known = [
        (heading, key)
        for heading, key in COLUMNS
        if not all(math.isnan(getattr(row, key)) for row in rows)
    ]
    header = ['coding', 'codes', *(heading for heading, _ in known)]
    lines = []
    for row in rows:
        name = row.name if row.is_head else f'  {row.name}'
        codes = f'{row.codes}' if row.is_matched else f'{row.codes}*'
        values = [getattr(row, key) for _, key in known]
        lines.append([name, codes, *('-' if math.isnan(x) else f'{x:.3f}' for x in values)])
    widths = [max(len(line[c]) for line in [header, *lines]) for c in range(len(header))]

    def join(cells):
        padded = [x.rjust(w) for x, w in zip(cells[1:], widths[1:], strict=True)]
        return ' '.join([cells[0].ljust(widths[0]), *padded])

    table = [join(header), '-' * (sum(widths) + len(widths) - 1)]
    for row, line in zip(rows, lines, strict=True):
        if row.is_head and len(table) > 2:
            table.append('')
        table.append(join(line))
    table += ['', NOTE] if len(known) > 1 else []
    if not all(row.is_matched for row in rows):
        table.append(UNMATCHED_NOTE)
    return '\n'.join(table)


def to_dict(rows: list[PatternRow], *, margin: float = 0.0) -> dict:
    """Rows and verdict as plain values for JSON.

    Returns:
      codings: 'READING/CODING' -> every field and gain of that `PatternRow`, None where it is
        unknown. READING is 'told' or 'untold'; CODING is 'head', 'random_head', 'pixel_kmeans',
        'feature_kmeans', 'told_feature_kmeans' (told only), 'cls_broadcast' or 'image_random'.
        The k-means are missing where there are no labels.
      verdict: its sentences.
    """
    codings = {}
    for row in rows:
        values = dataclasses.asdict(row)
        gains = [key for key in vars(PatternRow) if '_gain' in key]
        values |= {key: getattr(row, key) for key in ('name', *gains, 'is_matched')}
        codings[f'{row.reading}/{row.coding}'] = {
            key: None if isinstance(value, float) and math.isnan(value) else value
            for key, value in values.items()
        }
    return {'codings': codings, 'verdict': verdict(rows, margin=margin)}
