"""Any source as verified shards: python -m semmim_jax.prepare SOURCE ARGUMENT... --out=DIR [flags]

--out=gs://BUCKET/DIR --local=DIR writes to a disk, then uploads.

json FILE, jsonl FILE           ALBEF's lists of captions, VQA or NLVR2; the project's own list
coco FILE, karpathy FILE:SPLIT  captions_*.json of COCO; dataset_coco.json, dataset_flickr30k.json
vqa QUESTIONS[,ANNOTATIONS]     VQA v2, in COCO's image folders
vg FILE, vgqa FILE              Visual Genome: region_descriptions.json, question_answers.json
nlvr2 FILE                      train.json, dev.json, test1.json
folder DIR                      DIR/CLASS/*.jpg, or *.jpg with captions in *.txt beside them
msrvtt FILE, lsmdc FILE.csv     videos with captions, below --videos; jsonl of one's own: clips FILE
stamps DIR                      Tux Paint's: NAME.png or NAME.svg with NAME.txt in many languages
openclipart DIR                 Debian's: png/NAME.png, titles and keywords in svg/NAME.svg
tar GLOB, parquet GLOB          what img2dataset writes; Hugging Face's parquet files
hf DIR                          a folder of the package datasets; or a name, with that package
tfds DIR                        .../NAME/VERSION of tensorflow-datasets, as ArrayRecord
CORPUS SPLIT                    an installed corpus

fetch URL DIR [--sha256=HEX]    copies a file, or a folder of s3:// or gs://; goes on where it ended
verify DIR [--decode=1000]      compares the shards with their manifest; a line a mismatch
show DIR [--n=8] [--out=PNG]    counts, what was dropped and why, a contact sheet

The same command goes on where one was killed. Exit status: 0 done; 1 a shard failed, a source is
cut, too much was dropped, or a mismatch; 2 refused. docs/data.md says more.
"""

import os
import pathlib
import shlex
import sys
from collections.abc import Sequence
from typing import Any

os.environ.setdefault('EPATH_USE_TF', 'false')

from absl import app, flags

from semmim_jax.cli.outputs import check_output
from semmim_jax.cli.parser import define_config, nearest, parse, read_config

# Packages that take seconds to import are imported in the functions below.

