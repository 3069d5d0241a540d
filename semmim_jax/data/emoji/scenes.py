"""Emoji scenes: the embedded demo corpus. A scene is a pure function of (seed, split, index).

`scene(index)` gives the structure (which objects, where, how large, on what background), `[index]`
the picture, pixel labels and captions made from it. Splits by name; what a held-out split shows
never occurs in train, val or test:

  train, val, test        independent scenes over the first `concepts` concepts
  held_out_concepts       one object of every scene is of the next `held_out_concepts` concepts
  held_out_combinations   two objects of every scene are a pair that is never together elsewhere
  held_out_style          the same concepts in the other drawing style
"""

import dataclasses
import functools
import itertools

import cv2
import numpy as np

from semmim_jax.data.emoji import artwork, captions, layout
from semmim_jax.data.records import Entry, Record

# The position of a name is part of the seed: append, never reorder.
SPLITS = (
    'train',
    'val',
    'test',
    'held_out_concepts',
    'held_out_combinations',
    'held_out_style',
)
BACKGROUNDS = {
    'white': (245, 245, 245),
    'gray': (150, 150, 155),
    'pink': (250, 170, 200),
    'orange': (240, 150, 60),
    'yellow': (245, 225, 110),
    'green': (110, 185, 110),
    'blue': (95, 150, 225),
    'purple': (150, 105, 190),
}
SIZES = ('small', '', 'large')  # '' is a size between that no caption names
MAX_SCENES = 2**27  # a split's share of the image ids, which stay below 2**31
_BACKGROUND_JITTER = 10
_VOCABULARY_SCENES = 2000  # scenes whose captions use every word that captions use


@dataclasses.dataclass(frozen=True)
class SceneObject:
    """One drawn emoji. `box` is x0, y0, x1, y1 in pixels of the canvas, x1 and y1 exclusive."""

    concept: int  # position in the concept table; pixel label - 1
    name: str
    emoji: str
    style: str
    size_word: str  # 'small', 'large' or ''
    box: tuple[int, int, int, int]

    @property
    def centre(self) -> tuple[float, float]:
        """Centre of the box as x, y in pixels."""
        x0, y0, x1, y1 = self.box
        return (x0 + x1) / 2, (y0 + y1) / 2


