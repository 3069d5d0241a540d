"""ALBEF's lists: image and caption, or its fine-tuning lists of VQA and NLVR2."""

import pathlib
from collections import Counter

from semmim_jax.data.json_files import Skip, as_object, each, field, read_entries
from semmim_jax.data.readers.captions import captioned
from semmim_jax.data.readers.image_texts import ImageText
from semmim_jax.data.readers.visual_genome import ONE_ANSWER


def read_albef(path: str, *, image_root: str, skip: Skip | None = None) -> list[ImageText]:
    """Records of a JSON array, or one JSON object a line, each by the keys that it has.

    {"image", "caption"}, see captions.read_captions; {"question_id", "question", "answer", "image",
    "dataset"}, where "answer" is one answer of "vg" or a list of the annotators' of "vqa";
    {"sentence", "label", "images"}, two images. Paths and `skip` as in captions.read_captions.

    Raises:
      ValueError: the list is missing, empty or malformed; the message names file and entry.
    """
    root = pathlib.Path(image_root or pathlib.Path(path).parent)

    def parse(entry: object, where: str) -> ImageText:
        keys = as_object(entry, where)
        if 'question' in keys:
            return _question(entry, where, root)
        return (
            _statement(entry, where, root) if 'sentence' in keys else captioned(entry, where, root)
        )

    return list(each(read_entries(path, skip=skip), parse, skip=skip))


def _question(entry: object, where: str, root: pathlib.Path) -> ImageText:
    targets: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    annotators: tuple[str, ...] = ()
    if 'answer' in as_object(entry, where):  # test lists have none
        answer = field(entry, 'answer', (str, list), where)
        if isinstance(answer, str):
            targets, weights = (answer,), (ONE_ANSWER,)
        else:
            if not answer or not all(isinstance(a, str) and a.strip() for a in answer):
                raise ValueError(f'{where}: "answer" must be an answer or a list of them')
            annotators = tuple(answer)
            counts = Counter(' '.join(a.split()) for a in annotators).most_common()
            targets = tuple(a for a, _ in counts)
            weights = tuple(n / len(annotators) for _, n in counts)
    return ImageText(
        images=(str(root / field(entry, 'image', str, where)),),
        where=where,
        prompt=field(entry, 'question', str, where),
        targets=targets,
        weights=weights,
        annotators=annotators,
        question_id=field(entry, 'question_id', (int, str), where),
    )


def _statement(entry: object, where: str, root: pathlib.Path) -> ImageText:
    images = field(entry, 'images', list, where)
    if len(images) != 2 or not all(isinstance(path, str) and path for path in images):
        raise ValueError(f'{where}: "images" must be two paths, not {images!r:.60}')
    label = str(field(entry, 'label', (str, bool), where)).capitalize()
    if label not in ('True', 'False'):
        raise ValueError(f'{where}: "label" must be True or False, not {label!r:.60}')
    return ImageText(
        images=tuple(str(root / path) for path in images),
        where=where,
        prompt=field(entry, 'sentence', str, where),
        label=label,
    )
