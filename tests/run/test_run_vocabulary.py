"""The vocabulary of a run on its own words, and what decoding takes from its texts."""

import pytest

from configs import caption, pretrain
from semmim_jax.data.readers.sources import make_source
from semmim_jax.data.tokenizer import make_tokenizer
from semmim_jax.run.experiment import open_experiment
from semmim_jax.run.initial_weights import run_tokenizer
from semmim_jax.tasks.registry import find_task
from semmim_jax.training.checkpoint import SavedRun
from tests.run.own_data import write_own_data


def own(folder, config):
    config.data.train = f'captions:{write_own_data(folder)}'
    return config


@pytest.mark.parametrize('kind', ['wordpiece', 'bpe', 'words'])
def test_the_fields_of_data_make_it_and_the_checkpoint_keeps_it(kind, tmp_path):
    config = own(tmp_path, pretrain.get_config('tiny'))
    config.data.update(vocab_kind=kind, vocab_min_count=2)
    config.model.text.vocab_size = 400
    source = make_source(config.data.train, config.data)
    made = run_tokenizer(config, source, None, workdir=tmp_path)
    assert made.vocab_size == 400
    word = {'bpe': 'Ġsquare'}.get(kind, 'square')
    assert word in made.tokens()
    saved = SavedRun(1, config.to_dict(), {}, made.files())
    config.data.update(vocab_kind='words', vocab_min_count=1)
    again = run_tokenizer(config, source, saved, workdir=tmp_path)
    text = 'a rédder square'
    assert again.tokens() == made.tokens()
    assert again.encode(text, 20).tolist() == made.encode(text, 20).tolist()


def test_the_experiments_say_what_kind_they_take(tmp_path):
    """A trained vocabulary where nothing else is said; the demo has a list of words."""
    data = [pretrain.get_config(name).data for name in ('base', 'large', 'demo', 'tiny')]
    assert [d.vocab_kind for d in data] == ['wordpiece'] * 2 + ['words'] * 2
    assert [d.vocab_min_count for d in data] == [2, 2, 1, 1]
    config = pretrain.get_config('tiny')
    source = make_source(config.data.train, config.data)
    listed = make_tokenizer('', texts=source.vocabulary_texts(), size=320)
    tokenizer = run_tokenizer(config, source, None, workdir=tmp_path)
    assert tokenizer.tokens() == listed.tokens()


def test_a_vocabulary_that_does_not_fit_names_the_flag(tmp_path):
    config = own(tmp_path, pretrain.get_config('tiny'))
    config.data.vocab_kind = 'wordpiece'
    config.model.text.vocab_size = 30
    source = make_source(config.data.train, config.data)
    with pytest.raises(ValueError, match='--config.model.text.vocab_size='):
        run_tokenizer(config, source, None, workdir=tmp_path)
    make_tokenizer('', texts=['dog'], size=90).save(tmp_path)
    config.data.vocab = str(tmp_path)
    with pytest.raises(ValueError, match='--config.model.text.vocab_size=90'):
        run_tokenizer(config, source, None, workdir=tmp_path)


def test_the_least_length_of_a_run_comes_from_its_texts(tmp_path):
    config = own(tmp_path, caption.get_config('tiny'))
    config.task.decoding.update(min_length=-1, max_length=8, no_repeat_ngram=2)
    run = open_experiment(config, str(tmp_path / 'run'), find_task(config))
    # A third of the captions are 'square, red' and the like, the others have five words.
    assert run.config.task.decoding.min_length == 2
    assert run.task.config.decoding.min_length == 2
    config.task.decoding.update(min_length=-1, max_length=1)
    short = open_experiment(config, str(tmp_path / 'short'), find_task(config))
    assert short.config.task.decoding.min_length == 1
