"""What a record becomes for SCL: one frame, and its caption as written."""

import numpy as np
import pytest

from configs.completion import get_config
from semmim_jax.data import pipeline
from semmim_jax.data.completion_examples import CompletionExamples
from semmim_jax.data.readers import sources
from semmim_jax.data.tokenizer import make_tokenizer
from tests.data.readers.test_readers import picture, write

CAPTION = "A Dog's bone, on the LEFT: red"


@pytest.fixture
def made(tmp_path):
    """(maker of a data section, source) of a list with one picture."""
    picture(tmp_path / 'a.png')
    path = write(tmp_path / 'list.jsonl', [{'image': 'a.png', 'caption': CAPTION}])
    config = get_config('tiny').data
    source = sources.make_source(f'captions:{path}', config)
    words = make_tokenizer('', texts=[CAPTION], size=120)
    return source, lambda config: CompletionExamples.of(words, config), config, words


def test_an_image_is_a_video_of_one_frame(made):
    source, maker, config, _ = made
    example = maker(config)(source[0], np.random.default_rng(0))
    assert example['frames'].shape == (1, config.image_size, config.image_size, 3)
    assert example['frames'].dtype == np.uint8
    assert example['ids'].shape == (config.max_tokens,)


def test_a_caption_is_as_written_unless_it_is_to_be_cleaned(made):
    source, maker, config, _ = made
    assert maker(config).clean(CAPTION) == CAPTION
    texts, _ = pipeline.eval_texts(source, config)
    assert texts == [CAPTION]
    config.clean_text = True
    assert maker(config).clean(CAPTION) == 'a dogs bone on the left red'
    assert pipeline.eval_texts(source, config)[0] == ['a dogs bone on the left red']


def test_several_frames_of_images_are_refused(made):
    source, maker, config, _ = made
    maker(config).check_source(source)
    config.frames = 4
    with pytest.raises(ValueError, match='data.frames=4 needs videos'):
        maker(config).check_source(source)
