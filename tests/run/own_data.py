"""A user's own data as docs/own_data.md describes it: picture files, and lists beside them."""

import json
import pathlib

import numpy as np
import PIL.Image

COLOURS = {'red': (220, 30, 30), 'green': (30, 180, 60), 'blue': (40, 60, 220)}
SHAPES = ('square', 'bar')


def write_own_data(folder: pathlib.Path, *, images: int = 24, seed: int = 0) -> pathlib.Path:
    """Writes coloured shapes as JPEG and PNG of several sizes; returns the list's path.

    Half of the entries have one caption, half a list of two.
    """
    rng = np.random.default_rng(seed)
    entries = []
    for i in range(images):
        name, colour, shape = _drawn(folder, i, rng)
        text = f'a {colour} {shape} on white'
        caption = text if i % 2 else [text, f'{shape}, {colour}']
        entries.append({'image': name, 'caption': caption})
    path = folder / 'captions.json'
    path.write_text(json.dumps(entries))
    return path


def write_own_folder(folder: pathlib.Path, *, images: int) -> None:
    """Writes the folder of docs/own_data.md: pictures/, captions, questions and labels.

    None of the pictures is a PNG, so that nothing on the page may rely on there being one.
    """
    (folder / 'pictures').mkdir(parents=True)
    rng = np.random.default_rng(0)
    captions, questions, labels = [], [], []
    for i in range(images):
        name, colour, shape = _drawn(folder, i, rng, below='pictures/', kinds=('webp', 'jpg'))
        captions.append({'image': name, 'captions': [f'a {colour} {shape}', f'{shape}, {colour}']})
        asked, answer = (('color', colour), ('shape', shape))[i // 2 % 2]
        prompt = f'what {asked} is it'
        questions.append({'image': name, 'prompt': prompt, 'targets': [answer], 'type': asked})
        labels.append({'image': name, 'label': colour})
    (folder / 'captions.json').write_text(json.dumps(captions))
    for name, entries in (('questions', questions), ('labels', labels)):
        lines = ''.join(json.dumps(entry) + '\n' for entry in entries)
        (folder / f'{name}.jsonl').write_text(lines)


def _drawn(
    folder: pathlib.Path, i: int, rng, *, below: str = '', kinds: tuple[str, str] = ('png', 'jpg')
) -> tuple[str, str, str]:
    """Writes picture `i`: its name, colour and shape. `kinds` are taken in turn."""
    colour, shape = list(COLOURS)[i % 3], SHAPES[i % 2]
    height, width = rng.integers(40, 90, 2)
    picture = np.full((height, width, 3), 230, np.uint8)
    top = height // 4
    bottom = top + (height // 2 if shape == 'square' else 8)
    picture[top:bottom, width // 4 : 3 * width // 4] = COLOURS[colour]
    name = f'{below}{i}.{kinds[i % 2]}'
    PIL.Image.fromarray(picture).save(folder / name)
    return name, colour, shape
