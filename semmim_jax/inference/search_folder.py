"""The commands `index` and `search` of predict: a folder of images, made to be searched."""

import json
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import tqdm

from semmim_jax.data.images import decode_image
from semmim_jax.data.unreadable import UnreadableRecord
from semmim_jax.inference.folder import SUFFIXES, lines_of
from semmim_jax.inference.image_index import ImageIndex, IndexWriter, update

if TYPE_CHECKING:  # with JAX, which takes seconds: after the arguments were checked
    from semmim_jax.inference.model import Model


def index_folder(*, workdir: str, images: str, index: str, params: str, batch_size: int) -> None:
    """Makes an index of a folder, or brings it up to date: only new and changed files are encoded.

    Args:
      workdir, params, batch_size: of `semmim_jax.load`.
      images: the folder; images in its subfolders belong to it.
      index: folder of the index.

    Raises:
      ValueError: for an unknown folder, and what `IndexWriter` refuses.
    """
    folder = pathlib.Path(images)
    check_images(folder)
    from semmim_jax.inference.model import load

    print(index_images(load(workdir, params=params, batch_size=batch_size), folder, index=index))


def check_images(folder: pathlib.Path) -> None:
    """Raises ValueError for what is no folder, or one without images."""
    if not folder.is_dir():
        raise ValueError(f'--images={folder}: no such folder')
    if not any(image_paths(folder)):
        raise ValueError(f'--images={folder}: no {", ".join(SUFFIXES)} file in this folder')


def index_images(model: 'Model', folder: pathlib.Path, *, index: str | pathlib.Path) -> str:
    """`index_folder` by a model that is open. Returns the line that says what was done."""
    from semmim_jax.inference.search import probe_of

    data = model.config.data
    total = sum(1 for _ in image_paths(folder))
    writer = IndexWriter(index, images=folder, probe=probe_of(model))

    def leave_out(path: str, error: Exception) -> None:
        reason = getattr(error, 'strerror', None) or error
        tqdm.tqdm.write(f'left out: {folder / path}: {reason}', file=sys.stderr)

    def read(path: str) -> bytes | None:
        try:
            return (folder / path).read_bytes()
        except OSError as error:
            leave_out(path, error)
            return None

    def encode(paths: list[str], files: list[bytes]) -> tuple[list[int], np.ndarray]:
        good, pixels = [], []
        for i, (path, file) in enumerate(zip(paths, files, strict=True)):
            try:
                pixels.append(decode_image(file, decoder=data.decoder, max_pixels=data.max_pixels))
                good.append(i)
            except UnreadableRecord as error:
                leave_out(path, error)
        return good, model.encode_image(pixels) if good else np.zeros((0, 0))

    paths = tqdm.tqdm(image_paths(folder), total=total, unit='image', disable=None)
    try:
        counts = update(writer, paths, read=read, encode=encode, batch_size=model.batch_size)
    finally:
        writer.close()
    said = ', '.join(f'{name}: {count}' for name, count in counts.items())
    return f'wrote {index}; images: {len(writer.known)}; {said}'


def image_paths(folder: pathlib.Path) -> Iterator[str]:
    """Paths of a folder's images below it, in one order; hidden files and folders do not count."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        for name in sorted(files):
            if not name.startswith('.') and pathlib.Path(name).suffix.lower() in SUFFIXES:
                yield os.path.relpath(os.path.join(place, name), folder)


def search_index(
    *,
    workdir: str,
    index: str,
    texts: Sequence[str],
    texts_file: str,
    image: str,
    out: str,
    top: int,
    rerank: int,
    params: str,
    batch_size: int,
) -> None:
    """Prints what is found, and writes it to `out`, a line a query, if that is given.

    Args:
      workdir, params, batch_size: of `semmim_jax.load`.
      index: folder of the index.
      texts, texts_file: queries, and a file with one a line.
      image: a file; joined with each text, or the only query.
      out: a .jsonl file; '' for none.
      top: images of a query.
      rerank: images of a query that ITM looks at.

    Raises:
      ValueError: for no query, a damaged index, or one of another model.
    """
    if out and pathlib.Path(out).suffix != '.jsonl':
        raise ValueError(f'--out={out}: search writes a .jsonl file')
    if texts_file:
        texts = [*texts, *lines_of(texts_file, flag='--texts')]
    if not texts and not image:
        raise ValueError('search needs --text, --texts or --image')
    opened = ImageIndex(index)
    from semmim_jax.inference.model import load
    from semmim_jax.inference.search import Search

    search = Search(load(workdir, params=params, batch_size=batch_size), opened)
    lines = []
    for text in texts or ['']:
        hits, missing = search(text=text, image=image or None, count=top, rerank=rerank)
        query = {'text': text} if text else {}
        query |= {'image': image} if image else {}
        print(', '.join(f'{key}: {value}' for key, value in query.items()))
        for hit in hits:
            match = '      ' if hit.match is None else f'{hit.match:6.1%}'
            print(f'  similarity {hit.similarity:6.3f}  match {match}  {hit.path}')
        for line in missing:
            print(line, file=sys.stderr)
        found = [
            {
                'path': hit.path,
                'similarity': round(hit.similarity, 6),
                'match': None if hit.match is None else round(hit.match, 6),
            }
            for hit in hits
        ]
        lines.append(json.dumps({**query, 'images': found}, ensure_ascii=False) + '\n')
    if out:
        pathlib.Path(out).write_text(''.join(lines), encoding='utf-8')
        print(f'wrote {out}')