_CONFIG = define_config(None, 'options of an installed corpus: its data (configs/pretrain.py:demo)')
_OUT = flags.DEFINE_string('out', None, 'folder of the shards; of show, the picture to write')
_LOCAL = flags.DEFINE_string(
    'local', '', 'folder that the shards are written to first, where --out is in gs://'
)
_IMAGES = flags.DEFINE_string('images', '', "lists: folder of their paths; '' for the list's own")
_SPLIT = flags.DEFINE_string('split', 'train', 'name of the split; hf and tfds: which is read')
_SIZE = flags.DEFINE_integer('size', 384, 'pixels of the short side, at most', lower_bound=8)
_WORKERS = flags.DEFINE_integer('workers', 2, 'processes, at most one a shard', lower_bound=1)
_RUNNER = flags.DEFINE_string('runner', 'FnApiRunner', 'of Apache Beam')
_BEAM = flags.DEFINE_multi_string('beam', [], 'an option for Beam: --beam=--project=NAME')
_RECORDS = flags.DEFINE_integer(
    'shard_records', 8192, 'images of a shard; a tar is one', lower_bound=1
)
_MAX_PIXELS = flags.DEFINE_integer('max_pixels', 50_000_000, 'of an image', lower_bound=1)
_MAX_BYTES = flags.DEFINE_integer(
    'max_bytes', 67_108_864, 'of an image file', lower_bound=1, upper_bound=67_108_864
)
_MAX_DROPPED = flags.DEFINE_float('max_dropped', 0.05, 'share of images', 0, 1)
_INCOMPLETE = flags.DEFINE_bool('allow_incomplete', False, 'go without the rest of a cut file')
_FRESH = flags.DEFINE_bool('fresh', False, 'delete the shards that are in the folder')
_LIMIT = flags.DEFINE_integer('limit', 0, 'images to prepare, 0 for all', lower_bound=0)
_CAPTIONS = flags.DEFINE_integer(
    'max_captions', 0, 'of an image, without repeats; 0 for all', lower_bound=0
)
_DEDUP = flags.DEFINE_enum('dedup', '', ('', 'sha256'), 'of images with the same bytes keep one')
_IMAGE = flags.DEFINE_string('image', 'image', 'parquet, hf, tfds: column of images')
_TEXT = flags.DEFINE_string('text', 'caption', 'parquet, hf, tfds, tar: column or key of texts')
_META = flags.DEFINE_list('meta', [], 'parquet, hf, tar: further columns or keys to keep')
_LANGUAGES = flags.DEFINE_list('languages', [], 'stamps: those to keep, en,de; all')
_IMAGE_DATA = flags.DEFINE_string('image_data', '', 'vg, vgqa: image_data.json')
_COCO = flags.DEFINE_string('exclude_coco', '', 'vg, vgqa: dataset_coco.json:test,val')
_FLICKR = flags.DEFINE_string('exclude_flickr', '', 'vg, vgqa: dataset_flickr30k.json:test,val')
_VIDEOS = flags.DEFINE_string('videos', '', "msrvtt, lsmdc, clips: folder; '' for the list's own")
_LIST = flags.DEFINE_string('list', '', 'msrvtt: the videos that are meant, a text file or a CSV')
_FPS = flags.DEFINE_float('fps', 0.0, 'videos: frames a second; 0: 16 of a clip', lower_bound=0)
_DECODE = flags.DEFINE_string('decode', '1000', 'verify: images to decode, or all')
_N = flags.DEFINE_integer('n', 8, 'show: records to draw', lower_bound=1, upper_bound=100)
_SHA256 = flags.DEFINE_string('sha256', '', 'fetch: of the file, in hexadecimal')
_DEBUG = flags.DEFINE_bool('debug', False, 'show the traceback of an error')

_WORDS = {'SOURCE': (), 'ARGUMENT...': ()}


def run(argv: Sequence[str]) -> int:
    """Runs a command whose flags are parsed; gives the exit status."""
    from semmim_jax.importers.preparation import Failed

    _, command, *arguments = argv
    try:
        if command == 'fetch':
            return _fetch(arguments)
        if command == 'verify':
            return _verify(_one(arguments))
        if command == 'show':
            _show(_one(arguments))
        else:
            _prepare(command, arguments)
    except (ValueError, OSError) as error:
        if _DEBUG.value:
            raise
        print(f'error: {error}', file=sys.stderr)
        return 2
    except Failed as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    return 0


def _prepare(kind: str, arguments: Sequence[str]) -> None:
    from semmim_jax.data.cloud import on_disk
    from semmim_jax.importers import sources
    from semmim_jax.importers.plan import Options
    from semmim_jax.importers.preparation import Running, prepare
    from semmim_jax.importers.upload import destination

    if not sources.is_source(kind):
        known = (*sources.KINDS, 'fetch', 'verify', 'show')
        raise ValueError(f'{kind!r} is none of {", ".join(known)}{nearest(kind, known)}')
    if _OUT.value is None:
        raise ValueError('--out=VALUE must be given; -h lists the flags')
    if _META.value and kind not in ('tar', 'parquet', 'hf'):
        raise ValueError(f'--meta={_META.value[0]}: only tar, parquet and hf have it')
    if _LANGUAGES.value and kind != 'stamps':
        raise ValueError(f'--languages={_LANGUAGES.value[0]}: only stamps have them')
    for argument in arguments:
        on_disk(argument)
    options = Options(
        split=_SPLIT.value,
        size=_SIZE.value,
        shard_records=_RECORDS.value,
        max_pixels=_MAX_PIXELS.value,
        max_bytes=_MAX_BYTES.value,
        max_captions=_CAPTIONS.value,
        limit=_LIMIT.value,
        images=_IMAGES.value,
        image=_IMAGE.value,
        text=_TEXT.value,
        meta=tuple(_META.value),
        image_data=_IMAGE_DATA.value,
        exclude_coco=_COCO.value,
        exclude_flickr=_FLICKR.value,
        videos=_VIDEOS.value,
        video_list=_LIST.value,
        fps=_FPS.value,
        dedup=_DEDUP.value,
        languages=tuple(_LANGUAGES.value),
        corpus={} if kind in sources.KINDS else _config().data.to_dict(),
    )
    running = Running(
        workers=_WORKERS.value,
        runner=_RUNNER.value,
        beam=tuple(_BEAM.value),
        max_dropped=_MAX_DROPPED.value,
        allow_incomplete=_INCOMPLETE.value,
        fresh=_FRESH.value,
        command=shlex.join(['prepare', *sys.argv[1:]]),
    )
    with destination(_OUT.value, local=_LOCAL.value) as folder:
        prepare(kind, arguments, directory=folder, options=options, running=running)


