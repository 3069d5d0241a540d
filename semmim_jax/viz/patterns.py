"""What the encoding space learned, as pictures: clusters (figure 2) and layout (figure 3).

A pattern is the code that the momentum head gives a patch. The pictures show codes; whether they
may be called semantic is decided by the figures and controls of `evaluators.patterns`, never by a
picture.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from semmim_jax.viz import figure, palette, patches
from semmim_jax.viz.clusters import REACH, Cluster, draw_cluster_sheet

SIDE = 1.35  # inches, an image in the layout
GAP = 0.08
LEGEND = 1.35  # names of the labels, beside them
GUTTER = 0.4
CAPTION_LINES = 2


def most_used(codes: np.ndarray, count: int) -> list[int]:
    """The `count` codes with most patches, most used first; of equals the lower code first."""
    values, counts = np.unique(codes, return_counts=True)
    return [int(v) for v in values[np.argsort(-counts, kind='stable')[:count]]]


def most_on_objects(codes: np.ndarray, labels: np.ndarray, count: int, *, images: int) -> list[int]:
    """The `count` codes with the largest share of patches on objects, the largest first.

    See docs/method.md section 8.

    The commonest codes are those of backgrounds. A code of few images says little: it comes after
    all that occur in at least `images`, or in half as many as the most widespread code if that is
    less. Of equals the lower code comes first.

    Args:
      codes: int [i, n].
      labels: int [i, n], 0 = background.
      count: how many at most.
      images: in how many a code should occur.
    """
    values, places = np.unique(codes, return_inverse=True)  # [c], [i * n]
    places = places.reshape(codes.shape)
    on_objects = np.bincount(places.ravel(), labels.ravel() > 0)
    occurs = np.zeros((len(codes), len(values)), bool)
    np.put_along_axis(occurs, places, True, axis=1)
    counts = dict(patches=np.bincount(places.ravel()), spread=occurs.sum(axis=0), images=images)
    return [int(v) for v in values[object_order(on_objects, **counts)[:count]]]


def object_order(
    on_objects: np.ndarray, *, patches: np.ndarray, spread: np.ndarray, images: int
) -> np.ndarray:
    """The order of `most_on_objects` among codes that occur, from their counts, each [c]."""
    rare = spread < min(images, spread.max() / 2)
    return np.lexsort((np.arange(len(patches)), -on_objects / patches, rare))


def top_patches(
    codes: np.ndarray, scores: np.ndarray, code: int, *, count: int
) -> list[tuple[int, int]]:
    """The best patches of a pattern, at most one per image.

    Args:
      codes: int [i, n].
      scores: float [i, n].
      code: the pattern.
      count: how many at most; fewer if the pattern occurs in fewer images.

    Returns:
      (image, patch) pairs by falling score; of equal scores the lower image, then the lower patch,
      comes first.
    """
    own = np.where(codes == code, scores.astype(np.float64), -np.inf)  # [i, n]
    best = own.argmax(axis=1)
    score = own[np.arange(len(own)), best]
    order = np.argsort(-score, kind='stable')
    return [(int(i), int(best[i])) for i in order[:count] if (codes[i] == code).any()]


def draw_clusters(
    images: np.ndarray,
    codes: np.ndarray,
    scores: np.ndarray,
    *,
    labels: np.ndarray | None = None,
    concepts: Sequence[str] = (),
    patterns: Sequence[int] | None = None,
    num_patterns: int = 12,
    per_side: int = 6,
    columns: int = 4,
    title: str = 'Patterns: the best-scoring patches of each code',
    attribution: str = '',
    path: str | Path | None = None,
) -> Path | np.ndarray:
    """Figure 2: for some patterns, their highest-scoring patches, at most one per image.

    See docs/method.md section 8.

    With labels, the patterns are those with the largest share of patches on objects
    (`most_on_objects`), without labels the most used.

    Each patch is the framed centre of a window of 5 x 5 patches. Above the windows stand the
    pattern, its number of patches and, with labels, its commonest label with the share of patches
    that carry it.

    Args:
      images: uint8 [i, s, s, 3].
      codes: int [i, n], patches row by row.
      scores: float [i, n].
      labels: int [i, n], 0 = background, 1 + concept elsewhere.
      concepts: names of the concepts; a label without a name is written as its number.
      patterns: the codes to draw; by default `num_patterns` are chosen as above.
      per_side: per_side ** 2 windows a pattern.
      columns: patterns side by side.
      attribution: of the artwork, as a footer.
      path: a .png to write.

    Returns:
      The path, or without one uint8 [h, w, 3].

    Raises:
      ValueError: shapes do not fit.
    """
    _, cell = patches.checked_images(images, codes=codes, scores=scores, labels=labels)
    how = ''
    if patterns is not None:
        chosen = [int(p) for p in patterns]
    elif labels is None:
        chosen, how = most_used(codes, num_patterns), ' Shown: the most used.'
    else:
        chosen = most_on_objects(codes, labels, num_patterns, images=per_side**2)
        how = ' Shown: those with most of their patches on objects.'
    clusters = [
        Cluster(
            code=code,
            patches=int((codes == code).sum()),
            windows=[
                patches.window(images[i], n, num_patches=codes.shape[1], reach=REACH)
                for i, n in top_patches(codes, scores, code, count=per_side**2)
            ],
            label=''
            if labels is None
            else commonest_label(np.bincount(labels[codes == code]), concepts),
        )
        for code in chosen
    ]
    return draw_cluster_sheet(
        clusters,
        cell=cell,
        per_side=per_side,
        columns=columns,
        title=title,
        note=cluster_note(per_side**2, images=len(images), used=np.unique(codes).size) + how,
        attribution=attribution,
        path=path,
    )


def cluster_note(windows: int, *, images: int, used: int) -> str:
    """What a picture of clusters shows."""
    return (
        'The framed patch carries the code; around it a window of 5 x 5 patches. Up to '
        f'{windows} a pattern, at most one per image, best first. {images:,} images, '
        f'{used:,} used codes.'
    )


def draw_layout(
    images: np.ndarray,
    codes_with_text: np.ndarray,
    *,
    codes_without_text: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    concepts: Sequence[str] = (),
    captions: Sequence[str] = (),
    columns: int = 2,
    title: str = 'Layout: every patch coloured by its pattern',
    attribution: str = '',
    path: str | Path | None = None,
) -> Path | np.ndarray:
    """Figure 3: image | patterns with text | patterns without text | labels.

    See docs/method.md section 8.

    A code has one colour in the whole picture, the same with and without text. Codes are light,
    labels dark, so that no colour stands for both. Panels that are not given are left out.

    Args:
      images: uint8 [i, s, s, 3].
      codes_with_text: int [i, n], patches row by row.
      codes_without_text: int [i, n].
      labels: int [i, n], 0 = background (grey), 1 + concept elsewhere; also outlined over the
        patterns.
      concepts: names of the concepts; a label without a name is written as its number.
      captions: i texts, or none.
      columns: images side by side.
      attribution: of the artwork, as a footer.
      path: a .png to write.

    Returns:
      The path, or without one uint8 [h, w, 3].

    Raises:
      ValueError: shapes do not fit.
    """
    grid, cell = patches.checked_images(
        images,
        codes_with_text=codes_with_text,
        codes_without_text=codes_without_text,
        labels=labels,
    )
    if captions and len(captions) != len(images):
        raise ValueError(f'captions: {len(captions)} for {len(images)} images')
    codings = {'with text': codes_with_text, 'without text': codes_without_text}
    codings = {name: codes for name, codes in codings.items() if codes is not None}
    colours = palette.code_colours(*codings.values())
    names = ['image', *codings, *(['labels'] if labels is not None else [])]
    columns = min(columns, len(images))
    block = len(names) * SIDE + (len(names) - 1) * GAP
    block += 0 if labels is None else GAP + LEGEND
    head = figure.text_height(1, figure.TEXT_SIZE) + 0.02
    lines = [
        figure.wrap(c, width=block, size=figure.TEXT_SIZE, max_lines=CAPTION_LINES)
        for c in captions
    ]
    under = figure.text_height(1, figure.SMALL_SIZE) + 0.06
    caption_height = figure.text_height(max(map(len, lines), default=0), figure.TEXT_SIZE)
    step = SIDE + under + caption_height + 0.16
    sheet = figure.Sheet(
        width=2 * figure.MARGIN + columns * block + (columns - 1) * GUTTER,
        body_height=head - (-len(images) // columns) * step - 0.16,
        title=title,
        note=f'{len(colours):,} codes occur here, one colour each'
        + (' as far as colours go' if len(colours) > palette.MAX_COLOURS else '')
        + (', the same with and without text' if len(codings) > 1 else '')
        + '. Beneath: how many codes the image has, and the share of its commonest.'
        + (' Lines: outlines of labelled objects.' if labels is not None else ''),
        attribution=attribution,
    )
    for column in range(columns):
        for panel, name in enumerate(names):
            left = figure.MARGIN + column * (block + GUTTER) + panel * (SIDE + GAP)
            sheet.text(name, left=left, top=sheet.top, weight='bold')
    label_colours = {} if labels is None else _label_colours(labels)
    for index in range(len(images)):
        row, column = divmod(index, columns)
        top = sheet.top + head + row * step
        left = figure.MARGIN + column * (block + GUTTER)
        regions = None if labels is None else labels[index].reshape(grid, grid)
        for panel, name in enumerate(names):
            place = {'left': left + panel * (SIDE + GAP), 'top': top, 'width': SIDE, 'height': SIDE}
            note = ''
            if name == 'image':
                sheet.picture(images[index], smooth=True, **place)
            elif name == 'labels':
                cells = palette.paint(regions, label_colours)
                sheet.picture(patches.enlarge(cells, cell), **place)
                _write_legend(
                    sheet,
                    regions,
                    label_colours,
                    concepts,
                    left=place['left'] + SIDE + GAP,
                    top=top,
                )
            else:
                codes = codings[name][index].reshape(grid, grid)
                axes = sheet.picture(patches.enlarge(palette.paint(codes, colours), cell), **place)
                if regions is not None:
                    patches.draw_outlines(axes, regions, cell)
                counts = np.unique(codes, return_counts=True)[1]
                noun = 'code' if counts.size == 1 else 'codes'
                note = f'{counts.size} {noun}, {counts.max() / codes.size:.0%}'
            sheet.text(
                note,
                left=place['left'],
                top=top + SIDE + 0.03,
                size=figure.SMALL_SIZE,
                color=figure.FAINT,
            )
        if lines:
            sheet.text('\n'.join(lines[index]), left=left, top=top + SIDE + under)
    return figure.finish(sheet.figure, path)


def label_name(label: int, concepts: Sequence[str]) -> str:
    """'background', the concept's name, or 'concept 7' where there is no name."""
    if label == 0:
        return 'background'
    return concepts[label - 1] if label <= len(concepts) else f'concept {label - 1}'


