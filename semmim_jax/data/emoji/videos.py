"""Emoji videos: one or two objects of which at least one moves in a direction.

Videos 2k and 2k + 1 are twins: the same clip forwards and backwards. Splits, concepts and styles
are those of emoji scenes (scenes.py); docs/method.md section 9 has the laws.
"""

import dataclasses
import functools
import zlib

import cv2
import numpy as np

from semmim_jax.data.emoji import artwork, motion_captions
from semmim_jax.data.emoji.motion import (
    CIRCLE,
    FRAMES,
    KINDS,
    TWINNED,
    Motion,
    draw_moving,
    turn_is_seen,
)
from semmim_jax.data.emoji.scenes import SPLITS, EmojiScenes, Scene
from semmim_jax.data.records import Entry, Record

_NAME = b'emoji_videos'  # part of the seed
_ATTEMPTS = 1000  # at a pair whose captions no earlier pair has
# Objects are small enough to pass each other, whatever emoji_scenes says of sizes.
_SMALL, _MEDIUM, _LARGE = (0.42, 0.46), (0.46, 0.52), (0.52, 0.58)
_VOCABULARY_VIDEOS = 2000  # whose captions use every word that captions use


@dataclasses.dataclass(frozen=True)
class Video:
    """What a video shows: a scene, and the motion of each of its objects."""

    scene: Scene
    motions: tuple[Motion, ...]

    def reversed(self) -> 'Video':
        """The video in reversed time."""
        return Video(self.scene, tuple(motion.reversed() for motion in self.motions))

    @property
    def told(self) -> tuple[motion_captions.Moving, ...]:
        """Names and motions, from back to front."""
        names = (thing.name for thing in self.scene.objects)
        return tuple(zip(names, self.motions, strict=True))


class EmojiVideos:
    """Source of emoji videos: stateless, random access, picklable.

    In training a video has five captions, in other splits one, which no other of the split has.

    Args:
      scenes: whose split, concepts, styles, canvas, sizes of splits and seed are taken.

    Raises:
      ValueError: a split of an odd number, since videos come in pairs.
    """

    attribution = artwork.CREDIT
    patch_label_names: tuple[str, ...] = ()
    is_video = True
    twins = True  # record i ^ 1 is record i in reversed time

    def __init__(self, scenes: EmojiScenes):
        if len(scenes) % 2:
            key = 'train_size' if scenes.split == 'train' else 'eval_size'
            raise ValueError(f'emoji_scenes.{key}={len(scenes)}: videos come in pairs, so even')
        self.scenes = dataclasses.replace(
            scenes,
            min_objects=1,
            max_objects=2,
            small=_SMALL,
            medium=_MEDIUM,
            large=_LARGE,
            max_overlap=0.1,
            min_cover=0.0,
        )

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> Record:
        """entry(index) with `frames`, uint8 [16, s, s, 3]."""
        return {'frames': self.render(self.video(index)), **self.entry(index)}

    def entry(self, index: int) -> Entry:
        """Record `index` without its frames."""
        return {'image_id': self.image_id(index), 'captions': self.captions(index)}

    def image_id(self, index: int) -> int:
        """The id of video `index`, another for its twin."""
        return self.scenes.image_id(index)

    def captions(self, index: int) -> list[str]:
        """The captions of video `index`, without drawing it."""
        video = self.video(index)
        rng = self._rng(index // 2, len(KINDS))
        told = [video.told[i] for i in rng.permutation(len(video.told))]
        if self.scenes.split != 'train':
            return [motion_captions.full_caption(told, video.scene.background)]
        return list(motion_captions.captions(told, video.scene.background, rng))

    def video(self, index: int) -> Video:
        """The structure of video `index`."""
        self.scenes.image_id(index)  # raises IndexError
        pair, backwards = divmod(int(index), 2)
        attempt = 0 if self.scenes.split == 'train' else _attempts(self.scenes)[pair]
        video = self._draw(pair, attempt)
        return video.reversed() if backwards else video

    def render(self, video: Video) -> np.ndarray:
        """The frames of a video, uint8 [16, s, s, 3], objects from back to front."""
        scene = video.scene
        frames = np.empty((FRAMES, scene.canvas, scene.canvas, 3), np.uint8)
        frames[:] = scene.background_rgb
        side = max(32, round(1.25 * _LARGE[1] * scene.canvas))
        for thing, motion in zip(scene.objects, video.motions, strict=True):
            x0, y0, x1, y1 = thing.box
            art = artwork.sprite(thing.emoji, thing.style, side)
            art = cv2.resize(art, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
            for number, frame in enumerate(frames):
                phase = motion.phase(number)
                draw_moving(frame, art, thing.box, kind=motion.kind, phase=phase)
        return frames

    def vocabulary_texts(self) -> list[str]:
        """Texts to make a vocabulary from: every name, and captions enough for all other words."""
        sample = range(min(len(self), _VOCABULARY_VIDEOS))
        return [*self.scenes.concept_names, *(text for i in sample for text in self.captions(i))]

    def label_names(self, *, min_count: int) -> tuple[str, ...]:
        """None: captions are no labels."""
        del min_count
        return ()

    def _rng(self, *numbers: int) -> np.random.Generator:
        key = (self.scenes.seed, SPLITS.index(self.scenes.split), zlib.crc32(_NAME), *numbers)
        return np.random.default_rng(key)

    def _draw(self, pair: int, attempt: int) -> Video:
        """The first video of a pair: one object has a direction, the other any motion."""
        rng = self._rng(pair, attempt, len(KINDS) + 1)
        count = 2 if self.scenes.split == 'held_out_combinations' else int(rng.integers(1, 3))
        scene = self.scenes.draw_scene(rng, index=2 * pair, count=count)
        directed = rng.integers(count)
        motions = []
        for number, thing in enumerate(scene.objects):
            kinds: tuple[str, ...] = TWINNED if number == directed else KINDS
            if not turn_is_seen(thing.emoji, thing.style):
                kinds = tuple(kind for kind in kinds if kind != 'turn')
            kind = kinds[rng.integers(len(kinds))]
            direction, start = 2 * int(rng.integers(2)) - 1, int(rng.integers(CIRCLE))
            motions.append(Motion(kind, direction, start))
        return Video(scene, tuple(motions))


@functools.lru_cache(maxsize=16)
def _attempts(scenes: EmojiScenes) -> tuple[int, ...]:
    """For each pair of a split which draw of it is the first with captions of its own."""
    source, attempts = EmojiVideos(scenes), list[int]()
    seen: set[str] = set()
    for pair in range(len(source) // 2):
        for attempt in range(_ATTEMPTS):
            video = source._draw(pair, attempt)
            both = {_meaning(video), _meaning(video.reversed())}
            if not both & seen:
                break
        else:
            raise ValueError(
                f'emoji_scenes.eval_size={len(source)}: there are not as many different captions'
            )
        seen |= both
        attempts.append(attempt)
    return tuple(attempts)


def _meaning(video: Video) -> str:
    """The full caption, whatever the order of its objects."""
    told = sorted(video.told, key=lambda thing: thing[0])
    return motion_captions.full_caption(told, video.scene.background)
