"""The source 'tar:GLOB': tars of img2dataset or WebDataset, read where they are.

The first opening reads the headers of all tars and writes an index (tar_index.py); later ones map
it, so that time and memory do not depend on the number of samples. For more than a look at a data
set prepare shards: their images are checked, scaled and upright, and have a digest.
"""

import glob
import json
import os
from typing import Any

import numpy as np

from semmim_jax.data import images
from semmim_jax.data.json_files import shown
from semmim_jax.data.records import Entry, Record
from semmim_jax.data.stored import StoredSource
from semmim_jax.data.tar_index import MAX_BYTES, TarIndex, first_samples, open_index
from semmim_jax.data.text import clean_caption
from semmim_jax.data.unreadable import UnreadableRecord


class TarSource(StoredSource):
    """Source over the samples of tars: stateless, random access, picklable.

    A record has one image and one caption, of KEY.txt or else of KEY.json. Its image id is its
    number. A sample that lacks an image or texts is none.

    Args:
      pattern: of the tars, by shell rules; ** is any folders.
      text: key of the caption in KEY.json.
      cache: folder of indices, see open_index.
      decoder, max_pixels: see images.read_image.

    Raises:
      ValueError: no file matches, or what open_index raises.
    """

    def __init__(self, pattern: str, *, text: str, cache: str, decoder: str, max_pixels: int):
        images.check_decoder(decoder)
        paths = sorted(glob.glob(pattern, recursive=True))
        if not paths:
            raise ValueError(f'tar:{pattern}: no file matches')
        self._text, self._decoder, self._max_pixels = text, decoder, max_pixels
        self._cache = cache
        self._start(open_index(paths, cache=cache))
        if self._first[-1] > 2**31:
            raise ValueError(f'tar:{pattern}: more than 2**31 samples')
        self.name = f'tar:{pattern}'
        self.id_bound = len(self)
        self.digest = self._index.digest

    def _start(self, index: TarIndex) -> None:
        self._index, self._first = index, first_samples(index)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state['_first']
        state['_index'] = [tar.path for tar in self._index.tars]  # a mapped file would be copied
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start(open_index(state['_index'], cache=self._cache))

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getitem__(self, index: int) -> Record:
        """entry(index) with its `image` uint8 [h, w, 3].

        Raises:
          UnreadableRecord: no caption, or a damaged image.
          ValueError: a tar is missing or was changed.
        """
        image, text, data = self._members(index, ('image', 'text', 'data'))
        entry = self._entry(index, text, data)
        try:
            pixels = images.decode_image(image, decoder=self._decoder, max_pixels=self._max_pixels)
        except UnreadableRecord as e:
            raise UnreadableRecord(f'{self._where(index)}: {e}') from None
        return {'image': pixels, **entry}

    def entry(self, index: int) -> Entry:
        """Record `index` without its image."""
        return self._entry(index, *self._members(index, ('text', 'data')))

    def image_id(self, index: int) -> int:
        """The number of the record."""
        self._find(index)
        return int(index)

    def in_digest(self, index: int) -> bool:
        """No: the digest is of places and sizes."""
        del index
        return False

    def check_files(self) -> None:
        """Raises ValueError for the first tar that is missing or was changed."""
        self._index.check()

    def _find(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f'sample {index} of {len(self)}')
        return int(np.searchsorted(self._first, index, side='right')) - 1

    def _where(self, index: int) -> str:
        tar = self._find(index)
        at = int(self._index.places[index]['image_at'])
        return f'{shown(self._index.tars[tar].path)}, image at byte {at}'

    def _members(self, index: int, names: tuple[str, ...]) -> list[bytes]:
        """Bytes of some members of a sample; b'' of those that it does not have."""
        number = self._find(index)
        place = self._index.places[index]
        path = self._index.tars[number].path
        found = []
        try:
            with open(path, 'rb') as file:
                self._index.check_tar(number, os.fstat(file.fileno()))
                for name in names:
                    size = int(place[f'{name}_bytes'])
                    if size > MAX_BYTES:
                        raise ValueError(f'{self._index.path}: is damaged; delete it')
                    data = os.pread(file.fileno(), size, int(place[f'{name}_at'])) if size else b''
                    if len(data) != size:
                        raise ValueError(f'{self._index.path}: is damaged; delete it')
                    found.append(data)
        except OSError as e:
            raise ValueError(f'{path}: {e.strerror}') from None
        return found

    def _entry(self, index: int, text: bytes, data: bytes) -> Entry:
        try:
            caption: object = text.decode()
            if not text and data:
                value = json.loads(data.decode())
                caption = value.get(self._text) if isinstance(value, dict) else None
        except UnicodeDecodeError:
            raise UnreadableRecord(f'{self._where(index)}: bad utf-8') from None
        except (ValueError, RecursionError):
            raise UnreadableRecord(f'{self._where(index)}: malformed entry') from None
        if not isinstance(caption, str) or not clean_caption(caption, max_words=1):
            raise UnreadableRecord(f'{self._where(index)}: no caption')
        if any('\ud800' <= letter <= '\udfff' for letter in caption):  # half of one, by an escape
            raise UnreadableRecord(f'{self._where(index)}: bad text')
        return {'image_id': int(index), 'captions': [' '.join(caption.split())]}
