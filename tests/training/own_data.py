"""A user's own data as the README describes it: picture files and a list of captions."""

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
        colour, shape = list(COLOURS)[i % 3], SHAPES[i % 2]
        height, width = rng.integers(40, 90, 2)
        picture = np.full((height, width, 3), 230, np.uint8)
        top = height // 4
        bottom = top + (height // 2 if shape == 'square' else 8)
        picture[top:bottom, width // 4 : 3 * width // 4] = COLOURS[colour]
        name = f'{i}.{"jpg" if i % 2 else "png"}'
        PIL.Image.fromarray(picture).save(folder / name)
        text = f'a {colour} {shape} on white'
        caption = text if i % 2 else [text, f'{shape}, {colour}']
        entries.append({'image': name, 'caption': caption})
    path = folder / 'captions.json'
    path.write_text(json.dumps(entries))
    return path
