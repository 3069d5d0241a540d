"""Visual Genome's own files: region_descriptions.json and question_answers.json."""

import os
import pathlib

from semmim_jax.data.json_files import Skip, each, field, read_json
from semmim_jax.data.readers.image_texts import ImageText

_FOLDERS = ('VG_100K', 'VG_100K_2')
# ALBEF's weight of an answer that one annotator gave, beside VQA v2's shares of ten annotators.
ONE_ANSWER = 0.5


def read_vg(path: str, *, image_root: str, skip: Skip | None = None) -> list[ImageText]:
    """Records of region_descriptions.json, one an image with the phrases of its regions.

    Image 1 is 1.jpg in VG_100K or VG_100K_2 under IMAGE_ROOT, or in IMAGE_ROOT itself. A phrase may
    be there several times. `skip` is called with the error of each malformed image; without it the
    first is raised.

    Raises:
      ValueError: the file is missing, empty or malformed.
    """
    root = pathlib.Path(image_root or pathlib.Path(path).parent)

    def parse(entry: object, where: str) -> ImageText:
        image_id = field(entry, 'id', int, where)
        where = f'{path}, image id {image_id}'
        phrases = [field(r, 'phrase', str, where) for r in field(entry, 'regions', list, where)]
        return ImageText(
            images=(image_path(root, image_id),),
            where=where,
            image_id=image_id,
            captions=tuple(phrases) or ('',),
        )

    return list(each(_images(path, skip), parse, skip=skip))


def read_vgqa(path: str, *, image_root: str, skip: Skip | None = None) -> list[ImageText]:
    """Records of question_answers.json, one a question; images and `skip` as in `read_vg`.

    Answers stay as they are, "Black." with its full stop: normalise_answer drops it.

    Raises:
      ValueError: the file is missing, empty or malformed.
    """
    root = pathlib.Path(image_root or pathlib.Path(path).parent)
    records: list[ImageText] = []
    for entry, where in _images(path, skip):
        image = list(each([(entry, where)], _image_of_questions, skip=skip))
        for image_id, questions in image:
            place = image_path(root, image_id)

            def parse(
                question: object, where: str, image_id: int = image_id, place: str = place
            ) -> ImageText:
                question_id = field(question, 'qa_id', int, where)
                where = f'{path}, question {question_id}'
                return ImageText(
                    images=(place,),
                    where=where,
                    image_id=image_id,
                    prompt=field(question, 'question', str, where),
                    targets=(field(question, 'answer', str, where),),
                    weights=(ONE_ANSWER,),
                    question_id=question_id,
                )

            placed = ((question, f'{path}, image id {image_id}') for question in questions)
            records += each(placed, parse, skip=skip)
    if not records:
        raise ValueError(f'{path}: no questions')
    return records


def image_path(root: pathlib.Path, image_id: int) -> str:
    """Where an image is; below the first folder if it is nowhere."""
    for folder in (*_FOLDERS, ''):
        path = os.path.join(root, folder, f'{image_id}.jpg')
        if os.path.exists(path):
            return path
    return os.path.join(root, _FOLDERS[0], f'{image_id}.jpg')


def _image_of_questions(entry: object, where: str) -> tuple[int, list[object]]:
    return field(entry, 'id', int, where), field(entry, 'qas', list, where)


def _images(path: str, skip: Skip | None) -> list[tuple[object, str]]:
    images = read_json(path, skip=skip)
    if not isinstance(images, list) or not images:
        raise ValueError(f'{path}: a list of images is needed')
    return [(entry, f'{path}, image {n}') for n, entry in enumerate(images)]
