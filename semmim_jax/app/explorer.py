"""What an app is opened with: runs, the folder of pictures, its index and its patches."""

import contextlib
import dataclasses
import pathlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from semmim_jax.app.patch_table import PatchTable, read_patches
from semmim_jax.app.pictures import Picture, pixels_of
from semmim_jax.data.readers.captions import read_captions
from semmim_jax.inference.image_index import ImageIndex
from semmim_jax.inference.search_folder import check_images, image_paths, index_images

if TYPE_CHECKING:  # with JAX, which takes seconds: after the arguments were checked
    from semmim_jax.inference.model import Model
    from semmim_jax.inference.search import Search


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Explorer:
    """See the module.

    Attributes:
      model: the run that is looked at.
      name: of its workdir.
      other: another run, to compare; None for none.
      other_name: of that workdir.
      folder: of the pictures; None if there is none.
      paths: of its pictures, below it.
      captions: path -> caption.
      engine: search over the folder; None without a folder, or if the run has no ITC.
      table: patches of the folder; None without a folder, or if the run has no patterns.
      notes: why there is no engine or table, a sentence by name.
    """

    model: 'Model'
    name: str
    other: 'Model | None' = None
    other_name: str = ''
    folder: pathlib.Path | None = None
    paths: tuple[str, ...] = ()
    captions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    engine: 'Search | None' = None
    table: PatchTable | None = None
    notes: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def pixels(self, picture: Picture | None) -> np.ndarray:
        """Of the picture that is looked at; see `pictures.pixels_of`."""
        return pixels_of(picture, self.folder, self.model.config.data)

    def picture_at(self, path: object) -> Picture:
        """The picture of the folder that a page names; ValueError for any other path."""
        if path not in self.paths:
            raise ValueError('this is no picture of the folder')
        return Picture(str(path))


@contextlib.contextmanager
def open_explorer(
    workdir: str,
    *,
    images: str,
    captions: str,
    other: str,
    index: str,
    params: str,
    batch_size: int,
    patch_mebibytes: int,
) -> Iterator[Explorer]:
    """Opens the runs, indexes the folder and reads its patches, with progress lines.

    Args:
      workdir, params, batch_size: of `semmim_jax.load`.
      images: folder of pictures; '' for none.
      captions: list of their captions (`data.readers.captions`); '' for none.
      other: a second workdir; '' for none.
      index: folder of the index, made or brought up to date; '' for one that is deleted at the end.
      patch_mebibytes: memory of the patch table.

    Raises:
      ValueError: a folder or list that cannot be read; the message names it.
    """
    folder = pathlib.Path(images) if images else None
    if folder:
        check_images(folder)
    elif captions or index:
        raise ValueError('--captions and --index are of a folder: add --images=FOLDER')
    listed = captions_of(folder, captions) if captions else {}
    from semmim_jax.inference.model import load

    options = dict(params=params, batch_size=batch_size)
    model = load(workdir, **options)
    explorer = Explorer(
        model=model,
        name=_name(workdir),
        other=load(other, **options) if other else None,
        other_name=_name(other) if other else '',
    )
    with contextlib.ExitStack() as stack:
        if folder:
            place = index or stack.enter_context(tempfile.TemporaryDirectory(prefix='semmim_app_'))
            explorer = _with_folder(explorer, folder, listed, place, patch_mebibytes)
        yield explorer


def captions_of(folder: pathlib.Path, path: str) -> dict[str, str]:
    """Path below the folder -> the first of its captions in a list; others' pictures are left out.

    Raises:
      ValueError: the list cannot be read, or has no picture of the folder.
    """
    root, found = folder.resolve(), {}
    for record in read_captions(path, image_root=''):
        place = pathlib.Path(record.images[0]).resolve()
        if place.is_relative_to(root):
            found.setdefault(str(place.relative_to(root)), record.captions[0])
    if not found:
        raise ValueError(f'--captions={path}: names no picture in {folder}')
    return found


def _with_folder(
    explorer: Explorer,
    folder: pathlib.Path,
    captions: Mapping[str, str],
    index: str,
    patch_mebibytes: int,
) -> Explorer:
    from semmim_jax.inference.search import Search

    model, notes, engine, table = explorer.model, {}, None, None
    paths = tuple(image_paths(folder))
    try:
        index_images(model, folder, index=pathlib.Path(index))
        engine = Search(model, ImageIndex(index))
    except ValueError as error:
        notes['search'] = str(error)
    try:
        table = read_patches(
            model, folder, paths, captions=captions, max_bytes=patch_mebibytes * 2**20
        )
    except ValueError as error:
        notes['patterns'] = str(error)
    return dataclasses.replace(
        explorer,
        folder=folder,
        paths=paths,
        captions=captions,
        engine=engine,
        table=table,
        notes=notes,
    )


def _name(workdir: str) -> str:
    return pathlib.Path(workdir).name or workdir
