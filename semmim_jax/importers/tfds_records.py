"""Data sets of tensorflow-datasets, read without TensorFlow: see data/tfds.py for what is."""

import functools
import os
from collections.abc import Iterator, Sequence

from semmim_jax.data.records import Texts
from semmim_jax.data.tfds import TfdsSource
from semmim_jax.data.unreadable import UnreadableRecord
from semmim_jax.importers.candidates import Candidate, Dropped
from semmim_jax.importers.plan import Options, Piece

_DESCRIBED = ('dataset_info.json', 'features.json')


def tfds_files(arguments: Sequence[str], options: Options) -> list[str]:
    """What describes the data sets, and the files of their split."""
    files = []
    for argument in arguments:
        files += [os.path.join(argument, name) for name in _DESCRIBED]
        files += _opened(argument, options).files
    return files


def plan_tfds(arguments: Sequence[str], options: Options) -> Iterator[Piece]:
    """Ranges of at most options.shard_records records of the split, in the data set's order.

    Raises:
      ValueError: what TfdsSource raises: no such split or feature, or foreign code.
    """
    left = options.limit
    for argument in arguments:
        total = len(_opened(argument, options))
        total = min(total, left) if options.limit else total
        for start in range(0, total, options.shard_records):
            stop = min(start + options.shard_records, total)
            yield Piece(kind='tfds', file=argument, start=start, stop=stop)
        left -= total
        if options.limit and not left:
            return


def read_tfds(piece: Piece, options: Options) -> Iterator[Candidate | Dropped]:
    """The records of a piece; a ClassLabel is a label, other texts are captions."""
    source = _opened(piece.file, options)
    folder = os.path.normpath(piece.file)
    name = os.path.basename(os.path.dirname(folder))
    for index in range(piece.start, piece.stop):
        key = f'{name}:{options.split}:{index}'
        where = f'{folder}, {options.split}, record {index}'
        try:
            record = source.stored(index)
        except UnreadableRecord as error:
            yield Dropped(key=key, reason='corrupt record', where=f'{where}: {error}')
            continue
        if len(record.images) not in (1, 2):
            reason = f'{where}: {len(record.images)} images'
            yield Dropped(key=key, reason='malformed entry', where=reason)
            continue
        entry: Texts = {'prompt': '', 'label': record.label or ''}
        yield Candidate(
            key=key,
            images=tuple(record.images),
            where=where,
            captions=tuple(text.decode(errors='surrogateescape') for text in record.texts),
            entries=() if record.label is None else (entry,),
            source_id=record.source_id,
        )


def _opened(directory: str, options: Options) -> TfdsSource:
    image = '' if options.image == Options.image else options.image
    text = '' if options.text == Options.text else options.text
    try:
        return _source(f'{directory}:{options.split}', image, text)
    except ValueError as error:
        raise ValueError(str(error).replace('data.tfds.', '--')) from None


@functools.lru_cache(maxsize=2)
def _source(argument: str, image: str, text: str) -> TfdsSource:
    # Nothing is decoded here, so that decoder and max_pixels have no effect.
    return TfdsSource(
        argument, image=image, text=text, decoder='opencv', max_pixels=1, index='memory'
    )
