"""A trained model on every image of a folder, chunk by chunk, into one file."""

import json
import pathlib
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import tqdm

from semmim_jax.data.images import read_image
from semmim_jax.data.replacing import UnreadableRecord
from semmim_jax.inference.model import Model, load

SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp')


def predict_folder(
    action: str,
    *,
    workdir: str,
    images: str,
    out: str,
    texts: Sequence[str],
    texts_file: str,
    params: str,
    batch_size: int,
) -> None:
    """Writes `out`; an unreadable image is named and left out.

    Args:
      action: a key of ACTIONS.
      workdir, params, batch_size: of `semmim_jax.load`.
      images: a folder; every image under it is taken.
      out: the file to write, in .jsonl, or .npy of embed.
      texts, texts_file: questions, prompts or captions, and a file with one a line.

    Raises:
      ValueError: for an unknown folder or file, a missing text, or a task that cannot do it.
    """
    run = ACTIONS[action]
    suffix = '.npy' if action == 'embed' else '.jsonl'
    if pathlib.Path(out).suffix != suffix:
        raise ValueError(f'--out={out}: {action} writes a {suffix} file')
    folder = pathlib.Path(images)
    paths = sorted(p for p in folder.rglob('*') if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise ValueError(f'--images={images}: no {", ".join(SUFFIXES)} file in this folder')
    if texts_file:
        texts = [*texts, *_lines(texts_file)]
    if not texts and action in ('answer', 'match'):
        raise ValueError(f'{action} needs --text or --texts')
    model = load(workdir, params=params, batch_size=batch_size)
    run(model, _chunks(model, folder, paths), pathlib.Path(out), list(texts))
    print(f'wrote {out}')


def _caption(model: Model, chunks, out: pathlib.Path, texts: list[str]) -> None:
    def lines(names, pixels):
        for prompt in texts or ['']:
            told = {'prompt': prompt} if prompt else {}
            for name, caption in zip(names, model.caption(pixels, prompt), strict=True):
                yield {'image': name, **told, 'caption': caption}

    _write_lines(chunks, out, lines)


def _answer(model: Model, chunks, out: pathlib.Path, texts: list[str]) -> None:
    def lines(names, pixels):
        for question in texts:
            answers = model.answer(pixels, [question] * len(pixels))
            for name, answer in zip(names, answers, strict=True):
                yield {'image': name, 'question': question, 'answer': answer}

    _write_lines(chunks, out, lines)


def _match(model: Model, chunks, out: pathlib.Path, texts: list[str]) -> None:
    def lines(names, pixels):
        for name, odds in zip(names, model.match(pixels, texts), strict=True):
            match = {text: round(float(p), 6) for text, p in zip(texts, odds, strict=True)}
            yield {'image': name, 'match': match}

    _write_lines(chunks, out, lines)


def _embed(model: Model, chunks, out: pathlib.Path, texts: list[str]) -> None:
    names, features = [], []
    for some, pixels in chunks:
        names += some
        features.append(model.encode_image(pixels))
    np.save(out, np.concatenate(features))
    rows = ''.join(json.dumps({'image': name}) + '\n' for name in names)
    out.with_suffix('.jsonl').write_text(rows)


ACTIONS = {'caption': _caption, 'answer': _answer, 'match': _match, 'embed': _embed}


def _write_lines(chunks, out: pathlib.Path, lines) -> None:
    with out.open('w', encoding='utf-8') as file:
        for names, pixels in chunks:
            for line in lines(names, pixels):
                file.write(json.dumps(line, ensure_ascii=False) + '\n')


def _chunks(model: Model, folder, paths) -> Iterator[tuple[list[str], list[np.ndarray]]]:
    """Names and pixels of readable images, `model.batch_size` at a time, with progress."""
    data, skipped, names, pixels = model.config.data, 0, [], []
    for path in tqdm.tqdm(paths, unit='image', disable=None):
        try:
            pixels.append(read_image(path, decoder=data.decoder, max_pixels=data.max_pixels))
        except UnreadableRecord as error:
            print(f'left out: {error}', file=sys.stderr)
            skipped += 1
            continue
        names.append(str(path.relative_to(folder)))
        if len(names) == model.batch_size:
            yield names, pixels
            names, pixels = [], []
    if names:
        yield names, pixels
    if skipped == len(paths):
        raise ValueError(f'{folder}: no image could be read')


def _lines(path: str) -> list[str]:
    try:
        text = pathlib.Path(path).read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f'--texts={path}: {getattr(error, "strerror", None) or error}') from None
    return [line.strip() for line in text.splitlines() if line.strip()]
