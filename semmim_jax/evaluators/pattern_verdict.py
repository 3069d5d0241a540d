"""What the figures of pattern codes allow to be said: a verdict, a table, JSON.

The word "semantic" is only used where the codes beat the controls that explain them away:
docs/method.md section 8.
"""

import dataclasses
import math
from collections.abc import Sequence

from semmim_jax.evaluators.patterns import CONTROLS, PatternRow

DECIDING_CONTROLS = ('cls_broadcast', 'feature_kmeans')
DECIDING_FIGURES = {  # those of `pattern_bootstrap.GAINS`
    'object_nmi_gain_shuffled': 'object NMI minus shuffled',
    'object_nmi_gain_other_image': "object NMI minus other image's",
    'in_image_nmi_gain_shuffled': 'in-image NMI minus shuffled',
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
  random head cannot be matched: its weights decide which codes are the highest for any patch; that
  of the nearest word neither: it is as many as the captions have words."""
ERROR_NOTE = """\
Standard errors: over images, drawn with replacement; of k-means over its seeds as well. A control
is beaten where the difference is above 0; below two errors another set may say otherwise."""


def unbeaten(rows: Sequence[PatternRow], reading: str) -> dict[str, list[str]]:
    """Which figures of which controls a head does not beat. A tie is not a win.

    Returns:
      Coding -> keys of `DECIDING_FIGURES`.
    """
    head = next(row for row in rows if row.reading == reading and row.is_head)
    lost_to = {}
    for row in rows:
        if row.reading != reading or row.is_head:
            continue
        lost = [key for key in DECIDING_FIGURES if not getattr(head, key) > getattr(row, key)]
        if lost:
            lost_to[row.coding] = lost
    return lost_to


def is_semantic(rows: Sequence[PatternRow], reading: str) -> bool:
    """Whether a head's patterns may be called semantic.

    See docs/method.md section 8.

    Semantic means: above the CLS broadcast and above k-means on the encoder's own features, on
    every figure of `DECIDING_FIGURES`. By how many standard errors, `verdict` says.
    """
    present = {row.coding for row in rows if row.reading == reading}
    lost = unbeaten(rows, reading)
    return all(name in present and name not in lost for name in DECIDING_CONTROLS)


def verdict(rows: Sequence[PatternRow]) -> list[str]:
    """Says for each head whether its patterns may be called semantic, and what they do not beat.

    See docs/method.md section 8.

    See `is_semantic`. The controls that do not decide are named where they are not beaten.

    Returns:
      One sentence a head; one more where a deciding control is beaten by less than two standard
      errors; then one for each control that is not beaten.
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
        controls = {r.coding: r for r in rows if r.reading == head.reading and not r.is_head}
        missing = [CONTROLS[name] for name in DECIDING_CONTROLS if name not in controls]
        lost = unbeaten(rows, head.reading)
        deciding = ' and '.join(CONTROLS[name] for name in DECIDING_CONTROLS if name in lost)
        if missing:
            sentences.append(f'{refused}: {" and ".join(missing)} not measured.')
        elif deciding:
            sentences.append(f'{refused}: does not beat {deciding}.')
        else:
            beaten = ' and '.join(CONTROLS[name] for name in DECIDING_CONTROLS)
            sentences.append(f'{head.name}: semantic: beats {beaten}.')
            for name in DECIDING_CONTROLS:
                row = controls[name]
                close = [key for key in DECIDING_FIGURES if _is_close(head, row, key)]
                if close:
                    sentences.append(
                        f'{head.name}: {CONTROLS[name]} is beaten by less than two standard errors '
                        f'on {_listed(head, row, close)}.'
                    )
        for name, keys in lost.items():
            listed = _listed(head, controls[name], keys)
            sentences.append(f'{head.name}: {CONTROLS[name]} is not beaten on {listed}.')
    return sentences


def _is_close(head: PatternRow, control: PatternRow, key: str) -> bool:
    error = control.errors.get(key, math.nan)
    return getattr(head, key) - getattr(control, key) < 2 * error  # never if it is not known


def _listed(head: PatternRow, control: PatternRow, keys: Sequence[str]) -> str:
    named = (f'{DECIDING_FIGURES[key]} ({_difference(head, control, key)})' for key in keys)
    return ', '.join(named)


def _difference(head: PatternRow, control: PatternRow, key: str) -> str:
    """What the head is above the control by, and the standard error of that."""
    difference, error = getattr(head, key) - getattr(control, key), control.errors.get(key)
    if math.isnan(difference):
        return '-'
    unknown = error is None or math.isnan(error)
    return f'{difference:+.3f}' + (' ± unknown' if unknown else f' ± {error:.3f}')


def format_table(rows: Sequence[PatternRow], *, notes: bool = True) -> str:
    """A plain-text table, each head above its controls; with `notes` what the columns mean beneath.

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
        codes = f'{row.codes:.0f}' if row.is_matched else f'{row.codes:.0f}*'
        values = [getattr(row, key) for _, key in known]
        lines.append([codes, *('-' if math.isnan(x) else f'{x:.3f}' for x in values)])
    table = _aligned(header, rows, lines)
    table += ['', NOTE] if notes and len(known) > 1 else []
    if notes and not all(row.is_matched for row in rows):
        table.append(UNMATCHED_NOTE)
    return '\n'.join(table)


def format_differences(rows: Sequence[PatternRow], *, notes: bool = True) -> str:
    """A plain-text table of what each head has more than its controls, with standard errors.

    With `notes` it says beneath of what. '' where nothing is compared, without labelled objects.
    """
    heads = {row.reading: row for row in rows if row.is_head}
    if all(math.isnan(getattr(head, key)) for head in heads.values() for key in DECIDING_FIGURES):
        return ''
    header = ['head minus control', *DECIDING_FIGURES.values()]
    lines = [
        [
            '' if row.is_head else _difference(heads[row.reading], row, key)
            for key in DECIDING_FIGURES
        ]
        for row in rows
    ]
    return '\n'.join([*_aligned(header, rows, lines), *(['', ERROR_NOTE] if notes else [])])


def _aligned(header: Sequence[str], rows: Sequence[PatternRow], lines: Sequence[Sequence[str]]):
    """Lines of a table: names of the rows at the left, cells to the right, a gap above heads."""
    names = [row.name if row.is_head else f'  {row.name}' for row in rows]
    lines = [header, *([name, *line] for name, line in zip(names, lines, strict=True))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def join(cells):
        padded = [x.rjust(w) for x, w in zip(cells[1:], widths[1:], strict=True)]
        return ' '.join([cells[0].ljust(widths[0]), *padded]).rstrip()

    table = [join(header), '-' * (sum(widths) + len(widths) - 1)]
    for row, line in zip(rows, lines[1:], strict=True):
        if row.is_head and len(table) > 2:
            table.append('')
        table.append(join(line))
    return table


def to_dict(rows: Sequence[PatternRow]) -> dict:
    """Rows and verdict as plain values for JSON.

    Returns:
      codings: 'READING/CODING' -> every field and gain of that `PatternRow`, None where it is
        unknown. READING is 'told' or 'untold'; CODING is 'head' or a key of `patterns.CONTROLS`,
        those that read text for 'told' only. The k-means are missing where there are no labels, the
        nearest word where the model grounds none.
      differences: 'READING/CODING' -> a key of `DECIDING_FIGURES` -> 'mean', the head's figure
        minus this control's, and 'error', the standard error of that.
      verdict: its sentences.
    """
    heads = {row.reading: row for row in rows if row.is_head}
    codings, differences = {}, {}
    for row in rows:
        key = f'{row.reading}/{row.coding}'
        values = dataclasses.asdict(row)
        gains = [name for name in vars(PatternRow) if '_gain' in name]
        codings[key] = values | {n: getattr(row, n) for n in ('name', *gains, 'is_matched')}
        if not row.is_head:
            head = heads[row.reading]
            differences[key] = {
                figure: {
                    'mean': getattr(head, figure) - getattr(row, figure),
                    'error': row.errors.get(figure, math.nan),
                }
                for figure in DECIDING_FIGURES
            }
    return _plain({'codings': codings, 'differences': differences, 'verdict': verdict(rows)})


def _plain(value):
    """NaN, which JSON does not have, as None."""
    if isinstance(value, dict):
        return {key: _plain(x) for key, x in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
