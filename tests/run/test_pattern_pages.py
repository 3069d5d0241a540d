"""`semmim patterns` on a run of one step."""

import dataclasses
import json

import numpy as np
import PIL.Image
import pytest

from configs.pretrain import get_config
from semmim_jax.data.readers.sources import make_source
from semmim_jax.data.text import clean_caption
from semmim_jax.run.loop import train_and_evaluate
from semmim_jax.run.pattern_pages import ABOUT, _chosen, write_patterns
from semmim_jax.tasks.registry import find_task
from tests.evaluators.test_pattern_report import opened


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
    workdir = tmp_path_factory.mktemp('run')
    config = get_config('tiny')
    config.data.eval = ''
    config.train.update(steps=1, async_save=False)
    train_and_evaluate(config, str(workdir), find_task(config))
    return workdir


@pytest.mark.slow
@pytest.mark.parametrize('listed', [False, True])
def test_everything_is_written(workdir, listed, tmp_path):
    out = tmp_path / 'out'
    out.mkdir()
    data = write_list(tmp_path) if listed else 'emoji_scenes:val'
    written = write_patterns(str(workdir), data=data, out=out, images=21, controls=9)
    pictures = {*ABOUT, 'words_0', 'words_1', 'words_2'}
    names = {'codes.npy', 'patterns.json', 'report.html', *(f'{name}.png' for name in pictures)}
    assert {path.name for path in out.iterdir()} == names and len(written) == len(names)
    codes = np.load(out / 'codes.npy')
    figures = json.loads((out / 'patterns.json').read_text())
    assert codes.shape == (21, 16) and figures['images'] == 21
    counts = np.bincount(codes.ravel(), minlength=figures['codes'])
    assert figures['readings']['with_text']['patches'] == counts.tolist()
    assert ('concepts' in figures) != listed
    assert figures['controls']['figures']['images'] == 9
    page = (out / 'report.html').read_text()
    assert page.count('<img') == len(pictures) + 1  # and the curve of one step
    assert all(about in page for about in ABOUT.values()) and 'random head' in page


def write_list(folder, count=25):
    source = make_source('emoji_scenes:val', get_config('base').data)
    entries = []
    for index in range(count):
        PIL.Image.fromarray(source[index]['image']).save(folder / f'{index}.png')
        entries.append({'image': f'{index}.png', 'caption': source.captions(index)})
    (folder / 'list.json').write_text(json.dumps(entries))
    return f'captions:{folder / "list.json"}'


def test_some_images_of_a_list_are_spread_over_it(tmp_path):
    data = opened(images=8)
    data.data.eval = spec = write_list(tmp_path)
    everything = make_source(spec, data.data)
    chosen = _chosen(dataclasses.replace(data, source=everything), spec, 4)
    assert chosen.num_images == 4
    for place, index in enumerate((0, 8, 16, 24)):
        assert chosen.captions().of_images[place] == [
            clean_caption(text, max_words=None) for text in everything.captions(index)
        ]
    (batch,) = chosen.image_batches()
    assert batch['valid'].sum() == 4
    corpus = _chosen(data, 'emoji_scenes:val', 11)
    assert corpus.num_images == 11  # made, though data.eval has 8
