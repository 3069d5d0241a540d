"""The project's own list for generate and classify: one JSON object a line."""

import functools
import math
import pathlib

from semmim_jax.data.json_files import Skip, as_object, each, field, read_entries
from semmim_jax.data.readers.image_texts import ImageText


def read_json_lines(path: str, *, image_root: str, skip: Skip | None = None) -> list[ImageText]:
    """Records of lines with "image", and any of "prompt", "targets", "weights", "label".

    "image": a path or a list of two; "prompt": str, '' if missing; "targets": right answers;
    "weights": one each, 1 / number of targets if missing; "label": str. "id" and "type" become
    question_id and question_type. Relative paths, and `skip`, as in captions.read_captions.

    Raises:
      ValueError: the list is missing, empty or malformed; the message names file and line.
    """
    root = pathlib.Path(image_root or pathlib.Path(path).parent)
    parse = functools.partial(_parse, root=root)
    return list(each(read_entries(path, skip=skip), parse, skip=skip))


def _parse(entry: object, where: str, *, root: pathlib.Path) -> ImageText:
    entry = as_object(entry, where)
    image = field(entry, 'image', (str, list), where)
    paths = image if isinstance(image, list) else [image]
    if len(paths) not in (1, 2) or not all(isinstance(p, str) and p for p in paths):
        raise ValueError(f'{where}: "image" must be a path or a list of two, not {paths!r}')
    targets = field(entry, 'targets', list, where) if 'targets' in entry else []
    for target in targets:
        if not isinstance(target, str) or not target.strip():
            raise ValueError(f'{where}: empty target {target!r}')
    if len(set(targets)) != len(targets):
        raise ValueError(f'{where}: a target is there twice; say so by its weight')
    weights = [1 / len(targets) for _ in targets]
    if 'weights' in entry:
        weights = field(entry, 'weights', list, where)
        if len(weights) != len(targets) or not all(_positive(w) for w in weights):
            raise ValueError(f'{where}: "weights" must be one number above 0 for each target')
    return ImageText(
        images=tuple(str(root / p) for p in paths),
        where=where,
        prompt=field(entry, 'prompt', str, where) if 'prompt' in entry else '',
        targets=tuple(targets),
        weights=tuple(float(w) for w in weights),
        label=field(entry, 'label', str, where) if 'label' in entry else None,
        question_id=field(entry, 'id', (str, int), where) if 'id' in entry else None,
        question_type=field(entry, 'type', str, where) if 'type' in entry else None,
    )


def _positive(weight: object) -> bool:
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        return False
    return math.isfinite(weight) and weight > 0
