"""The app and the report of a run in headless Chromium, as a user meets them."""

import base64
import io
import json
import shutil
import urllib.error
import urllib.request

import numpy as np
import PIL.Image
import pytest

from configs import pretrain, vqa
from semmim_jax.app.pictures import MAX_BYTES
from semmim_jax.data.readers.sources import make_source
from semmim_jax.run.loop import train_and_evaluate
from semmim_jax.tasks.registry import find_task
from tests.app.served import serving
from tests.app.test_pictures import bomb, png

CHROMIUM = shutil.which('chromium')
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason='needs chromium on the PATH'),
]
COMPILED = 120_000  # milliseconds: the first call of each function is compiled
IMAGES = 6


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """Workdirs of tiny runs: 'pretrain' and 'vqa'."""
    folder = tmp_path_factory.mktemp('runs')
    for module, steps in ((pretrain, 3), (vqa, 1)):
        config = module.get_config('tiny')
        config.data.eval = ''
        config.train.update(steps=steps, async_save=False)
        name = module.__name__.split('.')[-1]
        train_and_evaluate(config, str(folder / name), find_task(config))
    return folder


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    """A folder of scenes with their captions."""
    folder = tmp_path_factory.mktemp('scenes')
    source = make_source('emoji_scenes:val', pretrain.get_config('tiny').data)
    listed = []
    for i in range(IMAGES):
        PIL.Image.fromarray(source[i]['image']).save(folder / f'{i}.png')
        listed.append({'image': f'{i}.png', 'captions': source.captions(i)})
    (folder / 'captions.json').write_text(json.dumps(listed))
    return folder


@pytest.fixture(scope='module')
def served(runs, scenes, tmp_path_factory):
    words = (
        str(runs / 'pretrain'),
        f'--images={scenes}',
        f'--captions={scenes / "captions.json"}',
        f'--other={runs / "vqa"}',
    )
    with serving(tmp_path_factory.mktemp('served'), *words) as app:
        yield app


@pytest.fixture(scope='module')
def chromium():
    api = pytest.importorskip('playwright.sync_api')
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=['--no-sandbox', '--disable-dev-shm-usage']
        )
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium):
    """Address -> page. At the end: no request elsewhere, no error in the console."""
    page = chromium.new_page(viewport=dict(width=1300, height=1000))
    requests, errors = [], []
    page.on('request', lambda request: requests.append(request.url))
    page.on('pageerror', lambda error: errors.append(str(error)))
    page.on('console', lambda line: line.type == 'error' and errors.append(line.text))
    allowed = []

    def open_page(address):
        page.goto(address)
        allowed.append(address)
        return page

    yield open_page
    elsewhere = [x for x in requests if not x.startswith((*allowed, 'data:', 'blob:'))]
    page.close()
    assert not elsewhere and not errors


@pytest.fixture
def page(opened, served):
    page = opened(served.address)
    page.wait_for_selector('#upload input', state='attached', timeout=COMPILED)
    return page


def pick(page, number: int) -> None:
    """Makes a picture of the folder the one that is looked at."""
    page.click(f'#strip [data-picture="{number}.png"]')
    page.wait_for_selector(f'#picture figcaption:has-text("{number}.png")')


def turn_to(page, tab: str) -> None:
    page.click(f'button[role=tab]:has-text("{tab}")')


def wait(page, selector: str, text: str = ''):
    found = page.locator(f'{selector}:has-text("{text}")' if text else selector).first
    found.wait_for(timeout=COMPILED)
    return found


def test_search_by_text_and_by_the_picture(page):
    page.fill('#query textarea, #query input', 'a dog on blue')
    page.click('#search')
    wait(page, '#hits figcaption', 'match')
    hits = page.locator('#hits [data-picture]')
    assert hits.count() == IMAGES
    first = hits.first.get_attribute('data-picture')
    hits.first.click()
    wait(page, '#picture figcaption', first)
    page.fill('#query textarea, #query input', '')
    page.check('#by_picture input')
    page.click('#search')
    best = wait(page, '#hits figure:has-text("1. similarity")').text_content()
    assert 'similarity 1.000' in best and first in best  # a picture is nearest to itself


