"""The sources by name: how each is planned, and how a piece of a container is read."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from semmim_jax.data.frames import has_twins, has_videos
from semmim_jax.importers.arrows import read_arrow
from semmim_jax.importers.candidates import Candidate, Dropped
from semmim_jax.importers.clips import VIDEO_READERS, clip_files, read_clip_list
from semmim_jax.importers.corpora import find_corpus, open_corpus, plan_corpus, read_corpus
from semmim_jax.importers.folders import read_folder
from semmim_jax.importers.huggingface import hf_files, plan_hf
from semmim_jax.importers.lists import READERS, list_files, read_list, test_set_filter
from semmim_jax.importers.openclipart import read_openclipart
from semmim_jax.importers.parquets import plan_parquets, read_parquet
from semmim_jax.importers.plan import (
    Options,
    Part,
    Piece,
    Plan,
    chunked,
    file_entry,
    read_part,
    write_part,
)
from semmim_jax.importers.stamps import read_stamps
from semmim_jax.importers.tars import matching, plan_tars, read_tar
from semmim_jax.importers.tfds_records import plan_tfds, read_tfds, tfds_files

_FOLDERS = {'folder': read_folder, 'stamps': read_stamps, 'openclipart': read_openclipart}
_Arguments = Sequence[str]


class _Container(NamedTuple):
    """How containers of a kind are listed and planned."""

    files: Callable[[_Arguments, Options], list[str]]
    plan: Callable[[_Arguments, Options], Iterator[Piece]]


_CONTAINERS = {
    'tar': _Container(lambda patterns, options: matching(patterns), plan_tars),
    'parquet': _Container(lambda patterns, options: matching(patterns), plan_parquets),
    'hf': _Container(hf_files, plan_hf),
    'tfds': _Container(tfds_files, plan_tfds),
}
_READ_PIECE: dict[str, Callable[[Piece, Options], Iterator[Candidate | Dropped]]] = {
    'tar': read_tar,
    'parquet': read_parquet,
    'arrow': read_arrow,
    'tfds': read_tfds,
}
TESTED = 'in test set'  # the reason of what is left out because it was asked for
KINDS = (*READERS, *_FOLDERS, *_CONTAINERS, *VIDEO_READERS)


def is_source(kind: str) -> bool:
    """Whether there is a source of that name, an installed corpus among them."""
    return kind in KINDS or find_corpus(kind) is not None


def draft_plan(kind: str, arguments: tuple[str, ...], options: Options) -> Plan:
    """The plan of a source before its parts are made: without their number, with its digest.

    Raises:
      ValueError: a file of the source is missing, or there is no such corpus.
    """
    attribution, labels = '', tuple[str, ...]()
    videos, twins = kind in VIDEO_READERS, False
    if not videos and (options.videos or options.video_list or options.fps):
        raise ValueError(f'--videos, --list and --fps are of {", ".join(VIDEO_READERS)}')
    if kind not in KINDS:
        if len(arguments) > 1:
            raise ValueError(f'{kind} {" ".join(arguments)}: one split at a time')
        source = open_corpus(kind, arguments[0], options.corpus)
        attribution, labels = source.attribution, source.patch_label_names
        videos, twins = has_videos(source), has_twins(source)
        if twins and options.limit % 2:
            raise ValueError(f'--limit={options.limit}: {kind} come in pairs, so even')
    if videos and options.dedup:
        raise ValueError(f'--dedup={options.dedup}: images are compared, no videos')
    return Plan(
        kind=kind,
        arguments=arguments,
        options=options,
        files=tuple(source_files(kind, arguments, options)),
        attribution=attribution,
        patch_labels=tuple(labels),
        holds='frames' if videos else 'images',
        twins=twins,
    )


def complete_plan(draft: Plan, work: pathlib.Path) -> tuple[Plan, list[str]]:
    """Reads the lists, or the containers' headers, and writes the parts of all shards and the plan.

    Args:
      draft: of `draft_plan`.
      work: the set's folder .work, which is there.

    Returns:
      The plan, and lines for whoever started it.

    Raises:
      ValueError: the source cannot be read, or has nothing.
    """
    notes: list[str] = []
    count = 0
    for part in _parts(draft.kind, draft.arguments, draft.options, notes):
        write_part(work, count, part)
        count += 1
    if not count:
        raise ValueError(f'{draft.kind} {" ".join(draft.arguments)}: nothing to prepare')
    plan = dataclasses.replace(draft, shards=count)
    plan.write(work)
    return plan, notes


def source_files(
    kind: str, arguments: tuple[str, ...], options: Options
) -> Iterator[dict[str, object]]:
    """What the manifest says of the source's files; images that a list names are not among them."""
    if kind in _CONTAINERS:
        paths = _CONTAINERS[kind].files(arguments, options)
        yield from (file_entry(path, content=False) for path in paths)
    for argument in arguments if kind in READERS else ():
        yield from (file_entry(path, content=True) for path in list_files(kind, argument))
    for argument in arguments if kind in VIDEO_READERS else ():
        yield from (file_entry(path, content=True) for path in clip_files(argument, options))
    for argument in (options.image_data, options.exclude_coco, options.exclude_flickr):
        if argument:
            path = argument if argument == options.image_data else argument.rpartition(':')[0]
            yield file_entry(path, content=True)


def candidates(work: pathlib.Path, number: int, plan: Plan) -> Iterator[Candidate | Dropped]:
    """What shard `number` of a plan is made from.

    Raises:
      Incomplete: the container ends early.
    """
    part = read_part(work, number)
    if not isinstance(part, Piece):
        yield from part
        return
    yield from _READ_PIECE.get(part.kind, read_corpus)(part, plan.options)


def _parts(
    kind: str, arguments: tuple[str, ...], options: Options, notes: list[str]
) -> Iterator[Part]:
    if kind in READERS or kind in _FOLDERS or kind in VIDEO_READERS:
        items = _listed(kind, arguments, options, notes)
        yield from chunked(items, size=options.shard_records, limit=options.limit)
        return
    if kind in _CONTAINERS:
        yield from _CONTAINERS[kind].plan(arguments, options)
    else:
        yield from plan_corpus(kind, arguments[0], options)


def _listed(
    kind: str, arguments: tuple[str, ...], options: Options, notes: list[str]
) -> Iterator[Candidate | Dropped]:
    """Candidates of all arguments; of a key that comes again the first is kept."""
    is_tested: Callable[[Candidate], bool] = lambda candidate: False
    if kind in ('vg', 'vgqa'):
        is_tested, note = test_set_filter(options)
        notes += [note] * bool(note)
    elif options.image_data or options.exclude_coco or options.exclude_flickr:
        raise ValueError('--image_data, --exclude_coco and --exclude_flickr are of vg and vgqa')
    seen: set[str] = set()
    for argument in arguments:
        if kind in _FOLDERS:
            items = _FOLDERS[kind](argument, options)
        elif kind in VIDEO_READERS:
            items = read_clip_list(kind, argument, options)
        else:
            items = read_list(kind, argument, options)
        for item in items:
            if isinstance(item, Candidate) and is_tested(item):
                item = Dropped(key=item.key, reason=TESTED, where=item.where)
            elif isinstance(item, Candidate) and item.key in seen:
                item = Dropped(key=item.key, reason='duplicate', where=item.where)
            elif isinstance(item, Candidate):
                seen.add(item.key)
            yield item
