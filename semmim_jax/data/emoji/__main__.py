"""Draws a contact sheet of emoji scenes with their captions, or writes them as files.

    python -m semmim_jax.data.emoji --split=train --count=24 --out=scenes.png
    python -m semmim_jax.data.emoji --split=held_out_style --patches --out=scenes.png
    python -m semmim_jax.data.emoji --export=FOLDER --count=300

Options of the scenes come from the config and can be set as in training, for example
--config.data.emoji_scenes.max_objects=3. With --patches, patches that an object covers are outlined
in the colour of the object, as the patch labels have them. --export writes pictures/*.png and the
lists captions.json, questions.jsonl and labels.jsonl (docs/own_data.md) into a new folder.
"""

import json
import pathlib
import sys
import textwrap
from typing import TYPE_CHECKING, cast

import numpy as np
import PIL.Image
from absl import app, flags

from semmim_jax.cli.outputs import check_output
from semmim_jax.cli.parser import define_config, parse

if TYPE_CHECKING:  # each takes seconds to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from semmim_jax.data.emoji.scenes import EmojiScenes
    from semmim_jax.data.records import Record

_CONFIG = define_config('configs/pretrain.py:demo', 'experiment, of which the scenes are drawn')
_SPLIT = flags.DEFINE_string('split', 'train', 'split of the emoji scenes')
_START = flags.DEFINE_integer('start', 0, 'index of the first scene', lower_bound=0)
_COUNT = flags.DEFINE_integer('count', 24, 'number of scenes', lower_bound=1)
_PATCHES = flags.DEFINE_bool('patches', False, 'outline the patches that objects cover')
_OUT = flags.DEFINE_string('out', 'scenes.png', 'picture to write')
_EXPORT = flags.DEFINE_string('export', '', 'new folder for pictures and lists, instead of --out')

_COLUMNS = 6
_CELL = (2.0, 2.6)  # inches
_LINE = 40  # characters of a caption line


def main(argv: list[str]) -> None:
    """Writes the sheet; a user's mistake ends in one line, not in a traceback."""
    try:
        check_output('--out', _OUT.value, overwrite=True)
    except ValueError as error:
        sys.exit(f'error: {error}')
    from semmim_jax.data.emoji import artwork
    from semmim_jax.data.readers import sources  # Grain comes with them, which takes seconds

    data = _CONFIG.value.data
    indices = range(_START.value, _START.value + _COUNT.value)
    try:
        made = sources.make_source(f'emoji_scenes:{_SPLIT.value}', data)
        source = cast('EmojiScenes', made)
        styles = {thing.style for i in indices for thing in source.scene(i).objects}
        footer = '; '.join(artwork.ATTRIBUTION[style] for style in sorted(styles))
        if _EXPORT.value:
            export(source, indices, pathlib.Path(_EXPORT.value), attribution=footer)
        else:
            figure = contact_sheet(
                [source[i] for i in indices],
                footer=footer,
                patch_size=data.patch_size if _PATCHES.value else None,
            )
            figure.savefig(_OUT.value, dpi=150)
    except (ValueError, IndexError, OSError, artwork.ArtMissing) as e:
        sys.exit(f'error: {e}')
    place = _EXPORT.value or _OUT.value
    print(f'{len(indices)} scenes of emoji_scenes:{_SPLIT.value} in {place}')


def export(
    source: 'EmojiScenes', indices: range, folder: pathlib.Path, *, attribution: str
) -> None:
    """Writes scenes as own data: pictures, captions, a question and the background as a label each.

    Args:
      source: of emoji scenes.
      indices: of the scenes.
      folder: gets pictures/, captions.json, questions.jsonl, labels.jsonl and ATTRIBUTION.txt.
      attribution: of the artwork.

    Raises:
      FileExistsError: there is a folder pictures/ already.
    """
    (folder / 'pictures').mkdir(parents=True)
    captions, questions, labels = [], [], []
    from semmim_jax.data.emoji.questions import EmojiQuestions

    asked = EmojiQuestions(source)
    for i in indices:
        image = f'pictures/{i:06d}.png'
        PIL.Image.fromarray(source[i]['image']).save(folder / image)
        captions.append({'image': image, 'captions': source.captions(i)})
        question = asked.entry(i)
        kept = {key: question[key] for key in ('prompt', 'targets')}
        questions.append({'image': image, **kept, 'type': question['question_type']})
        labels.append({'image': image, 'label': source.scene(i).background})
    (folder / 'ATTRIBUTION.txt').write_text(f'Artwork: {attribution}\n')
    (folder / 'captions.json').write_text(json.dumps(captions, indent=1) + '\n')
    for name, lines in (('questions', questions), ('labels', labels)):
        text = ''.join(json.dumps(line) + '\n' for line in lines)
        (folder / f'{name}.jsonl').write_text(text)


def contact_sheet(records: list['Record'], *, footer: str, patch_size: int | None) -> 'Figure':
    """Figure with every record's image above two of its captions.

    Args:
      records: image uint8 [s, s, 3], captions, labels int16 [s, s].
      footer: attribution of the artwork.
      patch_size: outlines labelled patches of this many pixels; None for none.
    """
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, len(records))
    rows = -(-len(records) // columns)
    size = (columns * _CELL[0], rows * _CELL[1] + 0.35)
    figure = Figure(figsize=size, facecolor='white')
    grid = figure.subplots(rows, columns, squeeze=False)
    bottom = 0.35 / size[1]
    figure.subplots_adjust(left=0.01, right=0.99, top=0.995, bottom=bottom, wspace=0.06, hspace=0)
    for axes in grid.flat:
        axes.set_axis_off()
        axes.set_anchor('N')
    for i, (axes, record) in enumerate(zip(grid.flat, records, strict=False)):
        image = record['image']
        axes.imshow(image, interpolation='nearest')
        if patch_size:
            _outline_patches(axes, record['labels'], patch_size)
        # Two kinds of caption under each scene; the kinds rotate over the sheet.
        captions = record['captions']
        shown = [captions[(2 * i + k) % len(captions)] for k in range(min(2, len(captions)))]
        text = '\n'.join(textwrap.fill(f'\N{BULLET} {caption}', _LINE) for caption in shown)
        axes.text(
            0, -0.03, text, transform=axes.transAxes, va='top', fontsize=6.3, linespacing=1.15
        )
    figure.text(0.01, 0.1 / size[1], f'Artwork: {footer}', fontsize=6.5, color='0.35')
    return figure


def _outline_patches(axes: 'Axes', labels: np.ndarray, patch_size: int) -> None:
    import matplotlib
    from matplotlib.patches import Rectangle

    from semmim_jax.data import transforms

    patches = transforms.patch_labels(labels, patch_size)
    across = labels.shape[1] // patch_size
    colours = {
        label: matplotlib.colormaps['tab10'](i)
        for i, label in enumerate(sorted(set(patches[patches > 0].tolist())))
    }
    for n, label in enumerate(patches.tolist()):
        corner = (n % across * patch_size - 0.5, n // across * patch_size - 0.5)
        if label:
            inset = (corner[0] + 0.5, corner[1] + 0.5)
            axes.add_patch(
                Rectangle(
                    inset,
                    patch_size - 1,
                    patch_size - 1,
                    linewidth=1.0,
                    edgecolor=colours[label],
                    facecolor=(*colours[label][:3], 0.25),
                )
            )
        axes.add_patch(
            Rectangle(
                corner, patch_size, patch_size, linewidth=0.15, edgecolor='0.2', facecolor='none'
            )
        )


if __name__ == '__main__':
    app.run(main, flags_parser=parse)
