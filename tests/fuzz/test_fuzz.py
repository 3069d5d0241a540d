"""The fuzzing of fuzz/engine.py with some hundred examples; it notices what it must notice."""

import logging
import os
import pickle
import socket
import time

import pytest

from fuzz import engine
from fuzz.targets import TARGETS

EXAMPLES = dict(image=80, caption_list=60, record=30, vocabulary=40, weights=50, metrics=30)
EXAMPLES |= dict(tar=60, tar_source=40, huggingface=40, parquet=60, import_list=60)
EXAMPLES |= dict(folder=60, stamps=60, openclipart=80, tfds=40)
EXAMPLES |= dict(video=60, clip_list=60)
EXAMPLES |= dict(dataset=60, command_line=60, experiment=4, checkpoint=12, shards=40)


@pytest.mark.parametrize('name', TARGETS)
def test_bad_input_is_refused_in_one_line_and_does_nothing_else(name):
    result = engine.fuzz(TARGETS[name], examples=EXAMPLES[name], seed=1)
    assert not result.failure, result.failure
    assert result.accepted + result.refused == EXAMPLES[name]
    log = logging.getLogger('semmim_jax.data.tar_index')
    assert log.isEnabledFor(logging.WARNING)  # for the tests that come after


def misbehave(data, folder, *, how):
    match how:
        case 'another error':
            raise KeyError('x')
        case 'two lines':
            raise ValueError('a\nb')
        case 'outside':
            (folder.parent / 'stray').write_text('')
        case 'moved out':
            (folder / 'a').write_text('')
            os.rename(folder / 'a', folder.parent / 'stray')
        case 'network':
            socket.socket().connect_ex(('127.0.0.1', 9))
        case 'process':
            os.system('true')
        case 'pickle':
            pickle.loads(pickle.dumps(Unpickled()))
        case 'hang':
            try:
                time.sleep(60)
            except Exception:
                pass


class Unpickled:
    pass


@pytest.mark.parametrize(
    'how',
    ['another error', 'two lines', 'outside', 'moved out', 'network', 'process', 'pickle', 'hang'],
)
def test_misbehaviour_is_a_failure(how, monkeypatch):
    monkeypatch.setattr(engine, 'SECONDS', 0.2)
    target = engine.Target(lambda data, folder: misbehave(data, folder, how=how), (ValueError,), 1)
    assert engine.fuzz(target, examples=1).failure
