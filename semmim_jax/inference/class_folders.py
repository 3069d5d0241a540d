"""Zero-shot classification of a folder of images, with accuracy where folders name the classes."""

import pathlib
from collections.abc import Sequence

import numpy as np

from semmim_jax.inference.folder import (
    image_chunks,
    lines_of,
    list_images,
    name_others,
    write_lines,
)

RANKS = (1, 5)  # of accuracy


def classify_folder(
    *,
    workdir: str,
    images: str,
    out: str,
    labels: str,
    templates: Sequence[str],
    rerank: int,
    top: int,
    params: str,
    batch_size: int,
) -> None:
    """Writes a line an image with its likeliest labels; see inference/zero_shot.py.

    Where the first folder below `images` has the name of a label (whatever the case, _ for a
    space), that is the image's true one; the accuracy on these is printed with chance beside.

    Args:
      workdir, params, batch_size: of `semmim_jax.load`.
      images: an image or a folder.
      out: the .jsonl to write; it appears when it is complete.
      labels: a file with one a line, or the labels with commas between.
      templates: texts with '{}' for the label, and files of them.
      rerank: labels an image that ITM looks at again.
      top: labels a line.

    Raises:
      ValueError: for unknown files, and what `ZeroShot` refuses.
    """
    if pathlib.Path(out).suffix != '.jsonl':
        raise ValueError(f'--out={out}: classify writes a .jsonl file')
    folder, paths, others = list_images(images)
    names = lines_of(labels, flag='--labels') if pathlib.Path(labels).is_file() else None
    names = names or [name.strip() for name in labels.split(',') if name.strip()]
    texts = [
        text
        for template in templates
        for text in ([template] if '{}' in template else lines_of(template, flag='--templates'))
    ]
    from semmim_jax.inference.model import load
    from semmim_jax.inference.zero_shot import ZeroShot

    model = load(workdir, params=params, batch_size=batch_size)
    classify = ZeroShot(model, names, templates=texts or ['{}'], rerank=rerank)
    skipped, ranks = name_others(others), []
    class_of = {_plain(name): number for number, name in enumerate(names)}

    def lines(image_names, pixels):
        for image, shares in zip(image_names, classify(pixels), strict=True):
            order = np.argsort(-shares, kind='stable')
            line = {'image': image}
            true = class_of.get(_plain(pathlib.Path(image).parts[0]))
            if true is not None:
                ranks.append(int(np.flatnonzero(order == true)[0]))
                line['label'] = names[true]
            best = {names[i]: round(float(shares[i]), 6) for i in order[:top]}
            yield {**line, 'labels': best}

    write_lines(image_chunks(model, folder, paths, skipped), pathlib.Path(out), lines)
    count = len(paths) + len(others) - len(skipped)
    print(f'wrote {out}; images: {count}, files left out: {len(skipped)}')
    if ranks:
        print(_accuracy(np.array(ranks), classes=len(names)))


def _accuracy(ranks: np.ndarray, *, classes: int) -> str:
    figures = ', '.join(
        f'top-{k} {(ranks < k).mean():.1%} (chance {k / classes:.1%})' for k in RANKS if k < classes
    )
    return f'accuracy on {len(ranks)} images in folders that name a label: {figures}'


def _plain(name: str) -> str:
    return ' '.join(name.lower().replace('_', ' ').split())
