"""Tests of composition, from the official files of SugarCrepe, ARO and Winoground.

A record has its captions and, in `wrong`, captions that its image does not show; Winoground's has
two images and two captions, caption i of image i.
"""

import pathlib

from semmim_jax.data.json_files import Skip, as_object, each, field, read_entries, read_json
from semmim_jax.data.readers.image_texts import ImageText


def read_sugarcrepe(path: str, *, image_root: str, skip: Skip | None = None) -> list[ImageText]:
    """Records of swap_att.json, replace_rel.json, ...: {"0": {"filename", "caption",
    "negative_caption"}, ...}; images are COCO's val2017, IMAGE_ROOT/filename.

    Raises:
      ValueError: file missing or malformed; the message names file and entry.
    """
    root = pathlib.Path(image_root or pathlib.Path(path).parent)
    kind = pathlib.Path(path).stem
    entries = as_object(read_json(path, skip=skip), path)

    def parse(entry: object, where: str) -> ImageText:
        entry = as_object(entry, where)
        return ImageText(
            images=(str(root / field(entry, 'filename', str, where)),),
            where=where,
            captions=(_text(entry, 'caption', where),),
            wrong=(_text(entry, 'negative_caption', where),),
            question_type=kind,
        )

    placed = ((entry, f'{path}, entry {key!r}') for key, entry in entries.items())
    return _some(path, list(each(placed, parse, skip=skip)))


def read_aro(path: str, *, image_root: str, skip: Skip | None = None) -> list[ImageText]:
    """Records of visual_genome_relation.json and visual_genome_attribution.json.

    An entry has "image_path", the box "bbox_x", "bbox_y", "bbox_w", "bbox_h" to which its image is
    cut, "true_caption" and "false_caption", and "relation_name" or two "attributes", which are its
    kind.

    Raises:
      ValueError: as `read_sugarcrepe`.
    """
    root = pathlib.Path(image_root or pathlib.Path(path).parent)

    def parse(entry: object, where: str) -> ImageText:
        entry = as_object(entry, where)
        left, top, width, height = (
            int(field(entry, f'bbox_{name}', (int, float), where)) for name in 'xywh'
        )
        if width < 1 or height < 1:
            raise ValueError(f'{where}: the box is {width} x {height} pixels')
        if 'attributes' in entry:
            kind = '_'.join(map(str, field(entry, 'attributes', list, where)))
        else:
            kind = field(entry, 'relation_name', str, where)
        return ImageText(
            images=(str(root / field(entry, 'image_path', str, where)),),
            box=(left, top, left + width, top + height),
            where=where,
            captions=(_text(entry, 'true_caption', where),),
            wrong=(_text(entry, 'false_caption', where),),
            question_type=kind,
        )

    return _some(path, list(each(read_entries(path, skip=skip), parse, skip=skip)))


def read_winoground(path: str, *, image_root: str, skip: Skip | None = None) -> list[ImageText]:
    """Records of examples.jsonl: "image_0", "image_1", "caption_0", "caption_1", "collapsed_tag".

    The image of ex_0_img_0 is IMAGE_ROOT/images/ex_0_img_0.png.

    Raises:
      ValueError: as `read_sugarcrepe`.
    """
    root = pathlib.Path(image_root or pathlib.Path(path).parent)

    def parse(entry: object, where: str) -> ImageText:
        entry = as_object(entry, where)
        names = [field(entry, f'image_{n}', str, where) for n in (0, 1)]
        return ImageText(
            images=tuple(str(root / 'images' / f'{name}.png') for name in names),
            where=where,
            captions=tuple(_text(entry, f'caption_{n}', where) for n in (0, 1)),
            question_type=field(entry, 'collapsed_tag', str, where)
            if 'collapsed_tag' in entry
            else None,
        )

    return _some(path, list(each(read_entries(path, skip=skip), parse, skip=skip)))


def _text(entry: dict[str, object], name: str, where: str) -> str:
    text = field(entry, name, str, where)
    if not text.strip():
        raise ValueError(f'{where}: "{name}" is empty')
    return text


def _some(path: str, records: list[ImageText]) -> list[ImageText]:
    if not records:
        raise ValueError(f'{path}: no entries')
    return records
