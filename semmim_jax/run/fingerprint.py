"""The data fingerprint: what the order and content of batches depend on, as far as cheap to read.

A resumed run must get the batches that it would have had. So a checkpoint stores the fingerprint,
and a start on other data is refused with the first difference.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from semmim_jax.data.unreadable import UnreadableRecord

SAMPLES = 100  # records that stand for all


def data_fingerprint(
    config: Any, source: Any, tokenizer: Any, labels: Sequence[str] = ()
) -> dict[str, Any]:
    """The fingerprint of a run's data; equal ones give equal batches.

    Up to `SAMPLES` records, evenly spread, stand for the content of the source, unless it has a
    digest of it.

    Args:
      config: the experiment; `train.batch_size`, `seed` and `data.end_token` are read.
      source: of training records.
      tokenizer: of the run.
      labels: what the task chooses from.
    """
    samples = dict(_samples(source))
    digest = hashlib.sha256()
    for entry in samples.values():
        digest.update(repr(tuple(entry.values())).encode())
    return {
        'records': len(source),
        'captions': digest.hexdigest()[:16],
        'vocabulary': _digest('\n'.join(tokenizer.tokens()), 16),
        'batch_size': config.train.batch_size,
        'seed': config.seed,
        # What follows came after commit e475ad3, whose checkpoints lack it.
        'end_token': config.data.end_token,
        'labels': _digest('\n'.join(labels), 16),
        'stored': getattr(source, 'digest', ''),
        'weights': ':'.join(map(str, getattr(source, 'weights', ()))),
        'samples': {
            str(i): {name: _digest(repr(value), 8) for name, value in entry.items()}
            for i, entry in samples.items()
        },
    }


def differences(
    then: Mapping[str, Any],
    now: Mapping[str, Any],
    *,
    entry: Any = None,
    tokens: tuple[Sequence[str], Sequence[str]] = ((), ()),
    labels: tuple[Sequence[str], Sequence[str]] = ((), ()),
) -> list[str]:
    """What differs between two fingerprints, in words; [] if nothing does.

    Args:
      then: of a checkpoint; what it lacks is not compared.
      now: of this start.
      entry: function from the number of a record to the record without its image, as it is now.
      tokens, labels: then and now, to name the first that differs; () where they are not known.
    """
    different = {k for k in now if k in then and then[k] != now[k]}
    words = {
        'records': lambda: (
            f'the training source had {then["records"]} records and has {now["records"]}'
        ),
        'captions': lambda: _differing_record(then, now, entry),
        'vocabulary': lambda: _first_difference('token', *tokens, 'the vocabulary is another'),
        'labels': lambda: _first_difference('label', *labels, 'the labels are others'),
        'batch_size': lambda: (
            f'train.batch_size was {then["batch_size"]} and is {now["batch_size"]}'
        ),
        'seed': lambda: f'seed was {then["seed"]} and is {now["seed"]}',
        'stored': lambda: (
            'the stored training records are others: their digest was '
            f'{then["stored"] or "none":.16} and is {now["stored"] or "none":.16}'
        ),
        'weights': lambda: (
            f'the weights of the training sources were {then["weights"] or "none"} and are '
            f'{now["weights"] or "none"}'
        ),
        'dvae': lambda: 'the discrete VAE of task.mim.dvae is another',
        'end_token': lambda: f'data.end_token was {then["end_token"]} and is {now["end_token"]}',
    }
    if 'records' in different:
        different.discard('captions')  # other places of it were looked at
    known = [words[name]() for name in words if name in different]
    others = sorted(different - words.keys() - {'samples'})
    return known + [f'{name} was {then[name]!r} and is {now[name]!r}' for name in others]


def spread(records: int, count: int) -> list[int]:
    """Up to `count` numbers below `records`, evenly spread."""
    return np.unique(np.linspace(0, records - 1, count).astype(int)).tolist()


def _samples(source: Any) -> Iterator[tuple[int, Any]]:
    """Readable records that stand for the content, by number."""
    in_digest = getattr(source, 'in_digest', lambda index: False)
    for i in spread(len(source), SAMPLES):
        if not in_digest(i):
            try:
                yield i, source.entry(i)
            except UnreadableRecord:  # as it will be in the batches
                pass


def _differing_record(then: Mapping[str, Any], now: Mapping[str, Any], entry: Any) -> str:
    before, after = then.get('samples', {}), now.get('samples', {})
    for number, fields in after.items():
        old = before.get(number, fields)
        for name in fields | old:
            if fields.get(name) != old.get(name):
                value = entry(int(number)).get(name) if entry else None
                shown = '' if value is None else f' (now {value!r:.80})'
                return f'record {number} of the training source has another {name!r}{shown}'
    return 'a record of the training source is another'


def _first_difference(what: str, then: Sequence[str], now: Sequence[str], unknown: str) -> str:
    if not then or not now:
        return unknown
    for i, (a, b) in enumerate(zip(then, now)):
        if a != b:
            return f'{what} {i} was {a!r} and is {b!r}'
    return f'there were {len(then)} {what}s and are {len(now)}'


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]
