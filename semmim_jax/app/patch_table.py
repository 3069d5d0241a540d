"""Patches of a folder of pictures: pattern codes and features, in bounded memory.

Held are, of each of i pictures with n patches, the codes [i, n] and the features in half precision
[i, n, d]; pixels are read again for the few patches that are shown. Where a folder is larger than
the memory that it may take, pictures evenly spread over it are read.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import tqdm

from semmim_jax.data.images import read_image
from semmim_jax.data.unreadable import UnreadableRecord
from semmim_jax.evaluators.pattern_words import WordOdds, caption_reader, pattern_words

if TYPE_CHECKING:  # with JAX, which takes seconds
    from semmim_jax.inference.model import Model
    from semmim_jax.inference.outputs import Patches

_BLOCK = 64  # pictures whose patches are compared at a time


class Place(NamedTuple):
    """A patch of the table: its picture, its patch, and the cosine by which it was found."""

    image: int
    patch: int
    cosine: float


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PatchTable:
    """See the module.

    Attributes:
      paths: of the pictures, below their folder.
      codes: uint16 [i, n], read with captions where there are captions.
      features: float16 [i, n, d], unit vectors.
      words: of each picture's caption; empty where there are no captions.
      of: how many pictures the folder has.
    """

    paths: tuple[str, ...]
    codes: np.ndarray
    features: np.ndarray
    words: tuple[frozenset[str], ...]
    of: int

    def cluster(self, code: int, *, count: int) -> list[Place]:
        """The patches of a code that are nearest to the mean of all of them, one a picture."""
        total = np.zeros(self.features.shape[2], np.float64)
        for start in range(0, len(self.paths), _BLOCK):
            part = slice(start, start + _BLOCK)
            total += self.features[part][self.codes[part] == code].sum(axis=0, dtype=np.float64)
        return self._nearest(unit(total), count=count, code=code)

    def neighbours(self, feature: np.ndarray, *, count: int, besides: str = '') -> list[Place]:
        """The patches nearest to a feature [d], whatever their code, one a picture.

        `besides` is the path of a picture that does not count, the one that is looked at.
        """
        return self._nearest(unit(feature), count=count, besides=besides)

    def words_of(self, code: int, *, count: int) -> list[WordOdds]:
        """Words over-represented in captions of pictures that show a code (`pattern_words`)."""
        pairs = zip(self.codes, self.words, strict=False)
        return pattern_words(
            ((set(codes.tolist()), set(words)) for codes, words in pairs), [code], count=count
        )[code]

    def patches_of(self, code: int) -> tuple[int, int]:
        """How many patches have a code, and in how many pictures."""
        has = self.codes == code
        return int(has.sum()), int(has.any(axis=1).sum())

    def _nearest(
        self, query: np.ndarray, *, count: int, code: int | None = None, besides: str = ''
    ) -> list[Place]:
        best, patch = np.full(len(self.paths), -np.inf), np.zeros(len(self.paths), int)
        for start in range(0, len(self.paths), _BLOCK):
            part = slice(start, start + _BLOCK)
            cosines = self.features[part].astype(np.float32) @ query.astype(np.float32)
            if code is not None:
                cosines = np.where(self.codes[part] == code, cosines, -np.inf)
            patch[part] = cosines.argmax(axis=1)
            best[part] = cosines.max(axis=1)
        if besides in self.paths:
            best[self.paths.index(besides)] = -np.inf
        order = np.argsort(-best, kind='stable')[:count]
        return [Place(int(i), int(patch[i]), float(best[i])) for i in order if best[i] > -np.inf]


def unit(x: np.ndarray) -> np.ndarray:
    """Vectors at unit length; zeros stay zeros. [..., d]"""
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    return x / np.where(length > 0, length, 1)


def codes_of(patches: 'Patches') -> np.ndarray | None:
    """Codes with the text where one was read. [i, n]"""
    return patches.codes if patches.codes_with_text is None else patches.codes_with_text


def read_patches(
    model: 'Model',
    folder: pathlib.Path,
    paths: Sequence[str],
    *,
    captions: Mapping[str, str],
    max_bytes: int,
) -> PatchTable:
    """Reads pictures of a folder once, with a progress line; those that fail are named.

    Args:
      model: of a run whose patches have codes.
      folder: of the pictures.
      paths: of the pictures, below it.
      captions: path -> caption. Where any are given, pictures without one are left out: codes that
        were read with and without words cannot be compared.
      max_bytes: that the table may take.

    Raises:
      ValueError: patches have no codes, there is no picture, or the limit is below one picture.
    """
    data = model.config.data
    n, d = (data.image_size // data.patch_size) ** 2, model.config.model.image.width
    paths = [path for path in paths if path in captions] if captions else list(paths)
    if not paths:
        raise ValueError('the list of captions names no picture of the folder')
    limit = min(len(paths), max_bytes // (n * (2 * d + 2)))
    if not limit:
        raise ValueError(f'{max_bytes / 2**20:.1f} MiB hold the patches of no picture')
    spread = [paths[i] for i in np.linspace(0, len(paths) - 1, limit).round().astype(int)]
    codes, features = np.zeros((limit, n), np.uint16), np.zeros((limit, n, d), np.float16)
    kept: list[str] = []
    with tqdm.tqdm(total=limit, unit='picture', desc='patterns', disable=None) as bar:
        for names, pixels in _batches(model, folder, spread):
            found = _encode(model, names, pixels, captions)
            part = slice(len(kept), len(kept) + len(names))
            codes[part], features[part] = codes_of(found), unit(found.features)
            kept += names
            bar.update(len(names))
    read = caption_reader(model.tokenizer, model.lexicon, max_tokens=data.max_tokens)
    return PatchTable(
        paths=tuple(kept),
        codes=codes[: len(kept)],
        features=features[: len(kept)],
        words=tuple(frozenset(read(captions[path])) for path in kept) if captions else (),
        of=len(paths),
    )


def _encode(
    model: 'Model', names: Sequence[str], pixels: list[np.ndarray], captions: Mapping[str, str]
) -> 'Patches':
    found = model.encode_patches(pixels, [captions[name] for name in names] if captions else None)
    if codes_of(found) is None:
        raise ValueError('the patches of this run have no codes: its task.mim.target is none')
    return found


def _batches(
    model: 'Model', folder: pathlib.Path, paths: Sequence[str]
) -> Iterator[tuple[list[str], list[np.ndarray]]]:
    """Names and pixels of pictures that can be read, `model.batch_size` at a time."""
    data = model.config.data
    for start in range(0, len(paths), model.batch_size):
        names, pixels = [], []
        for path in paths[start : start + model.batch_size]:
            try:
                options = dict(decoder=data.decoder, max_pixels=data.max_pixels)
                image = read_image(folder / path, **options)
            except UnreadableRecord as error:
                tqdm.tqdm.write(f'left out: {error}', file=sys.stderr)
                continue
            names.append(path)
            pixels.append(image)
        if names:
            yield names, pixels
