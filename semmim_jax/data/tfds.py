"""The source 'tfds:DIR:SPLIT': a data set of tensorflow-datasets, read without TensorFlow.

DIR is .../NAME[/CONFIG]/VERSION with dataset_info.json and features.json, of the file format
array_record; SPLIT may be a slice, train[:50%]. Records are read here (record_files.py) and parsed
by the package, which is imported when such a source is opened. Not by its name: that would import
the data set's own module, which needs TensorFlow. Images are taken as they are stored.
"""

import hashlib
import re
from typing import Any, NamedTuple, cast

import numpy as np

from semmim_jax.data import images
from semmim_jax.data.json_files import shown
from semmim_jax.data.record_files import RecordFiles
from semmim_jax.data.records import Entry, Record
from semmim_jax.data.stored import StoredSource
from semmim_jax.data.text import clean_caption
from semmim_jax.data.tfds_folders import check_folder, open_split
from semmim_jax.data.unreadable import UnreadableRecord

_SLICED = r'[\w.-]+(?:\[[^\[\]]*\])?'
_FORM = re.compile(rf'(.+):({_SLICED}(?:\+{_SLICED})*)')
_TEXTS = ('captions/text', 'captions', 'caption', 'text')  # looked for in this order


class Stored(NamedTuple):
    """A record as it is stored: encoded images, and texts as bytes, or the name of a label."""

    images: list[bytes]
    texts: list[bytes]
    label: str | None
    source_id: int | None


class TfdsSource(StoredSource):
    """Source over a split: stateless, random access, picklable.

    A record has one image, or a sequence of two, and captions, or the label of a ClassLabel. Its
    image id is its number in the split.

    Args:
      argument: DIR:SPLIT.
      image, text: features; '' for the one that there is, see docs/shards.md. 'captions/text' is
        text of the sequence captions.
      decoder, max_pixels: see images.read_image.
      index: see RecordFiles.

    Raises:
      ValueError: one line, for what cannot be read without TensorFlow or without foreign code, and
        for an unknown split or feature.
    """

    def __init__(
        self,
        argument: str,
        *,
        image: str,
        text: str,
        decoder: str,
        max_pixels: int,
        index: str,
    ):
        images.check_decoder(decoder)
        self._arguments: dict[str, Any] = dict(
            image=image, text=text, decoder=decoder, max_pixels=max_pixels, index=index
        )
        self._argument, self._decoder, self._max_pixels = argument, decoder, max_pixels
        form = _FORM.fullmatch(argument)
        if form is None:
            raise ValueError(f'tfds:{argument}: the form is tfds:DIR:SPLIT, SPLIT as train[:50%]')
        directory, split = form.groups()
        described = check_folder(directory)
        features, spans = open_split(directory, split)
        self._features = features
        self._image = _image_feature(features, image, directory)
        self._text = _text_feature(features, text, directory)
        self._decoders = {name: _as_stored() for name in _named(features, 'Image')}
        self._skips = [span.skip for span in spans]
        self._first = np.cumsum([0, *(span.take for span in spans)])
        self._files = RecordFiles(
            [str(span.filename) for span in spans],
            [span.examples_in_shard for span in spans],
            sizes=None,
            index=index,
        )
        self.name = f'tfds:{argument}'
        whole = '\n'.join([*described, split, self._image, self._text])
        self.digest = hashlib.sha256(whole.encode()).hexdigest()
        self.id_bound = len(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self._argument, self._arguments)

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getitem__(self, index: int) -> Record:
        """entry(index) with its `image` uint8 [h, w, 3], or `images`, a list of two.

        Raises:
          UnreadableRecord: the record is damaged, or an image of it.
          ValueError: a file is missing, or has other records than the data set says.
        """
        example = self._example(index)
        entry = self._entry(index, example)
        try:
            pixels = [
                images.decode_image(data, decoder=self._decoder, max_pixels=self._max_pixels)
                for data in _as_list(example[self._image])
            ]
        except UnreadableRecord as e:
            raise UnreadableRecord(f'{self._where(index)}: {e}') from None
        if len(pixels) not in (1, 2):
            raise UnreadableRecord(f'{self._where(index)}: {len(pixels)} images')
        if len(pixels) == 1:
            return {'image': pixels[0], **entry}
        return {'images': pixels, **entry}

    def entry(self, index: int) -> Entry:
        """Record `index` without its images."""
        return self._entry(index, self._example(index))

    def stored(self, index: int) -> Stored:
        """Record `index` as it is stored. Raises UnreadableRecord where it is damaged."""
        example = self._example(index)
        label = self._label(example)
        number = example.get('image/id')
        return Stored(
            images=_as_list(example[self._image]),
            texts=[] if label is not None else _texts(example, self._text),
            label=label,
            source_id=int(number) if isinstance(number, int | np.integer) else None,
        )

    @property
    def files(self) -> list[str]:
        """Files of the split."""
        return [self._files.path(number) for number in range(len(self._skips))]

    def image_id(self, index: int) -> int:
        """The number of the record."""
        self._find(index)
        return int(index)

    def in_digest(self, index: int) -> bool:
        """No: the digest is of what describes the data set, which has no digests of its files."""
        del index
        return False

    def check_files(self) -> None:
        """Raises ValueError for the first file that is not there."""
        self._files.check()

    def _find(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f'record {index} of {len(self)}')
        span = int(np.searchsorted(self._first, index, side='right')) - 1
        return span, int(index - self._first[span]) + self._skips[span]

    def _where(self, index: int) -> str:
        file, record = self._find(index)
        return f'{self._files.path(file)}, record {record}'

    def _example(self, index: int) -> dict[str, Any]:
        try:
            data = self._files.read(*self._find(index))
        except UnreadableRecord as e:
            raise UnreadableRecord(f'{self._where(index)}: {e}') from None
        try:
            example = self._features.deserialize_example_np(data, decoders=self._decoders)
        except Exception as e:  # of a parser of foreign bytes
            raise UnreadableRecord(
                f'{self._where(index)}: not an example: {" ".join(str(e).split()):.100}'
            ) from None
        return cast(dict[str, Any], example)

    def _entry(self, index: int, example: dict[str, Any]) -> Entry:
        label = self._label(example)
        if label is not None:
            return {'image_id': int(index), 'prompt': '', 'label': label}
        captions = []
        for text in _texts(example, self._text):
            try:
                caption = text.decode()
            except UnicodeDecodeError:
                raise UnreadableRecord(f'{self._where(index)}: bad utf-8') from None
            if clean_caption(caption, max_words=1):
                captions.append(caption)
        if not captions:
            raise UnreadableRecord(f'{self._where(index)}: no caption')
        return {'image_id': int(index), 'captions': captions}

    def _label(self, example: dict[str, Any]) -> str | None:
        if _class(_feature(self._features, self._text)) != 'ClassLabel':
            return None
        return cast(str, self._features[self._text].int2str(int(example[self._text])))