def commonest_label(counts: np.ndarray, concepts: Sequence[str]) -> str:
    """'83% sun' of how many patches have each label, int [l]; '' where there are none."""
    if not counts.any():
        return ''
    best = int(counts.argmax())
    return f'{counts[best] / counts.sum():.0%} {label_name(best, concepts)}'


def _label_colours(labels: np.ndarray) -> dict[int, tuple[float, float, float]]:
    objects = labels[labels > 0]
    colours = palette.label_colours(objects) if objects.size else {}
    return {**colours, 0: palette.BACKGROUND}


def _write_legend(sheet, labels, colours, concepts, *, left: float, top: float) -> None:
    """Names of the objects of an image, largest first, each beside a square of its colour."""
    values, counts = np.unique(labels[labels > 0], return_counts=True)
    line = figure.text_height(1, figure.SMALL_SIZE)
    room = int(SIDE / line)
    order = values[np.argsort(-counts, kind='stable')]
    shown = order if order.size <= room else order[: room - 1]
    for place, label in enumerate(shown):
        square = np.array(colours[int(label)])[None, None]
        at = top + place * line
        sheet.picture(square, left=left, top=at + 0.02, width=0.09, height=0.09)
        name = figure.wrap(
            label_name(int(label), concepts),
            width=LEGEND - 0.14,
            size=figure.SMALL_SIZE,
            max_lines=1,
        )
        sheet.text(''.join(name), left=left + 0.14, top=at, size=figure.SMALL_SIZE)
    if shown.size < order.size:
        sheet.text(
            f'and {order.size - shown.size} more',
            left=left + 0.14,
            top=top + shown.size * line,
            size=figure.SMALL_SIZE,
            color=figure.FAINT,
        )
