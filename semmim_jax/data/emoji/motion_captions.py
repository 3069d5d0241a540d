"""True captions of an emoji video. Those of a video and its reverse differ in direction words."""

from collections.abc import Sequence

import numpy as np

from semmim_jax.data.emoji.captions import with_article
from semmim_jax.data.emoji.motion import TWINNED, Motion

_VERBS = {  # kind -> in direction 1 and -1
    'across': ('moves right', 'moves left'),
    'along': ('moves down', 'moves up'),
    'turn': ('turns clockwise', 'turns counterclockwise'),
    'scale': ('grows', 'shrinks'),
    'blink': ('blinks', 'blinks'),
    'still': ('stays still', 'stays still'),
}
_TERSE = {
    'across': ('right', 'left'),
    'along': ('down', 'up'),
    'turn': ('clockwise', 'counterclockwise'),
    'scale': ('growing', 'shrinking'),
    'blink': ('blinking', 'blinking'),
    'still': ('still', 'still'),
}

Moving = tuple[str, Motion]  # name of an object, and its motion


def full_caption(objects: Sequence[Moving], background: str) -> str:
    """'a cat moves up while a dog shrinks on a blue background': every object and its motion."""
    told = ' while '.join(_sentence(*thing) for thing in objects)
    return f'{told} on {with_article(f"{background} background")}'


def captions(
    objects: Sequence[Moving], background: str, rng: np.random.Generator
) -> tuple[str, ...]:
    """Five captions; `rng` chooses the wording, in a way that does not depend on directions.

    A motion; a motion and the background; `full_caption`; names; all in a few words. See
    docs/method.md section 9.
    """
    twinned = [thing for thing in objects if thing[1].kind in TWINNED]
    one, other = (twinned[rng.integers(len(twinned))] for _ in range(2))
    on = f'on {background}', f'on {with_article(f"{background} background")}'
    names = ' and '.join(with_article(name) for name, _ in objects)
    terse = ', '.join(f'{name} {_told(_TERSE, motion)}' for name, motion in objects)
    return (
        _sentence(*one),
        f'{_sentence(*other)} {on[rng.integers(2)]}',
        full_caption(objects, background),
        ('{}', 'there is {}', 'a video of {}')[rng.integers(3)].format(names),
        f'{terse}, {background} background',
    )


def _sentence(name: str, motion: Motion) -> str:
    subject = with_article(name)
    verb, _, where = _told(_VERBS, motion).partition(' ')
    if subject == name:  # a plural
        verb = verb.removesuffix('s')
    return f'{subject} {verb} {where}'.strip()


def _told(words: dict[str, tuple[str, str]], motion: Motion) -> str:
    forth, back = words[motion.kind]
    return forth if motion.direction > 0 else back