def test_a_search_for_nothing_is_said(page):
    page.click('#search')
    wait(page, '#hits [role=alert]', 'Type what to look for')


def test_a_run_of_pre_training_captions_and_says_who_answers(page):
    pick(page, 1)
    turn_to(page, 'Ask')
    page.click('#ask')
    wait(page, '#answer', 'log-probability')
    page.check('#kind input[value=question]')
    page.fill('#words textarea, #words input', 'what is this')
    page.click('#ask')
    wait(page, '#answer [role=alert]', 'A question needs a workdir of configs/vqa.py')


def test_a_run_of_questions_answers(opened, runs, tmp_path):
    with serving(tmp_path / 'served', str(runs / 'vqa')) as app:
        page = opened(app.address)
        page.set_input_files('#upload input', upload(png(np.full((9, 7, 3), 90, np.uint8))))
        wait(page, '#picture figcaption', '7 x 9 pixels')
        turn_to(page, 'Ask')
        page.fill('#words textarea, #words input', 'what color is the background')
        page.click('#ask')
        assert wait(page, '#answer .answer').text_content()
        page.fill('#caption textarea, #caption input', 'a dog')
        for tab, said in (('Explain', 'cannot do this'), ('Mask', 'draws no masks')):
            turn_to(page, tab)
            wait(page, 'p', said)
        page.close()


def upload(data: bytes, name: str = 'own.png') -> dict:
    return dict(name=name, mimeType='image/png', buffer=data)


def test_choosing_a_word_shows_its_maps(page):
    pick(page, 0)
    turn_to(page, 'Explain')
    wait(page, '#maps .words')
    caption = page.input_value('#caption textarea, #caption input')
    words = page.locator('#maps [data-word]').all_text_contents()
    assert ' '.join(words[1:]) == caption.lower()
    shown = page.locator('#maps [data-map]:visible')
    assert shown.count() == 2 and 'whole caption' in shown.first.text_content()
    before = shown.first.locator('img').get_attribute('src')
    page.locator('#maps [data-word]').nth(2).hover()
    assert words[2] in shown.first.text_content() and shown.count() == 2
    assert shown.first.locator('img').get_attribute('src') != before
    page.locator('#maps [data-word]').nth(1).focus()
    assert f': {words[1]}' in shown.first.text_content()
    page.fill('#caption textarea, #caption input', 'scissors')
    page.press('#caption textarea, #caption input', 'Enter')
    wait(page, '#maps [data-word]', 'scissors')


def test_the_mask_follows_its_sliders_and_the_caption(page):
    pick(page, 2)
    turn_to(page, 'Mask')
    wait(page, '#mask figcaption', 'of 16 patches')
    masked = page.locator('#mask img').last
    pictures = [masked.get_attribute('src')]

    def changed(act):
        act()
        old = json.dumps(pictures[-1])
        page.wait_for_function(
            f"[...document.querySelectorAll('#mask img')].pop().src !== {old}", timeout=COMPILED
        )
        pictures.append(masked.get_attribute('src'))

    slide = lambda name, value: page.locator(f'#{name} input[type=range]').fill(value)
    changed(lambda: slide('ratio', '0.75'))
    wait(page, '#mask figcaption', '12 of 16 patches')
    changed(lambda: slide('draw', '7'))
    slide('temperature', '0')
    relevance = page.locator('#mask img').nth(1).get_attribute('src')
    page.fill('#caption textarea, #caption input', 'a red circle and a dog')
    page.press('#caption textarea, #caption input', 'Enter')
    old = json.dumps(relevance)
    page.wait_for_function(
        f"document.querySelectorAll('#mask img')[1].src !== {old}", timeout=COMPILED
    )


