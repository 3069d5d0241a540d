"""Karpathy's splits of COCO and Flickr30K: dataset_coco.json, dataset_flickr30k.json."""

import pathlib

from semmim_jax.data.json_files import field, read_json, shown
from semmim_jax.data.readers.captions import check_captions
from semmim_jax.data.readers.image_texts import ImageText

# 'restval' are the images of COCO's validation set that everybody trains on.
_PARTS = {'train': ('train', 'restval'), 'val': ('val',), 'test': ('test',)}


def read_karpathy(argument: str, *, image_root: str) -> list[ImageText]:
    """Records of 'FILE:SPLIT', one an image with all its captions; 'train' includes 'restval'.

    Images are IMAGE_ROOT/filepath/filename (Flickr30K has no filepath); image_id is COCO's where
    the file has it, else the file's imgid.

    Raises:
      ValueError: file missing or malformed, unknown or empty split, an image without captions.
    """
    path, _, split = argument.rpartition(':')
    if not path or split not in _PARTS:
        raise ValueError(
            f"karpathy:{argument}: must be 'karpathy:FILE:SPLIT', SPLIT train|val|test"
        )
    root = pathlib.Path(image_root or pathlib.Path(path).parent)
    records = []
    for number, image in enumerate(field(read_json(path), 'images', list, path)):
        where = f'{path}, image {number}'
        if field(image, 'split', str, where) not in _PARTS[split]:
            continue
        name = field(image, 'filename', str, where)
        where = f'{where} ({shown(name)})'
        folder = field(image, 'filepath', str, where) if 'filepath' in image else ''
        sentences = field(image, 'sentences', list, where)
        if not sentences:
            raise ValueError(f'{where}: no captions')
        records.append(
            ImageText(
                images=(str(root / folder / name),),
                where=where,
                image_id=field(image, 'cocoid' if 'cocoid' in image else 'imgid', int, where),
                captions=check_captions([field(s, 'raw', str, where) for s in sentences], where),
            )
        )
    if not records:
        raise ValueError(f'{path}: no image of the split {split!r}')
    return records