@dataclasses.dataclass(frozen=True)
class Scene:
    """What a scene shows; objects from back to front. Everything that tasks on it need to know."""

    split: str
    index: int
    canvas: int  # side in pixels
    background: str
    background_rgb: tuple[int, int, int]
    objects: tuple[SceneObject, ...]

    @property
    def image_id(self) -> int:
        """A number for this picture alone among all splits, below 2**31."""
        return SPLITS.index(self.split) * MAX_SCENES + self.index

    def relation(self, a: SceneObject, b: SceneObject) -> str | None:
        """'left of', 'right of', 'above' or 'below': where a is from b, by the axis on which their
        centres differ more; None if they differ by less than 15% of the canvas."""
        dx = a.centre[0] - b.centre[0]
        dy = a.centre[1] - b.centre[1]
        if max(abs(dx), abs(dy)) < 0.15 * self.canvas:
            return None
        if abs(dx) >= abs(dy):
            return 'left of' if dx < 0 else 'right of'
        return 'above' if dy < 0 else 'below'


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmojiScenes:
    """Source of emoji scenes: stateless, random access, picklable. Fields are config keys.

    Sizes are the longer side of an object as a share of the canvas, drawn uniformly from the range
    of its size word. `max_overlap` (share of the smaller of two boxes) and `min_cover` (boxes' area
    as a share of the canvas) are what layouts are drawn for; the nearest of a few tries is kept.

    Raises:
      ValueError: an option out of range, or a split that these options do not have.
      artwork.ArtMissing: the artwork is not installed.
    """

    split: str
    concepts: int
    held_out_concepts: int
    held_out_pairs: float  # share of all pairs of concepts
    min_objects: int
    max_objects: int
    styles: str  # 'openmoji' | 'twemoji' | 'both'
    canvas: int
    small: tuple[float, float]
    medium: tuple[float, float]
    large: tuple[float, float]
    max_overlap: float
    min_cover: float
    train_size: int
    eval_size: int
    seed: int

    def __post_init__(self) -> None:
        for word in ('small', 'medium', 'large'):
            object.__setattr__(self, word, tuple(getattr(self, word)))
        sizes = self.small + self.medium + self.large
        # Share of the sets of max_objects concepts in which no pair is held out.
        free = (1 - self.held_out_pairs) ** (self.max_objects * (self.max_objects - 1) / 2)
        checks = (
            ('split', self.split in SPLITS, f'one of {", ".join(SPLITS)}'),
            ('styles', self.styles in (*artwork.STYLES, 'both'), 'openmoji, twemoji or both'),
            ('min_objects', self.min_objects >= 1, 'at least 1'),
            ('max_objects', self.max_objects >= self.min_objects, 'at least min_objects'),
            ('concepts', self.concepts > 2 * self.max_objects, 'more than twice max_objects'),
            (
                'held_out_pairs',
                0 <= self.held_out_pairs < 1 and free > 0.05,
                'small enough to leave sets of max_objects free',
            ),
            ('large', list(sizes) == sorted(sizes), 'above medium, and medium above small'),
            ('small', sizes[0] * self.canvas >= 4 and sizes[-1] <= 1, '4 pixels to the canvas'),
            ('train_size', 1 <= self.train_size <= MAX_SCENES, f'from 1 to {MAX_SCENES}'),
            ('eval_size', 1 <= self.eval_size <= MAX_SCENES, f'from 1 to {MAX_SCENES}'),
        )
        for key, good, wanted in checks:
            if not good:
                raise ValueError(f'emoji_scenes.{key}={getattr(self, key)!r}: must be {wanted}')
        artwork.concept_table(self.concepts + self.held_out_concepts)
        empty = {
            'held_out_concepts': self.held_out_concepts < 1,
            'held_out_combinations': not self.held_out_pair_list,
            'held_out_style': self.styles == 'both',
        }
        if empty.get(self.split):
            raise ValueError(f'emoji_scenes:{self.split} is empty with these options')

    def __len__(self) -> int:
        return self.train_size if self.split == 'train' else self.eval_size

    def __getitem__(self, index: int) -> Record:
        """Record: image uint8 [s, s, 3], captions, image_id, labels int16 [s, s]."""
        scene = self.scene(index)
        image, labels = self.render(scene)
        return dict(
            image=image,
            labels=labels,
            captions=self._captions(scene),
            image_id=scene.image_id,
        )

    def captions(self, index: int) -> list[str]:
        """The captions of record `index`, without drawing it."""
        return self._captions(self.scene(index))

    def image_id(self, index: int) -> int:
        """The image id of record `index`, without drawing it."""
        return SPLITS.index(self.split) * MAX_SCENES + self._check(index)

    def entry(self, index: int) -> Entry:
        """Record `index` without its picture and labels."""
        return dict(image_id=self.image_id(index), captions=self.captions(index))

    def vocabulary_texts(self) -> list[str]:
        """Texts to make a vocabulary from: every name, and captions enough for all other words."""
        sample = range(min(len(self), _VOCABULARY_SCENES))
        return [*self.concept_names, *(text for i in sample for text in self.captions(i))]

    @property
    def concept_table(self) -> tuple[artwork.Concept, ...]:
        """Concepts by their number, held-out ones last."""
        return artwork.concept_table(self.concepts + self.held_out_concepts)

    attribution = artwork.CREDIT

    def label_names(self, *, min_count: int) -> tuple[str, ...]:
        """None: captions are no labels."""
        del min_count
        return ()

    @property
    def patch_label_names(self) -> tuple[str, ...]:
        """What patch labels 1, 2, ... stand for."""
        return self.concept_names

    @property
    def concept_names(self) -> tuple[str, ...]:
        """Names of the concepts."""
        return tuple(c.name for c in self.concept_table)

    @property
    def held_out_pair_list(self) -> tuple[tuple[int, int], ...]:
        """Pairs (i, j), i < j, of concepts that only `held_out_combinations` shows together."""
        return _held_out_pairs(self.concepts, self.held_out_pairs, self.seed)[0]

    def scene(self, index: int) -> Scene:
        """The structure of scene `index`."""
        return _scene(self, self._check(index))

    def draw_scene(
        self,
        rng: np.random.Generator,
        *,
        index: int,
        background: str | None = None,
        count: int | None = None,
        given: tuple[int, ...] = (),
        without: int | None = None,
    ) -> Scene:
        """Draws a scene of this split; what is given here is not drawn.

        Args:
          rng: all randomness.
          index: of the scene, for its image_id.
          background: one of BACKGROUNDS.
          count: number of objects.
          given: concepts that it shows, at most `count`; none in a held-out split with its own.
          without: a concept that it does not show.
        """
        names = list(BACKGROUNDS)
        background = background or names[rng.integers(len(names))]
        jitter = rng.integers(-_BACKGROUND_JITTER, _BACKGROUND_JITTER + 1, 3)
        rgb = np.clip(np.array(BACKGROUNDS[background]) + jitter, 0, 255).tolist()
        red, green, blue = rgb
        concepts = self._draw_concepts(rng, count, given, without)
        styles = [self._draw_style(rng) for _ in concepts]
        chosen = [self.concept_table[c] for c in concepts]
        sprites = [
            artwork.sprite(concept.emoji, style, self._sprite_side)
            for concept, style in zip(chosen, styles, strict=True)
        ]
        words, boxes = layout.draw_layout(
            [art.shape[:2] for art in sprites],
            rng,
            canvas=self.canvas,
            size_ranges=(self.small, self.medium, self.large),
            max_overlap=self.max_overlap,
            min_cover=self.min_cover,
        )
        objects = [
            SceneObject(index, concept.name, concept.emoji, style, SIZES[word], box)
            for index, concept, style, word, box in zip(
                concepts, chosen, styles, words, boxes, strict=True
            )
        ]
        return Scene(
            split=self.split,
            index=index,
            canvas=self.canvas,
            background=background,
            background_rgb=(red, green, blue),
            objects=tuple(objects[i] for i in rng.permutation(len(objects))),
        )

    def render(self, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
        """Draws a scene, back to front.

        Returns image uint8 [s, s, 3] and labels int16 [s, s]: 1 + concept index of the front-most
        object that covers at least half of the pixel, 0 for background.
        """
        shape = (scene.canvas, scene.canvas)
        image = np.empty((*shape, 3), np.uint8)  # [s, s, 3]
        image[:] = scene.background_rgb
        labels = np.zeros(shape, np.int16)  # [s, s]
        for thing in scene.objects:
            x0, y0, x1, y1 = thing.box
            art = artwork.sprite(thing.emoji, thing.style, self._sprite_side)
            art = cv2.resize(art, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
            alpha = art[..., 3:]
            area = image[y0:y1, x0:x1]
            behind = (area * (255 - alpha.astype(np.uint16)) + 127) // 255
            area[:] = np.minimum(behind + art[..., :3], 255)
            labels[y0:y1, x0:x1][alpha[..., 0] >= 128] = 1 + thing.concept
        return image, labels

    def _captions(self, scene: Scene) -> list[str]:
        key = (self.seed, len(SPLITS) + SPLITS.index(self.split), scene.index)
        return captions.captions(scene, np.random.default_rng(key))

    def _check(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f'emoji_scenes:{self.split} has {len(self)} scenes, not {index}')
        return int(index)

    @property
    def _sprite_side(self) -> int:
        return max(32, round(1.25 * self.large[1] * self.canvas))

    def _draw_style(self, rng: np.random.Generator) -> str:
        if self.styles == 'both':
            return artwork.STYLES[rng.integers(2)]
        first, second = artwork.STYLES
        other = second if self.styles == first else first
        return other if self.split == 'held_out_style' else self.styles

    def _draw_concepts(
        self,
        rng: np.random.Generator,
        count: int | None,
        given: tuple[int, ...],
        without: int | None,
    ) -> list[int]:
        """Distinct concepts; redrawn until the only held-out thing is what the split is about."""
        count = count or int(rng.integers(self.min_objects, self.max_objects + 1))
        if self.split == 'held_out_concepts':
            given = (self.concepts + int(rng.integers(self.held_out_concepts)),)
        elif self.split == 'held_out_combinations':
            given = self.held_out_pair_list[rng.integers(len(self.held_out_pair_list))]
        _, held_out = _held_out_pairs(self.concepts, self.held_out_pairs, self.seed)
        while True:
            drawn = rng.choice(self.concepts, max(0, count - len(given)), replace=False)
            chosen = [*given, *(int(c) for c in drawn)]
            pairs = itertools.combinations(sorted(chosen), 2)
            distinct = len(set(chosen)) == len(chosen) and without not in chosen
            if distinct and all(pair not in held_out or pair == given for pair in pairs):
                return chosen


@functools.lru_cache(maxsize=1024)  # captions are read again, and sets by several evaluators
def _scene(source: EmojiScenes, index: int) -> Scene:
    rng = np.random.default_rng((source.seed, SPLITS.index(source.split), index))
    return source.draw_scene(rng, index=index)


@functools.lru_cache(maxsize=16)
def _held_out_pairs(
    concepts: int, share: float, seed: int
) -> tuple[tuple[tuple[int, int], ...], frozenset[tuple[int, int]]]:
    """The held-out pairs in order, and as a set."""
    pairs = list(itertools.combinations(range(concepts), 2))
    rng = np.random.default_rng((seed, 2 * len(SPLITS)))
    chosen = rng.choice(len(pairs), round(share * len(pairs)), replace=False)
    held_out = tuple(pairs[i] for i in sorted(chosen))
    return held_out, frozenset(held_out)