def test_a_click_on_a_patch_shows_its_pattern(page):
    pick(page, 3)
    turn_to(page, 'Patterns')
    wait(page, '#grid .cells')
    assert page.locator('#grid .cells button').count() == 16
    wait(page, 'p', f'Patterns of {IMAGES} of {IMAGES} pictures, read with their captions')
    for number in (5, 10):
        patch = page.locator(f'#grid [data-number="{number}"]')
        code = patch.get_attribute('title').split()[-1]
        patch.click()
        wait(page, f'#grid [data-number="{number}"].chosen')
        wait(page, '#pattern p', f'Pattern {code}: ')
        wait(page, '#pattern p', 'Words of captions')
        sections = page.locator('#pattern h3').all_text_contents()
        assert sections == ['Cluster', 'Neighbours']
        windows = page.locator('#pattern .windows').last.locator('img')
        about = [windows.nth(i).get_attribute('alt') for i in range(windows.count())]
        assert len(about) == IMAGES - 1 and 'a patch of 3.png' not in about


def test_two_runs_stand_beside_each_other(page):
    pick(page, 4)
    turn_to(page, 'Compare')
    wait(page, '#sides section')
    sides = page.locator('#sides section').all_text_contents()
    assert len(sides) == 2
    assert 'task pretrain' in sides[0] and 'caption: ' in sides[0] and 'Grad-CAM' in sides[0]
    assert 'answer: ' in sides[1] and 'cannot do this' in sides[1]


def test_broken_files_and_bombs_are_one_line_and_the_app_goes_on(page, served):
    whole = png(np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8))
    for data, said in (
        (b'no picture', 'own.png: not a JPEG, PNG, WEBP, BMP image'),
        (whole[: len(whole) // 2], 'own.png: corrupt image'),
        (bomb(), 'own.png: too many pixels'),
        (bomb(8000), '8000 x 8000 pixels, more than max_pixels'),
    ):
        page.set_input_files('#upload input', upload(data))
        line = wait(page, '#picture [role=alert]', said)
        assert '\n' not in line.text_content().strip()
    long = bytes(MAX_BYTES + 1)
    page.set_input_files('#upload input', upload(long))
    wait(page, '#picture [role=alert]', 'own.png: more than 32 MiB')
    page.set_input_files('#upload input', upload(whole))
    wait(page, '#picture figcaption', '30 x 40 pixels')
    page.fill('#caption textarea, #caption input', 'a dog')
    turn_to(page, 'Explain')
    wait(page, '#maps [data-word]', 'dog')
    shown = page.locator('#picture img').get_attribute('src')
    assert PIL.Image.open(io.BytesIO(base64.b64decode(shown.split(',')[1]))).size == (240, 320)


def test_uploads_stay_in_memory_and_nothing_else_is_served(page, served, scenes):
    wait(page, '#strip img')
    before = served.files()
    log = served.log.read_text()
    page.set_input_files('#upload input', upload(png(np.full((50, 60, 3), 7, np.uint8))))
    wait(page, '#picture figcaption', '60 x 50 pixels')
    assert served.files() == before and all('semmim_app_' in name for name in before)
    written = served.log.read_text()[len(log) :]
    assert 'wrote' not in written
    assert 'reached for' not in served.log.read_text()
    for path in ('gradio_api/upload', f'gradio_api/file={scenes}/0.png', 'gradio_api/proxy=x'):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(served.address + path, timeout=30)
        assert refused.value.code in (403, 404)
    foreign = urllib.request.Request(served.address, headers={'Host': 'elsewhere.example'})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(foreign, timeout=30)
    assert refused.value.code == 400
    with urllib.request.urlopen(served.address, timeout=30) as answer:
        assert "default-src 'self'" in answer.headers['content-security-policy']


def test_the_report_of_a_run_opens_from_disk_without_any_request(chromium, runs):
    page = chromium.new_page()
    requests, lines = [], []
    page.on('request', lambda request: requests.append(request.url))
    page.on('console', lambda line: lines.append(line.text))
    page.on('pageerror', lambda error: lines.append(str(error)))
    address = (runs / 'pretrain' / 'report.html').as_uri()
    page.goto(address)
    assert page.locator('h1').count() == 1 and page.locator('img').count() >= 1
    widths = page.eval_on_selector_all('img', 'images => images.map(x => x.naturalWidth)')
    assert all(width > 0 for width in widths)
    assert [x for x in requests if not x.startswith('data:')] == [address] and lines == []
    page.close()
