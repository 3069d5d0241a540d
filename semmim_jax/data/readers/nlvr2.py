"""NLVR2: statements about two images, from the official JSON lines."""

import pathlib
from typing import TypedDict

from semmim_jax.data.json_files import Skip, as_object, each, field, read_entries, shown
from semmim_jax.data.readers.image_texts import ImageText


class _Statement(TypedDict):
    """Fields of ImageText."""

    where: str
    prompt: str
    label: str | None
    question_id: str


def read_nlvr2(path: str, *, image_root: str, skip: Skip | None = None) -> list[ImageText]:
    """Records of train.json, dev.json or test1.json: two images, a prompt, label True or False.

    The images of dev-850-0-1 are dev-850-0-img0.png and -img1.png. They are sought in
    images/SPLIT/DIRECTORY, SPLIT/DIRECTORY and DIRECTORY under IMAGE_ROOT, where only train has a
    DIRECTORY; the first that has the images of the first line is taken for all. `skip` is
    called with the error of each malformed entry; without it the first is raised.

    Raises:
      ValueError: file missing or malformed, or the first line's images are in none of the places.
    """
    root = pathlib.Path(image_root or pathlib.Path(path).parent)
    parsed = list(each(read_entries(path, skip=skip), _parse, skip=skip))
    if not parsed:
        raise ValueError(f'{path}: no entries')
    split, directory, names, _ = parsed[0]
    layouts = (f'images/{split}', split, '')
    tried = [root / layout / directory / names[0] for layout in layouts]
    chosen = next((n for n, image in enumerate(tried) if image.exists()), None)
    if chosen is None:
        raise ValueError(f'{path}: none of {", ".join(shown(str(x)) for x in tried)} exists')
    return [
        ImageText(
            images=tuple(str(root / layouts[chosen] / directory / name) for name in names), **fields
        )
        for _, directory, names, fields in parsed
    ]


def _parse(entry: object, where: str) -> tuple[str, str, list[str], _Statement]:
    """Split, directory, image names, and the other fields of ImageText."""
    entry = as_object(entry, where)
    identifier = field(entry, 'identifier', str, where)
    name = shown(identifier)
    pair, _, sentence = identifier.rpartition('-')
    if not (pair and sentence.isdigit()):
        raise ValueError(f'{where}: "identifier" must be SPLIT-SET-PAIR-SENTENCE, not {name}')
    label = None
    if 'label' in entry:
        label = str(entry['label']).capitalize()
        if label not in ('True', 'False'):
            raise ValueError(f'{where}: "label" must be True or False, not {entry["label"]!r}')
    directory = str(field(entry, 'directory', (str, int), where)) if 'directory' in entry else ''
    fields: _Statement = {
        'where': f'{where} ({name})',
        'prompt': field(entry, 'sentence', str, where),
        'label': label,
        'question_id': identifier,
    }
    return identifier.split('-')[0], directory, [f'{pair}-img{n}.png' for n in (0, 1)], fields
