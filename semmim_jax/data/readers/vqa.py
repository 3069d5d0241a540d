"""VQA v2: the official questions and annotations over COCO's image folders."""

import pathlib
from collections import Counter
from typing import TypedDict

from semmim_jax.data.json_files import DuplicateEntry, Skip, each, field, read_json
from semmim_jax.data.readers.image_texts import ImageText


class _Answers(TypedDict, total=False):
    """Fields of ImageText."""

    targets: tuple[str, ...]
    weights: tuple[float, ...]
    annotators: tuple[str, ...]
    question_type: str
    answer_type: str


def read_vqa(argument: str, *, image_root: str, skip: Skip | None = None) -> list[ImageText]:
    """Records of 'QUESTIONS' (test sets) or 'QUESTIONS,ANNOTATIONS', one a question.

    Image 9 of train2014 is IMAGE_ROOT/train2014/COCO_train2014_000000000009.jpg. targets are the
    distinct answers that are not empty, weights their share of the annotators. `skip` is
    called with the error of each malformed question or annotation; without it the first is raised.

    Raises:
      ValueError: a file missing or malformed; a question without annotation, an annotation without
        question or of another image.
    """
    path, _, annotations = argument.partition(',')
    data = read_json(path, skip=skip)
    subset = field(data, 'data_subtype', str, path).replace('-dev', '')  # test-dev2015: test2015
    folder = pathlib.Path(image_root or pathlib.Path(path).parent) / subset
    answers = _read_annotations(annotations, skip) if annotations else None

    def parse(entry: object, where: str) -> ImageText:
        question_id = field(entry, 'question_id', int, where)
        where = f'{path}, question {question_id}'
        image_id = field(entry, 'image_id', int, where)
        known: _Answers = {}
        if answers is not None:
            if question_id not in answers:
                raise ValueError(f'{where}: {annotations} has no annotation of it')
            annotated_image, known = answers.pop(question_id)
            if annotated_image != image_id:
                raise ValueError(
                    f'{where}: image id {image_id} here, {annotated_image} in {annotations}'
                )
        return ImageText(
            images=(str(folder / f'COCO_{subset}_{image_id:012d}.jpg'),),
            where=where,
            image_id=image_id,
            prompt=field(entry, 'question', str, where),
            question_id=question_id,
            **known,
        )

    placed = ((entry, path) for entry in field(data, 'questions', list, path))
    records = list(each(placed, parse, skip=skip))
    if answers:
        question = min(answers)
        lost = ValueError(f'{annotations}, question {question}: {path} has no such question')
        if skip is None:
            raise lost
        skip(lost)
    if not records:
        raise ValueError(f'{path}: no questions')
    return records


def _read_annotations(path: str, skip: Skip | None) -> dict[int, tuple[int, _Answers]]:
    """(image id, fields of ImageText) by question id."""
    annotations: dict[int, tuple[int, _Answers]] = {}

    def parse(entry: object, where: str) -> None:
        question_id = field(entry, 'question_id', int, where)
        where = f'{path}, question {question_id}'
        if question_id in annotations:
            raise DuplicateEntry(f'{where}: annotated twice')
        annotators = [field(a, 'answer', str, where) for a in field(entry, 'answers', list, where)]
        counts = Counter(' '.join(answer.split()) for answer in annotators)
        counts.pop('', None)
        if not counts:
            raise ValueError(f'{where}: no answer that is not empty')
        annotations[question_id] = (
            field(entry, 'image_id', int, where),
            {
                'targets': tuple(answer for answer, _ in counts.most_common()),
                'weights': tuple(n / len(annotators) for _, n in counts.most_common()),
                'annotators': tuple(annotators),
                'question_type': field(entry, 'question_type', str, where),
                'answer_type': field(entry, 'answer_type', str, where),
            },
        )

    placed = ((e, path) for e in field(read_json(path, skip=skip), 'annotations', list, path))
    list(each(placed, parse, skip=skip))
    return annotations
