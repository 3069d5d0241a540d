"""Where the objects of a scene go, and how large they are."""

import numpy as np

_LAYOUTS = 20  # layouts tried before the nearest to what is asked is kept
_POSITIONS = 24  # positions tried for one object of a layout

Box = tuple[int, int, int, int]  # x0, y0, x1, y1; x1 and y1 exclusive


def draw_layout(
    shapes: list[tuple[int, int]],
    rng: np.random.Generator,
    *,
    canvas: int,
    size_ranges: tuple[tuple[float, float], ...],
    max_overlap: float,
    min_cover: float,
) -> tuple[list[int], list[Box]]:
    """Draws sizes and positions until a layout is dense enough without too much overlap.

    Args:
      shapes: (height, width) of each object, in any unit.
      rng: all randomness.
      canvas: side of the square canvas in pixels.
      size_ranges: ranges of the longer side as a share of the canvas; one is drawn per object.
      max_overlap: wanted largest share of the smaller of two boxes that they have in common.
      min_cover: wanted sum of the boxes' areas as a share of the canvas.

    Returns for each object the number of its size range, and its box. If no layout of a fixed
    number meets both wishes, the one that misses them least.
    """
    best: tuple[list[int], list[Box]] | None = None
    best_miss = np.inf
    for _ in range(_LAYOUTS):
        ranges = rng.integers(len(size_ranges), size=len(shapes)).tolist()
        shares = rng.random(len(shapes)).tolist()
        sides = []
        for (height, width), number, share in zip(shapes, ranges, shares, strict=True):
            low, high = size_ranges[number]
            scale = round((low + share * (high - low)) * canvas) / max(height, width)
            sides.append((max(1, round(width * scale)), max(1, round(height * scale))))
        cover = sum(width * height for width, height in sides) / canvas**2
        miss = max(0.0, min_cover - cover)
        if miss >= best_miss:
            continue
        boxes, overlap = _place(sides, rng, canvas=canvas, limit=max_overlap)
        miss += max(0.0, overlap - max_overlap)
        if miss < best_miss:
            best, best_miss = (ranges, boxes), miss
        if not miss:
            break
    assert best is not None  # the first layout misses by less than infinity
    return best


def overlap_share(a: Box, b: Box) -> float:
    """Area that two boxes have in common, as a share of the smaller one."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return width * height / smaller


def _place(
    sides: list[tuple[int, int]], rng: np.random.Generator, *, canvas: int, limit: float
) -> tuple[list[Box], float]:
    """Boxes of the given (width, height) and their worst overlap; the largest is placed first."""
    boxes: dict[int, Box] = {}
    worst = 0.0
    for i in sorted(range(len(sides)), key=lambda i: -sides[i][0] * sides[i][1]):
        width, height = sides[i]
        best: Box | None = None
        least = np.inf
        # Arcsine-distributed: more often near an edge, where larger objects fit side by side.
        for u, v in (0.5 - 0.5 * np.cos(np.pi * rng.random((_POSITIONS, 2)))).tolist():
            x, y = int(u * (canvas - width + 1)), int(v * (canvas - height + 1))
            box = (x, y, x + width, y + height)
            overlap = max((overlap_share(box, other) for other in boxes.values()), default=0.0)
            if overlap < least:
                best, least = box, overlap
            if overlap <= limit:
                break
        assert best is not None  # the first position overlaps by less than infinity
        boxes[i] = best
        worst = max(worst, least)
    return [boxes[i] for i in range(len(sides))], worst