def _fetch(arguments: Sequence[str]) -> int:
    from semmim_jax.importers.fetch import fetch

    if len(arguments) != 2:
        raise ValueError('fetch takes an address and a folder: prepare fetch URL DIR')
    try:
        paths = fetch(*arguments, sha256=_SHA256.value)
    except OSError as error:  # it has begun
        print(f'error: {error}', file=sys.stderr)
        return 1
    print(f'{arguments[1]}: {len(paths)} files, {sum(p.stat().st_size for p in paths):,} bytes')
    return 0


def _config() -> Any:
    return _CONFIG.value or read_config(['--config=configs/pretrain.py:demo'])


def _verify(directory: str) -> int:
    from semmim_jax.importers.verify import verify

    decode = None if _DECODE.value == 'all' else _DECODE.value
    if decode is not None and not (decode.isascii() and decode.isdigit()):
        raise ValueError(f'--decode={decode}: must be a number, or all')
    wrong = 0
    try:
        for line in verify(directory, decode=None if decode is None else int(decode)):
            print(line)
            wrong += 1
    except ValueError as error:  # the manifest itself
        print(error)
        wrong += 1
    return 1 if wrong else 0


def _show(directory: str) -> None:
    out = _OUT.value or 'contact_sheet.png'
    check_output('--out', out, overwrite=True)
    from semmim_jax.data.images import decode_image
    from semmim_jax.data.shard_format import Manifest
    from semmim_jax.importers.preparation import summary
    from semmim_jax.importers.verify import MAX_PIXELS, sample
    from semmim_jax.viz.contact_sheet import Cell, draw_contact_sheet

    manifest = Manifest.read(directory)
    cells = []
    for record in sample(directory, count=_N.value):
        images = [
            decode_image(data, decoder='opencv', max_pixels=MAX_PIXELS)
            for data in record.images or record.frames[:: max(1, len(record.frames) // 4)]
        ]
        texts = list(record.captions) or [
            ' '.join(
                [entry.get('prompt', ''), *entry.get('targets', [])[:1], entry.get('label', '')]
            )
            for entry in record.entries
        ]
        cells.append(Cell(images=images, key=record.key, texts=texts[:2]))
    about = summary(manifest, directory)
    print(about)
    path = draw_contact_sheet(
        cells,
        title=pathlib.Path(directory).name,
        note='; '.join(about.splitlines()),
        attribution=manifest.attribution,
        path=out,
    )
    print(f'wrote {path}')


def _one(arguments: Sequence[str]) -> str:
    if len(arguments) > 1:
        raise ValueError(f'{arguments[1]!r} is not understood: one folder is taken')
    return arguments[0]


def parsed(argv: list[str]) -> list[str]:
    """As cli.parser.parse, with exit status 2 after a mistake."""
    try:
        return parse(argv, words=_WORDS)
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
            sys.exit(2)
        raise


def main(argv: list[str]) -> None:
    """Runs a command; a mistake ends in one line, not in a traceback."""
    sys.exit(run(argv))


if __name__ == '__main__':
    app.run(main, flags_parser=parsed)
