"""Plug-in corpora (data/readers/corpus.py): their records as they are, without loss."""

import functools
import importlib.metadata
import json
from collections.abc import Iterator, Mapping
from typing import Any

import cv2
import ml_collections

from semmim_jax.data.readers.corpus import GROUP, Corpus, installed_corpora
from semmim_jax.data.records import Record, Source, Texts
from semmim_jax.data.unreadable import UnreadableRecord
from semmim_jax.importers.candidates import Candidate, Dropped
from semmim_jax.importers.plan import Options, Piece

_NOT_TEXTS = ('image', 'images', 'frames', 'image_id', 'labels', 'captions')


def find_corpus(kind: str) -> Corpus | None:
    """The corpus by its name, or by the name of an entry point, whose first corpus is taken.

    Returns None where nothing of that name is installed.
    """
    corpora = installed_corpora()
    if kind in corpora:
        return corpora[kind]
    for entry in importlib.metadata.entry_points(group=GROUP):
        if entry.name == kind:
            plugged: dict[str, Corpus] = entry.load()
            return next(iter(plugged.values()))
    return None


def open_corpus(kind: str, split: str, config: Mapping[str, Any]) -> Source:
    """The source of a split. Raises ValueError for one that is not there."""
    return _opened(kind, split, ml_collections.ConfigDict(config).to_json())


@functools.lru_cache(maxsize=1)
def _opened(kind: str, split: str, config: str) -> Source:
    corpus = find_corpus(kind)
    if corpus is None:
        raise ValueError(f'{kind}: no such corpus is installed')
    options: Any = ml_collections.ConfigDict(json.loads(config))
    return corpus.make(split, options)


def plan_corpus(kind: str, split: str, options: Options) -> Iterator[Piece]:
    """The pieces of a corpus: ranges of its records."""
    total = len(open_corpus(kind, split, options.corpus))
    total = min(total, options.limit or total)
    for start in range(0, total, options.shard_records):
        stop = min(start + options.shard_records, total)
        yield Piece(kind=kind, file=split, start=start, stop=stop)


def read_corpus(piece: Piece, options: Options) -> Iterator[Candidate | Dropped]:
    """The records of a piece. The labels of pixels are kept as `labels`, a PNG of 16 bits."""
    source = open_corpus(piece.kind, piece.file, options.corpus)
    for index in range(piece.start, piece.stop):
        key, where = f'{piece.file}/{index}', f'{piece.kind}:{piece.file}, record {index}'
        try:
            yield _candidate(source[index], key, where)
        except UnreadableRecord as error:
            yield Dropped(key=key, reason='corrupt image', where=f'{where}: {error}')


def _candidate(record: Record, key: str, where: str) -> Candidate:
    images = (record['image'],) if 'image' in record else tuple(record.get('images', ()))
    frames = tuple(record.get('frames', ()))
    texts: Texts = {k: v for k, v in record.items() if k not in _NOT_TEXTS}  # type: ignore
    meta = {}
    if 'labels' in record:
        meta['labels'] = cv2.imencode('.png', record['labels'].astype('uint16'))[1].tobytes()
    captions = tuple(record.get('captions', ()))
    return Candidate(
        key=key,
        images=images,
        frames=frames,
        times=tuple(map(float, range(len(frames)))),
        where=where,
        captions=captions,
        entries=() if captions else (texts,),
        source_id=int(record['image_id']),
        meta=meta,
        exact=True,
    )
