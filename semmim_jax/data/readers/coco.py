"""COCO's own caption files: captions_train2017.json and whatever has their form."""

import pathlib

from semmim_jax.data.json_files import DuplicateEntry, Skip, each, field, read_json, shown
from semmim_jax.data.readers.captions import check_captions
from semmim_jax.data.readers.image_texts import ImageText


def read_coco(path: str, *, image_root: str, skip: Skip | None = None) -> list[ImageText]:
    """Records of {"images": [...], "annotations": [...]}, one an image with all its captions.

    An image has "id" and "file_name", an annotation "image_id" and "caption". Images are
    IMAGE_ROOT/file_name. An image without annotation has one caption, which is empty. `skip` is
    called with the error of each malformed entry; without it the first is raised.

    Raises:
      ValueError: file missing or malformed, an id that is there twice, an annotation of an image
        that is not there; the message names file and entry.
    """
    root = pathlib.Path(image_root or pathlib.Path(path).parent)
    data = read_json(path, skip=skip)
    names: dict[int, str] = {}
    captions: dict[int, list[str]] = {}

    def image(entry: object, where: str) -> None:
        image_id = field(entry, 'id', int, where)
        name = field(entry, 'file_name', str, where)
        if image_id in names:
            raise DuplicateEntry(f'{where} ({shown(name)}): the id {image_id} is there twice')
        names[image_id] = name

    def annotation(entry: object, where: str) -> None:
        image_id = field(entry, 'image_id', int, where)
        if image_id not in names:
            raise ValueError(f'{where}: no image has the id {image_id}')
        texts = check_captions([field(entry, 'caption', str, where)], where)
        captions.setdefault(image_id, []).extend(texts)

    for key, parse in (('images', image), ('annotations', annotation)):
        entries = enumerate(field(data, key, list, path))
        placed = ((entry, f'{path}, {key.rstrip("s")} {number}') for number, entry in entries)
        list(each(placed, parse, skip=skip))
    if not names:
        raise ValueError(f'{path}: no images')
    return [
        ImageText(
            images=(str(root / name),),
            where=f'{path}, image id {image_id} ({shown(name)})',
            image_id=image_id,
            captions=tuple(captions.get(image_id, [''])),
        )
        for image_id, name in names.items()
    ]