def _again(argument: str, options: dict[str, Any]) -> TfdsSource:
    return TfdsSource(argument, **options)


def _as_stored() -> Any:
    """A decoder that gives images as bytes: the package's own ends with an AttributeError where an
    image is broken."""
    from tensorflow_datasets import decode

    class AsStored(decode.SkipDecoding):
        def decode_batch_example_np(self, batch: Any) -> Any:
            return batch

    return AsStored()


def _image_feature(features: Any, name: str, directory: str) -> str:
    found = _named(features, 'Image')
    chosen = [key for key in found if key == name] if name else found
    if len(chosen) != 1 and not name:
        chosen = [key for key in found if key == 'image']
    if len(chosen) != 1:
        raise ValueError(_which('image', name, found, features, directory))
    return chosen[0]


def _text_feature(features: Any, name: str, directory: str) -> str:
    labels = [key for key, feature in features.items() if _class(feature) == 'ClassLabel']
    candidates: list[str] = [name] if name else [*_TEXTS, *(labels if len(labels) == 1 else ())]
    for candidate in candidates:
        kind = _class(_innermost(_feature(features, candidate)))
        if kind == 'Text' or kind == 'ClassLabel' and candidate in labels:
            return candidate
    found = _named(features, 'Text')
    raise ValueError(_which('text', name, [*found, *labels], features, directory))


def _which(option: str, name: str, found: list[str], features: Any, directory: str) -> str:
    given = f'has no feature {name!r:.40}' if name else 'say which feature'
    fit = f'those that fit are {", ".join(map(shown, found))}' if found else 'none fits'
    return f'tfds:{directory}: data.tfds.{option}: {given}; {fit} of {", ".join(sorted(features))}'


def _named(features: Any, kind: str) -> list[str]:
    """Names of the features of a class, and of sequences of them."""
    return sorted(key for key in features if _class(_innermost(features[key])) == kind)


def _feature(features: Any, name: str) -> Any:
    """By name: one of the data set, or 'captions/text', text of the sequence captions; or None."""
    if name in features:
        return features[name]
    outer, _, inner = name.partition('/')
    within: Any = getattr(features[outer], 'feature', None) if outer in features else None
    if _class(within) != 'FeaturesDict' or inner not in within:
        return None
    return within[inner]


def _innermost(feature: Any) -> Any:
    """What a sequence is of; any other feature itself."""
    return feature.feature if _class(feature) == 'Sequence' else feature


def _class(feature: Any) -> str:
    return type(feature).__name__


def _texts(example: dict[str, Any], name: str) -> list[bytes]:
    outer, _, inner = name.partition('/')
    return _as_list(example[name] if name in example else example[outer][inner])


def _as_list(value: Any) -> list[bytes]:
    return [value] if isinstance(value, bytes) else list(value)
