"""easy-VQA: questions about one coloured shape, from the package `easy-vqa`."""

from semmim_jax.data.readers.image_texts import ImageText


def read_easy_vqa(split: str, *, image_root: str) -> list[ImageText]:
    """Records of the split 'train' or 'test'; question_type by the question's first words.

    Args:
      split: of the package.
      image_root: not read: the images are in the package.

    Raises:
      ValueError: another split, or the package is not installed.
    """
    del image_root
    if split not in ('train', 'test'):
        raise ValueError(f'easy_vqa:{split}: must be easy_vqa:train or easy_vqa:test')
    try:
        import easy_vqa
    except ImportError:
        raise ValueError('easy_vqa needs a package: run  pip install semmim_jax[eval]') from None
    if split == 'train':
        questions, paths = easy_vqa.get_train_questions(), easy_vqa.get_train_image_paths()
    else:
        questions, paths = easy_vqa.get_test_questions(), easy_vqa.get_test_image_paths()
    return [
        ImageText(
            images=(paths[image_id],),
            where=f'easy_vqa:{split}, question {number}',
            image_id=image_id,
            prompt=question,
            targets=(answer,),
            weights=(1.0,),
            question_id=number,
            question_type=_kind(question),
        )
        for number, (question, answer, image_id) in enumerate(zip(*questions, strict=True))
    ]


def _kind(question: str) -> str:
    """The four kinds of question that there are; of 'is there' and 'is there not' most answers are
    no and yes."""
    words = question.rstrip('?').split()
    if words[0] == 'what':
        return 'color' if 'color' in words else 'shape'
    return 'is there not' if {'not', 'no'} & set(words) else 'is there'
