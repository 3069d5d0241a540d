"""The lines that a run prints: short, and with what a person looks for."""

import json

from hypothesis import given
from hypothesis import strategies as st

from semmim_jax.data.readers.sources import make_source
from semmim_jax.data.tokenizer import make_tokenizer
from semmim_jax.run.summary import describe_data
from semmim_jax.training.metrics import LINE, log_line
from tests.run.own_data import write_own_data
from tests.run.small_task import small_config

SPEED = {'images_per_second': 63.21, 'data_wait': 0.004, 'eta': 552.0}
LOSSES = {'loss': 25.83, 'loss_itc': 4.912, 'loss_itm': 0.674, 'ema_momentum': 0.99}


def test_losses_speed_and_time_left_are_shown_and_nothing_else():
    line = log_line(10, 750, LOSSES, SPEED)
    assert line == 'step 10/750  loss 25.83 (itc 4.91 itm 0.674)  63.2 img/s, wait 0%, eta 9:12'
    line = log_line(10, 750, {'loss': 25.83}, SPEED)  # of a task with one loss
    assert line == 'step 10/750  loss 25.83  63.2 img/s, wait 0%, eta 9:12'


@given(
    st.integers(1, 10**9),
    st.dictionaries(st.text('abc_', min_size=1, max_size=9), st.floats(-1e30, 1e30), max_size=30),
)
def test_a_line_is_never_longer_than_its_columns(step, losses):
    values = {'loss': 1e30} | {f'loss_{name}': value for name, value in losses.items()}
    line = log_line(step, 10**9, values, SPEED)
    assert len(line) <= LINE
    assert line.startswith(f'step {step}/') and line.endswith('eta 9:12')
    if len(losses) < 3:
        assert '...' not in line


def test_a_start_says_what_it_has(tmp_path):
    """24 pictures, half with two captions; counted by hand."""
    config = small_config(write_own_data(tmp_path), steps=12)
    config.data.max_tokens = 6
    source = make_source(config.data.train, config.data)
    tokenizer = make_tokenizer('', texts=source.vocabulary_texts(), size=320)
    data, text = describe_data(source, tokenizer, config)
    config.data.update(max_tokens=18, text_buckets=(4,))
    config.train.batch_size = 1
    # A third has two words, the comma being cleaned away: 4 tokens.
    assert describe_data(source, tokenizer, config)[2] == (
        'buckets: expected of batches of 1 are texts padded to 4 (33%), 18 (67%) tokens, 13.3 in '
        'the mean: 25.9% fewer than 18'
    )
    assert data == (
        'data: 24 records, 24 images, 36 captions; an epoch is 3 steps of 8, the run 4 epochs'
    )
    captions = [
        c
        for e in json.loads((tmp_path / 'captions.json').read_text())
        for c in ([e['caption']] if isinstance(e['caption'], str) else e['caption'])
    ]
    words = {w for c in captions for w in c.replace(',', '').split()}
    assert f'text: {len(words) + 2 + 1} of 320 tokens used' in text  # [CLS], [SEP], a comma
    assert '7 at most; 66.7% are longer than 6 and are cut' in text
