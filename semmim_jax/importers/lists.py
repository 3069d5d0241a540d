"""Lists of image files, read by data/readers: one record an image, with all its entries."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Protocol, cast

from semmim_jax.data.json_files import DuplicateEntry, Skip, field, read_json
from semmim_jax.data.readers.albef import read_albef
from semmim_jax.data.readers.coco import read_coco
from semmim_jax.data.readers.image_texts import ImageText
from semmim_jax.data.readers.json_lines import read_json_lines
from semmim_jax.data.readers.karpathy import read_karpathy
from semmim_jax.data.readers.nlvr2 import read_nlvr2
from semmim_jax.data.readers.visual_genome import read_vg, read_vgqa
from semmim_jax.data.readers.vqa import read_vqa
from semmim_jax.data.records import Texts
from semmim_jax.importers.candidates import Candidate, Dropped
from semmim_jax.importers.plan import Options

PAIR = ' + '  # between the two paths of a pair's key
_BOUND = 2**63  # of an id


class _Reader(Protocol):
    def __call__(
        self, argument: str, /, *, image_root: str, skip: Skip | None
    ) -> list[ImageText]: ...


READERS: dict[str, _Reader] = {
    'json': read_albef,
    'coco': read_coco,
    'karpathy': read_karpathy,
    'vqa': read_vqa,
    'vg': read_vg,
    'vgqa': read_vgqa,
    'nlvr2': read_nlvr2,
    'jsonl': read_json_lines,
}


def list_files(kind: str, argument: str) -> list[str]:
    """The files that an argument of a list source names."""
    if kind == 'karpathy':
        return [argument.rpartition(':')[0]]
    return argument.split(',') if kind == 'vqa' else [argument]


def read_list(kind: str, argument: str, options: Options) -> Iterator[Candidate | Dropped]:
    """The images of one list, in the order in which they first appear, and what is left out.

    Entries of an image join its record. One that adds nothing to it is a duplicate.

    Args:
      kind: of READERS.
      argument: of the reader.
      options: for `images`, the folder that paths are taken from.

    Raises:
      ValueError: the list is missing, or cannot be read at all.
    """
    wrong: list[ValueError] = []
    records = READERS[kind](argument, image_root=options.images, skip=wrong.append)
    yield from (_malformed(error) for error in wrong)
    root = options.images or str(pathlib.Path(list_files(kind, argument)[0]).parent)
    yield from _joined(records, root=root)


def _joined(records: list[ImageText], *, root: str) -> Iterator[Candidate | Dropped]:
    """A candidate an image, each entry that adds nothing as Dropped before the first candidate."""
    images: dict[tuple[str, ...], tuple[ImageText, list[str], list[Texts]]] = {}
    for record in records:
        if any(
            isinstance(x, int) and abs(x) >= _BOUND for x in (record.image_id, record.question_id)
        ):
            where = f'{record.where}: an id beyond 63 bits'
            yield Dropped(key=_key(record.images, root), reason='malformed entry', where=where)
            continue
        first = record.images not in images
        _, captions, entries = images.setdefault(record.images, (record, [], []))
        if record.captions:
            new = [caption for caption in record.captions if caption not in captions]
            captions += record.captions if first else new
            adds = first or bool(new)
        else:
            entry = _texts(record)
            adds = not _is_there(entry, entries)
            entries += [entry] * adds
        if not adds:
            yield Dropped(key=_key(record.images, root), reason='duplicate', where=record.where)
    for paths, (record, captions, entries) in images.items():
        yield Candidate(
            key=_key(paths, root),
            images=paths,
            where=record.where,
            captions=tuple(captions),
            entries=tuple(entries),
            source_id=record.image_id,
        )


def _is_there(entry: Texts, entries: list[Texts]) -> bool:
    number = entry.get('question_id')
    if number is None:
        return entry in entries
    return any(other.get('question_id') == number for other in entries)


_ENTRY = [
    field.name
    for field in dataclasses.fields(ImageText)
    if field.name not in ('images', 'where', 'image_id', 'captions')
]


def _texts(record: ImageText) -> Texts:
    values = {name: getattr(record, name) for name in _ENTRY}
    kept = {name: value for name, value in values.items() if value not in ((), None)}
    return cast(Texts, {name: list(v) if isinstance(v, tuple) else v for name, v in kept.items()})


def _key(paths: tuple[str, ...], root: str) -> str:
    """Paths below the root, as they are where they are not below it."""
    return PAIR.join(_below(path, root) for path in paths)


def _below(path: str, root: str) -> str:
    prefix = os.path.join(os.path.normpath(root), '')
    normal = os.path.normpath(path) if path else path
    if prefix == './' and not os.path.isabs(normal):
        return pathlib.PurePath(normal).as_posix()
    return pathlib.PurePath(normal.removeprefix(prefix)).as_posix()


def _malformed(error: ValueError) -> Dropped:
    reason = 'duplicate' if isinstance(error, DuplicateEntry) else 'malformed entry'
    return Dropped(key='', reason=reason, where=str(error))


def test_set_filter(options: Options) -> tuple[Callable[[Candidate], bool], str]:
    """Tells the images of Visual Genome that are also in the test sets of COCO or Flickr30K.

    Args:
      options: for image_data, exclude_coco and exclude_flickr.

    Returns:
      Whether a candidate is to be left out, and a warning where images of COCO's test sets stay; ''
      for none.

    Raises:
      ValueError: sets to leave out without image_data, or a file that cannot be read.
    """
    excluded = {
        'coco_id': _ids(options.exclude_coco, name='exclude_coco'),
        'flickr_id': _ids(options.exclude_flickr, name='exclude_flickr'),
    }
    if not options.image_data:
        if options.exclude_coco or options.exclude_flickr:
            raise ValueError('--exclude_coco and --exclude_flickr need --image_data=FILE')
        return lambda candidate: False, (
            'warning: about half of the images of Visual Genome are COCO images, those of its test '
            'sets too; --image_data and --exclude_coco leave those out'
        )
    tested: set[int] = set()
    shared = 0
    images = read_json(options.image_data)
    if not isinstance(images, list):
        raise ValueError(f'{options.image_data}: a list of images is needed')
    for number, image in enumerate(images):
        where = f'{options.image_data}, image {number}'
        image_id = field(image, 'image_id', int, where)
        shared += image.get('coco_id') is not None
        if any(image.get(key) in ids for key, ids in excluded.items()):
            tested.add(image_id)
    note = ''
    if not options.exclude_coco:
        note = (
            f'warning: {shared} of {len(images)} images are COCO images, those of its test sets '
            'too; --exclude_coco=dataset_coco.json:test,val leaves those out'
        )
    return lambda candidate: candidate.source_id in tested, note


def _ids(argument: str, *, name: str) -> set[object]:
    """Ids of the images of some splits of a Karpathy file, COCO's or, by file name, Flickr's."""
    if not argument:
        return set()
    path, _, splits = argument.rpartition(':')
    if not path or not splits:
        raise ValueError(f'--{name}={argument}: must be FILE:SPLIT,SPLIT')
    wanted = splits.split(',')
    ids: set[object] = set()
    for number, image in enumerate(field(read_json(path), 'images', list, path)):
        where = f'{path}, image {number}'
        if field(image, 'split', str, where) in wanted:
            if name == 'exclude_coco':
                ids.add(field(image, 'cocoid', int, where))
            else:
                stem = field(image, 'filename', str, where).partition('.')[0]
                ids.add(int(stem) if stem.isdigit() else stem)
    if not ids:
        raise ValueError(f'--{name}={argument}: no image of these splits')
    return ids
