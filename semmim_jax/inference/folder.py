"""A trained model on an image, or on every image of a folder, chunk by chunk, into one file."""

import contextlib
import json
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tqdm

from semmim_jax.data.images import read_image
from semmim_jax.data.unreadable import UnreadableRecord

if TYPE_CHECKING:  # with JAX, which takes seconds: after the arguments were checked
    from semmim_jax.inference.model import Model, Written

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
    """Writes `out`; a file that is no image, or cannot be read, is named, left out and counted.

    The file appears when it is complete. Until then, and after an error, what there is of it is
    `out` with '.partial' behind its name.

    Args:
      action: a key of ACTIONS.
      workdir, params, batch_size: of `semmim_jax.load`.
      images: an image; or a folder, of which every image is taken, those in its subfolders too.
      out: the file to write, in .jsonl, or .npy of embed; one that exists is replaced.
      texts, texts_file: questions, prompts or captions, and a file with one a line.

    Raises:
      ValueError: for an unknown folder or file, a missing text, or a task that cannot do it.
    """
    run, suffix = ACTIONS[action], '.npy' if action == 'embed' else '.jsonl'
    if pathlib.Path(out).suffix != suffix:
        raise ValueError(f'--out={out}: {action} writes a {suffix} file')
    folder, paths, others = list_images(images)
    if texts_file:
        texts = [*texts, *lines_of(texts_file, flag='--texts')]
    if not texts and action in ('answer', 'match', 'explain'):
        raise ValueError(f'{action} needs --text or --texts')
    from semmim_jax.inference.model import load

    model = load(workdir, params=params, batch_size=batch_size)
    skipped = name_others(others)
    run(model, image_chunks(model, folder, paths, skipped), pathlib.Path(out), list(texts))
    count = len(paths) + len(others) - len(skipped)
    print(f'wrote {out}; images: {count}, files left out: {len(skipped)}')


def name_others(others: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """Says which files of a folder are no images; gives them as a list to add to."""
    for path in others:
        print(f'left out: {path}: not {", ".join(SUFFIXES)}', file=sys.stderr)
    return list(others)


def list_images(images: str) -> tuple[pathlib.Path, list[pathlib.Path], list[pathlib.Path]]:
    """The folder, its images, and its other files; hidden ones do not count."""
    place = pathlib.Path(images)
    if place.is_file():
        return place.parent, [place], []
    if not place.is_dir():
        raise ValueError(f'--images={images}: no such file or folder')
    files = sorted(p for p in place.rglob('*') if p.is_file() and not p.name.startswith('.'))
    paths = [path for path in files if path.suffix.lower() in SUFFIXES]
    if not paths:
        raise ValueError(f'--images={images}: no {", ".join(SUFFIXES)} file in this folder')
    return place, paths, [path for path in files if path.suffix.lower() not in SUFFIXES]


def _caption(model: 'Model', chunks, out: pathlib.Path, texts: list[str]) -> None:
    def lines(names, pixels):
        for prompt in texts or ['']:
            inputs = {'prompt': prompt} if prompt else {}
            for name, caption in zip(names, model.scored_captions(pixels, prompt), strict=True):
                yield {'image': name, **inputs, 'caption': caption.text, **_score(caption)}

    write_lines(chunks, out, lines)


def _answer(model: 'Model', chunks, out: pathlib.Path, texts: list[str]) -> None:
    def lines(names, pixels):
        for question in texts:
            answers = model.scored_answers(pixels, [question] * len(pixels))
            for name, answer in zip(names, answers, strict=True):
                inputs = {'image': name, 'question': question}
                yield {**inputs, 'answer': answer.text, **_score(answer)}

    write_lines(chunks, out, lines)


def _score(written: 'Written') -> dict[str, float]:
    return {'score': round(written.score, 6)}


def _match(model: 'Model', chunks, out: pathlib.Path, texts: list[str]) -> None:
    def lines(names, pixels):
        for name, odds in zip(names, model.match(pixels, texts), strict=True):
            match = {text: round(float(p), 6) for text, p in zip(texts, odds, strict=True)}
            yield {'image': name, 'match': match}

    write_lines(chunks, out, lines)


def _embed(model: 'Model', chunks, out: pathlib.Path, texts: list[str]) -> None:
    names, features = [], []
    for chunk_names, pixels in chunks:
        names += chunk_names
        features.append(model.encode_image(pixels))
    with _completed(out) as partial, partial.open('wb') as file:
        np.save(file, np.concatenate(features))
    names_file = ''.join(json.dumps({'image': name}) + '\n' for name in names)
    out.with_suffix('.jsonl').write_text(names_file)


def _explain(model: 'Model', chunks, out: pathlib.Path, texts: list[str]) -> None:
    from semmim_jax.inference.explanation import write_maps

    folder = out.with_suffix('')

    def lines(names, pixels):
        for number, text in enumerate(texts, start=1):
            explanations = model.explain(pixels, [text] * len(pixels))
            for name, image, explanation in zip(names, pixels, explanations, strict=True):
                path = folder / f'{name}.{number}.npz'
                write_maps(explanation, path, image=image, text=text)
                files = {'maps': path, 'picture': path.with_suffix('.png')}
                files = {key: str(file.relative_to(out.parent)) for key, file in files.items()}
                yield {'image': name, 'text': text, 'match': round(explanation.match, 6), **files}

    write_lines(chunks, out, lines)


ACTIONS = {
    'caption': _caption,
    'answer': _answer,
    'match': _match,
    'embed': _embed,
    'explain': _explain,
}


def write_lines(chunks, out: pathlib.Path, lines: Callable[..., Iterator[dict]]) -> None:
    """Writes what `lines` makes of names and pixels, chunk by chunk, as JSON lines."""
    with _completed(out) as partial, partial.open('w', encoding='utf-8') as file:
        for names, pixels in chunks:
            for line in lines(names, pixels):
                file.write(json.dumps(line, ensure_ascii=False) + '\n')


@contextlib.contextmanager
def _completed(out: pathlib.Path) -> Iterator[pathlib.Path]:
    """Where to write, which becomes `out` at the end; after an error it stays if it holds any."""
    partial = out.with_name(f'{out.name}.partial')
    try:
        yield partial
        partial.replace(out)
    except BaseException:
        if partial.exists() and not partial.stat().st_size:
            partial.unlink()
        raise


def image_chunks(
    model: 'Model', folder: pathlib.Path, paths: list[pathlib.Path], skipped: list[Any]
) -> Iterator[tuple[list[str], list[np.ndarray]]]:
    """Names and pixels of readable images, `model.batch_size` at a time, with progress.

    Adds those that cannot be read to `skipped`.
    """
    data, unreadable, names, pixels = model.config.data, 0, [], []
    for path in tqdm.tqdm(paths, unit='image', disable=None):
        try:
            pixels.append(read_image(path, decoder=data.decoder, max_pixels=data.max_pixels))
        except UnreadableRecord as error:
            print(f'left out: {error}', file=sys.stderr)
            skipped.append(path)
            unreadable += 1
            continue
        names.append(str(path.relative_to(folder)))
        if len(names) == model.batch_size:
            yield names, pixels
            names, pixels = [], []
    if names:
        yield names, pixels
    if unreadable == len(paths):
        raise ValueError(f'{folder}: no image could be read')


def lines_of(path: str, *, flag: str) -> list[str]:
    """The lines of a text file that are not empty."""
    try:
        text = pathlib.Path(path).read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f'{flag}={path}: {getattr(error, "strerror", None) or error}') from None
    return [line.strip() for line in text.splitlines() if line.strip()]
