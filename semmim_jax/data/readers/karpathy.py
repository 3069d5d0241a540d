"""Karpathy's splits of COCO and Flickr30K: dataset_coco.json, dataset_flickr30k.json."""

import pathlib

from semmim_jax.data.json_files import Skip, as_object, each, field, read_json, shown
from semmim_jax.data.readers.captions import check_captions
from semmim_jax.data.readers.image_texts import ImageText

# 'restval' are the images of COCO's validation set that everybody trains on.
_PARTS = {'train': ('train', 'restval'), 'val': ('val',), 'test': ('test',)}


def read_karpathy(argument: str, *, image_root: str, skip: Skip | None = None) -> list[ImageText]:
    """Records of 'FILE:SPLIT', one an image with all its captions; 'train' includes 'restval'.

    Images are IMAGE_ROOT/filepath/filename (Flickr30K has no filepath); image_id is COCO's where
    the file has it, else the file's imgid. `skip` is called with the error of each malformed
    image; without it the first is raised.

    Raises:
      ValueError: file missing or malformed, unknown or empty split, an image without captions.
    """
    path, _, split = argument.rpartition(':')
    if not path or split not in _PARTS:
        raise ValueError(
            f"karpathy:{argument}: must be 'karpathy:FILE:SPLIT', SPLIT train|val|test"
        )
    root = pathlib.Path(image_root or pathlib.Path(path).parent)

    def parse(entry: object, where: str) -> ImageText | None:
        image = as_object(entry, where)
        if field(image, 'split', str, where) not in _PARTS[split]:
            return None
        name = field(image, 'filename', str, where)
        where = f'{where} ({shown(name)})'
        folder = field(image, 'filepath', str, where) if 'filepath' in image else ''
        sentences = field(image, 'sentences', list, where)
        if not sentences:
            raise ValueError(f'{where}: no captions')
        return ImageText(
            images=(str(root / folder / name),),
            where=where,
            image_id=field(image, 'cocoid' if 'cocoid' in image else 'imgid', int, where),
            captions=check_captions([field(s, 'raw', str, where) for s in sentences], where),
        )

    images = enumerate(field(read_json(path, skip=skip), 'images', list, path))
    placed = ((image, f'{path}, image {number}') for number, image in images)
    records = [record for record in each(placed, parse, skip=skip) if record is not None]
    if not records:
        raise ValueError(f'{path}: no image of the split {split!r}')
    return records
