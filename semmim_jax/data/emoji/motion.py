"""Motions of emoji videos (docs/method.md section 9): each is a phase that goes round a circle.

Frame i of 16 has the phase start + 48 i, or start - 48 i, of a circle of 960: three quarters of a
turn in a clip. What a frame shows of an object depends on its phase alone, so that a clip in
reversed time is the clip of the opposite motion, and no single frame tells the direction.
"""

import dataclasses
import functools
import math

import cv2
import numpy as np

from semmim_jax.data.emoji import artwork

FRAMES = 16
CIRCLE = 960
STEP = 48
TWINNED = ('across', 'along', 'turn', 'scale')  # motions that have a direction
KINDS = (*TWINNED, 'blink', 'still')
_SMALLEST = 0.5  # of an object that grows or shrinks, as a share of its largest side
_LEAST_TURN = 12.0  # mean difference of levels, of 255, by which a quarter turn is seen


@dataclasses.dataclass(frozen=True)
class Motion:
    """How one object moves (docs/method.md section 9).

    `direction` is 1 for right, down, clockwise and growing, -1 for their opposites; `start` is the
    phase of the first frame, 0 to 959.
    """

    kind: str
    direction: int
    start: int

    def phase(self, frame: int) -> int:
        """Of a frame, 0 to 959."""
        return (self.start + STEP * self.direction * frame) % CIRCLE

    def reversed(self) -> 'Motion':
        """The motion in reversed time."""
        return Motion(self.kind, -self.direction, self.phase(FRAMES - 1))


@functools.lru_cache(maxsize=4096)
def turn_is_seen(emoji: str, style: str) -> bool:
    """Whether turns of an object can be told: no quarter or half turn leaves it as it was."""
    art = artwork.sprite(emoji, style, 32).astype(np.float32)
    upright = _turned(art, 0.0)
    drawn = upright[..., 3] > 0
    differences = []
    for quarter in (1, 2, 3):
        turned = np.rot90(upright, quarter)
        either = drawn | (turned[..., 3] > 0)
        differences.append(float(np.abs(upright - turned)[either].mean()))
    return min(differences) >= _LEAST_TURN


def draw_moving(
    image: np.ndarray, art: np.ndarray, box: tuple[int, int, int, int], *, kind: str, phase: int
) -> None:
    """Draws an object at a phase of its motion.

    Args:
      image: uint8 [s, s, 3], drawn upon.
      art: of the object, uint8 [h, w, 4], premultiplied, the size of the box.
      box: x0, y0, x1, y1, where it is at phase 0; of a growing object at its largest.
      kind: one of KINDS.
      phase: 0 to 959.
    """
    x0, y0, x1, y1 = box
    canvas, moved = len(image), phase * len(image) // CIRCLE
    if kind == 'across':
        for wrap in (0, -canvas):  # what leaves one edge enters at the other
            _paste(image, art, x0 + moved + wrap, y0)
        return
    if kind == 'along':
        for wrap in (0, -canvas):
            _paste(image, art, x0, y0 + moved + wrap)
        return
    if kind == 'blink' and phase >= CIRCLE // 2:
        return
    if kind == 'turn':
        art = _turned(art, 360 * phase / CIRCLE)
    elif kind == 'scale':
        share = _SMALLEST ** (1 - phase / CIRCLE)
        size = (max(1, round(share * (x1 - x0))), max(1, round(share * (y1 - y0))))
        art = cv2.resize(art, size, interpolation=cv2.INTER_AREA)
    height, width = art.shape[:2]
    _paste(image, art, (x0 + x1 - width) // 2, (y0 + y1 - height) // 2)


def _turned(art: np.ndarray, degrees: float) -> np.ndarray:
    """The art turned clockwise about its centre, on a square that holds it at any angle."""
    height, width = art.shape[:2]
    side = math.ceil(math.hypot(height, width))
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -degrees, 1)
    matrix[:, 2] += (side - width) / 2, (side - height) / 2
    return cv2.warpAffine(art, matrix, (side, side), flags=cv2.INTER_LINEAR)  # [side, side, 4]


def _paste(image: np.ndarray, art: np.ndarray, x: int, y: int) -> None:
    """Lays premultiplied art [h, w, 4] over the image, cut at its edges."""
    height, width = art.shape[:2]
    top, left = max(0, y), max(0, x)
    area = image[top : max(top, y + height), left : max(left, x + width)]
    art = art[top - y :, left - x :][: area.shape[0], : area.shape[1]]
    behind = (area * (255 - art[..., 3:].astype(np.uint16)) + 127) // 255
    area[:] = np.minimum(behind + art[..., :3], 255)
