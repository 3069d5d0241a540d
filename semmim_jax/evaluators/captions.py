"""Captions against references: BLEU, ROUGE-L, CIDEr, METEOR, SPICE by the field's own code.

`pycocoevalcap` does the scoring, one scorer at a time. Its CIDEr is CIDEr-D. With Java, captions
are split by its Penn Treebank tokeniser, and figures compare with published ones; without, by
lower-casing and dropping punctuation, which is nearly the same for plain captions.
"""

import json
import pathlib
import shutil
from collections.abc import Mapping, Sequence

import numpy as np

from semmim_jax.data.text import clean_caption, part_chinese
from semmim_jax.evaluators.report import Report

Key = int | str


def score_captions(
    captions: Mapping[Key, str],
    references: Mapping[Key, Sequence[str]],
    *,
    java: bool | None = None,
) -> Report:
    """Figures of one caption an image, with CIDEr of shuffled captions as chance.

    Args:
      captions: by image.
      references: by image, the same images. With a made vocabulary give them as
        `tokenizer.plain` has them, since captions cannot hold more.
      java: False does without Java; None uses it if it is there.

    Returns bleu1 to bleu4, rouge_l, cider, and meteor and spice where they can be had; the text
    says what was not available.

    Raises ValueError if the images differ, if there are fewer than two, or without pycocoevalcap.
    """
    _check_images(captions, references)
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge
    except ImportError:
        raise ValueError(
            'captions are scored by pycocoevalcap: run  pip install semmim_jax[eval]'
        ) from None
    java = shutil.which('java') is not None if java is None else java
    split = _penn_treebank if java else _plain_words
    candidates = split({key: [part_chinese(captions[key])] for key in references})
    right = split({key: [part_chinese(t) for t in group] for key, group in references.items()})
    bleu, _ = Bleu(4).compute_score(right, candidates, verbose=0)
    figures = {f'bleu{n}': float(score) for n, score in enumerate(bleu, start=1)}
    figures['rouge_l'] = float(Rouge().compute_score(right, candidates)[0])
    figures['cider'] = float(Cider().compute_score(right, candidates)[0])
    missing = []
    for name, score in (('meteor', _meteor), ('spice', _spice)):
        value = score(right, candidates) if java else None
        if value is None:
            missing.append(name)
        else:
            figures[name] = float(value)
    chance = {'cider': float(Cider().compute_score(right, _shuffled(candidates))[0])}
    text = f'captions: words by {"Penn Treebank" if java else "spaces (no Java)"}'
    if missing:
        text += f'; not available: {", ".join(missing)}'
    return Report(figures, text, chance)


def write_coco_results(path: str | pathlib.Path, captions: Mapping[int, str]) -> None:
    """The results file of COCO's evaluation: [{"image_id": int, "caption": str}, ...]."""
    results = [{'image_id': int(key), 'caption': text} for key, text in captions.items()]
    pathlib.Path(path).write_text(json.dumps(results) + '\n')


def _check_images(captions: Mapping, references: Mapping) -> None:
    for image in captions.keys() - references.keys():
        raise ValueError(f'a caption for the image id {image!r}, which has no references')
    for image in references.keys() - captions.keys():
        raise ValueError(f'no caption for the image id {image!r}')
    if len(references) < 2:
        raise ValueError('CIDEr weighs words by images: it needs at least two')


def _plain_words(texts: Mapping[Key, Sequence[str]]) -> dict[Key, list[str]]:
    return {key: [clean_caption(t, max_words=None) for t in group] for key, group in texts.items()}


def _penn_treebank(texts: Mapping[Key, Sequence[str]]) -> dict[Key, list[str]]:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    groups = {key: [{'caption': text} for text in group] for key, group in texts.items()}
    return PTBTokenizer().tokenize(groups)


def _shuffled(captions: dict[Key, list[str]]) -> dict[Key, list[str]]:
    """Each image gets another image's caption."""
    order = np.random.default_rng(0).permutation(len(captions))
    keys = [list(captions)[i] for i in order]
    return {key: captions[other] for key, other in zip(keys, [*keys[1:], keys[0]], strict=True)}


def _meteor(right: dict, candidates: dict) -> float:
    from pycocoevalcap.meteor.meteor import Meteor

    return Meteor().compute_score(right, candidates)[0]


def _spice(right: dict, candidates: dict) -> float | None:
    """None without the language models that SPICE fetches by itself on first use."""
    from pycocoevalcap.spice import spice

    models = pathlib.Path(spice.__file__).parent / 'lib'
    if not any(models.glob('stanford-corenlp-*-models.jar')):
        return None
    return spice.Spice().compute_score(right, candidates)[0]
