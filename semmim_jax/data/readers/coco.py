"""COCO's own caption files: captions_train2017.json and whatever has their form."""

import pathlib

from semmim_jax.data.json_files import field, read_json, shown
from semmim_jax.data.readers.captions import check_captions
from semmim_jax.data.readers.image_texts import ImageText


def read_coco(path: str, *, image_root: str) -> list[ImageText]:
    """Records of {"images": [...], "annotations": [...]}, one an image with all its captions.

    An image has "id" and "file_name", an annotation "image_id" and "caption". Images are
    IMAGE_ROOT/file_name. An image without annotation has one caption, which is empty.

    Raises:
      ValueError: file missing or malformed, an id that is there twice, an annotation of an image
        that is not there; the message names file and entry.
    """
    root = pathlib.Path(image_root or pathlib.Path(path).parent)
    data = read_json(path)
    names: dict[int, str] = {}
    captions: dict[int, list[str]] = {}
    for number, image in enumerate(field(data, 'images', list, path)):
        where = f'{path}, image {number}'
        image_id = field(image, 'id', int, where)
        name = field(image, 'file_name', str, where)
        if image_id in names:
            raise ValueError(f'{where} ({shown(name)}): the id {image_id} is there twice')
        names[image_id] = name
    for number, annotation in enumerate(field(data, 'annotations', list, path)):
        where = f'{path}, annotation {number}'
        image_id = field(annotation, 'image_id', int, where)
        if image_id not in names:
            raise ValueError(f'{where}: no image has the id {image_id}')
        texts = check_captions([field(annotation, 'caption', str, where)], where)
        captions.setdefault(image_id, []).extend(texts)
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
