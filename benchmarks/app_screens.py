"""Pictures of the app for the docs, drawn by headless Chromium: search, words, mask, a pattern.

    python -m semmim_jax.data.emoji --export=scenes --split=val --count=300
    python -m benchmarks.app_screens --workdir=runs/demo --images=scenes \\
        --captions=scenes/captions.json --out=docs/img

The first picture that --query finds is looked at. Needs chromium on the PATH, and playwright (of
the extra [test]).
"""

import io
import logging
import os
import pathlib
import shutil
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

import PIL.Image
from absl import app, flags

_WORKDIR = flags.DEFINE_string('workdir', None, 'folder of a run of pre-training')
_IMAGES = flags.DEFINE_string('images', None, 'folder of pictures')
_CAPTIONS = flags.DEFINE_string('captions', '', 'list of their captions')
_QUERY = flags.DEFINE_string('query', 'a knot, a star and a cat on green', 'what is searched for')
_WORD = flags.DEFINE_string('word', 'star', 'of its caption, whose maps are shown')
_PATCH = flags.DEFINE_integer('patch', 21, 'that is clicked, counted row by row from 0')
_OUT = flags.DEFINE_string('out', 'docs/img', 'folder to write')
WIDTH, HEIGHT = 1120, 900  # of the window; a picture ends where its page does
MAX_BYTES = 120_000
WAIT = 120_000  # milliseconds: the first call of each function is compiled


def main(argv: list[str]) -> None:
    """Writes app_search.png, app_explain.png, app_mask.png and app_patterns.png."""
    del argv
    logging.getLogger().setLevel(logging.WARNING)
    chromium = shutil.which('chromium')
    if chromium is None:
        sys.exit('error: chromium is not on the PATH')
    from playwright.sync_api import sync_playwright

    from semmim_jax.app.explorer import open_explorer
    from semmim_jax.app.server import launch

    place = dict(images=_IMAGES.value, captions=_CAPTIONS.value, other='', index='')
    options = dict(params='ema', batch_size=8, patch_mebibytes=512)
    with open_explorer(_WORKDIR.value, **place, **options) as explorer, sync_playwright() as api:
        address = launch(explorer, host='127.0.0.1', port=0, wait=False)
        browser = api.chromium.launch(executable_path=chromium, args=['--no-sandbox'])
        page = browser.new_page(viewport=dict(width=WIDTH, height=HEIGHT))
        page.set_default_timeout(WAIT)
        page.goto(address)
        page.fill('#query textarea, #query input', _QUERY.value)
        page.click('#search')
        page.wait_for_selector('#hits img')
        save(page, 'search')
        page.click('#hits [data-picture] >> nth=0')
        page.wait_for_selector('#picture img')
        turn_to(page, 'Explain')
        word = page.locator(f'#maps [data-word]:text-is("{_WORD.value}")').first
        word.click()
        save(page, 'explain')
        turn_to(page, 'Mask')
        page.wait_for_selector('#mask img')
        save(page, 'mask')
        turn_to(page, 'Patterns')
        page.click(f'#grid [data-number="{_PATCH.value}"]')
        page.wait_for_selector('#pattern .window')
        save(page, 'patterns')
        browser.close()


def turn_to(page, tab: str) -> None:
    """Opens a tab."""
    page.click(f'button[role=tab]:has-text("{tab}")')


def save(page, name: str) -> None:
    """Writes the page as a PNG, with fewer colours where it would be above MAX_BYTES."""
    page.mouse.move(0, 0)
    page.wait_for_timeout(1000)
    image = PIL.Image.open(io.BytesIO(page.screenshot(full_page=True))).convert('RGB')
    path = pathlib.Path(_OUT.value) / f'app_{name}.png'
    few = (image.quantize(n, dither=PIL.Image.Dither.NONE) for n in (256, 128, 64))
    for each in (image, *few):
        buffer = io.BytesIO()
        each.save(buffer, 'PNG', optimize=True)
        if buffer.tell() <= MAX_BYTES:
            break
    path.write_bytes(buffer.getvalue())
    print(f'wrote {path}: {image.width} x {image.height}, {buffer.tell():,} bytes')


if __name__ == '__main__':
    flags.mark_flags_as_required(['workdir', 'images'])
    app.run(main)
