"""Open fields of a config, filled from the initial weights and the data.

An open field has the value 0, or init.sizes='weights'. configs/pretrain.py and configs/finetune.py
say so beside the field. After `resolve` every field has its final value.
"""

import math
import pathlib
from typing import Any

import flax
import jax
import ml_collections

from semmim_jax.data.cloud import path_of
from semmim_jax.data.json_files import field, read_json
from semmim_jax.data.readers import sources
from semmim_jax.data.run_files import tokenizer_of_run
from semmim_jax.data.stored import text_entries
from semmim_jax.data.text import clean_caption
from semmim_jax.data.tokenizer import (
    UNUSED,
    Tokenizer,
    extend_tokenizer,
    has_tokenizer,
    make_tokenizer,
    train_tokenizer,
)
from semmim_jax.run import frozen_dvae
from semmim_jax.run.initial_weights import run_tokenizer
from semmim_jax.training.checkpoint import SavedRun, load_run
from semmim_jax.training.config_rules import check_ranges

# Fields that 0 leaves open. Not every experiment has all of them.
_OPEN = (
    'data.image_size',
    'model.image.image_size',  # the same field
    'data.max_tokens',
    'data.max_prompt_tokens',
    'data.max_target_tokens',
    'task.decoding.max_length',
    'model.text.vocab_size',
    'task.classes',
)
# Shares of train.steps, and the fields that they give where they are above 0.
_SHARES = {
    'optim.warmup_share': 'optim.warmup_steps',
    'task.alpha_ramp_share': 'task.alpha_ramp_steps',
    'task.tau_teacher_share': 'task.tau_teacher_steps',
}
SIZES = ('config', 'weights')  # of init.sizes
# What of config.model weights do not settle: sizes that may differ, and how it is computed.
_NOT_OF_WEIGHTS = (
    'image.image_size',
    'image.patch_size',  # that of data, which weights do settle
    'text.vocab_size',
    'temperature',
    'dropout',
    'dtype',
    'attention',
    'remat',
    'scan',
)


def resolve(
    config: Any, saved: SavedRun | None, *, workdir: pathlib.Path | None = None
) -> ml_collections.FrozenConfigDict:
    """The config with every open field filled in; one without comes back as it is.

    Process 0 prints one line: what came from the weights and what from the data.

    Args:
      config: the experiment.
      saved: of the run's newest checkpoint, None if there is none. Its sizes and vocabulary go
        before those of `init_from`.
      workdir: the run's folder; not needed where there is no checkpoint.

    Raises:
      ValueError: for a field that nothing gives, a value out of range, or a discrete VAE of other
        sizes.
    """
    resolved = _resolved(ml_collections.FrozenConfigDict(config), saved, workdir)
    if saved is None and frozen_dvae.needed(resolved):
        frozen_dvae.check(resolved)
    return resolved


def _resolved(
    frozen: ml_collections.FrozenConfigDict, saved: SavedRun | None, workdir: pathlib.Path | None
) -> ml_collections.FrozenConfigDict:
    flat = _flat(frozen.to_dict())
    if frozen.init.sizes not in SIZES:
        raise ValueError(f'init.sizes={frozen.init.sizes!r} is none of {", ".join(SIZES)}')
    left_open = {key for key in _OPEN if flat.get(key) == 0}
    by_weights = frozen.init.sizes == 'weights'
    by_steps = flat['train.epochs'] or any(flat.get(key) for key in _SHARES)
    if not (left_open or by_weights or by_steps):
        return frozen
    filled = {key: value for key, value in flat.items() if key not in left_open}
    check_ranges(flax.traverse_util.unflatten_dict(filled, sep='.'))
    # By plain values: a ConfigDict made of another shares what is inside with it.
    config, notes = ml_collections.ConfigDict(frozen.to_dict()), []
    origin = str(workdir) if saved else config.init_from
    if by_weights and origin:
        theirs = saved.config if saved else _config_of(origin)
        notes.append(_fill(config, _of_weights(config, theirs), giver=origin))
    for name in ('image_size', 'patch_size'):
        config.model.image[name] = config.data[name]
    if config.data.image_size == 0:
        raise ValueError(
            'data.image_size=0 is that of the weights that a run starts from: name their folder by '
            '--config.init_from=RUN, or give a size'
        )
    source = sources.make_source(config.data.train, config.data)
    from_data = _of_data(config, source, saved, workdir, left_open)
    notes.append(_fill(config, from_data, giver='the data'))
    if jax.process_index() == 0 and any(notes):
        print('; '.join(filter(None, notes)), flush=True)
    return ml_collections.FrozenConfigDict(config)


def _config_of(origin: str) -> dict[str, Any]:
    """The config of a workdir's newest checkpoint, or of a folder of weights."""
    saved = load_run(origin)
    if saved:
        return saved.config
    path = path_of(origin) / 'config.json'
    theirs = read_json(path)
    return {key: field(theirs, key, dict, str(path)) for key in ('model', 'data')}


def _of_weights(config: Any, theirs: dict[str, Any]) -> dict[str, Any]:
    """Fields that a run, or a folder of weights, settles: 'model.image.width' -> value."""
    data, model = theirs['data'], _flat(theirs['model'])
    fields = {
        f'model.{key}': model[key]
        for key in _flat(config.model.to_dict())
        if key not in _NOT_OF_WEIGHTS and key in model
    }
    names = ['patch_size', 'end_token']
    names += [name for name in ('image_size', 'max_tokens') if config.data[name] == 0]
    return fields | {
        f'data.{name}': field(data, name, (int, bool), 'config.json') for name in names
    }


def _of_data(
    config: Any,
    source: Any,
    saved: SavedRun | None,
    workdir: pathlib.Path | None,
    left_open: set[str],
) -> dict[str, Any]:
    """Open fields that the training records settle, the steps, and what is a share of them."""
    fields, flat, train = {}, _flat(config.to_dict()), config.train
    if left_open:
        tokenizer, fields['model.text.vocab_size'] = _vocabulary(config, source, saved, workdir)
        fields |= _lengths(config, source, tokenizer)
        fields = {key: value for key, value in fields.items() if key in left_open}
    if 'task.classes' in left_open:
        labels = source.label_names(min_count=config.data.min_answer_count)
        fields['task.classes'] = len(labels)
    if 'task.decoding.max_length' in left_open:  # [CLS] and [SEP] are not written
        fields['task.decoding.max_length'] = (flat | fields)['data.max_target_tokens'] - 2
    steps = train.steps
    if train.epochs:
        steps = fields['train.steps'] = math.ceil(train.epochs * len(source) / train.batch_size)
    for share, counted in _SHARES.items():
        if flat.get(share):
            fields[counted] = round(flat[share] * steps)
    return fields


def _vocabulary(
    config: Any, source: Any, saved: SavedRun | None, workdir: pathlib.Path | None
) -> tuple[Tokenizer, int]:
    """The tokeniser that the run will have, and its size where that is left open."""
    data, size = config.data, config.model.text.vocab_size
    if size:
        return run_tokenizer(config, source, saved, workdir=workdir), size
    if saved and not data.vocab:
        tokenizer = tokenizer_of_run(saved, workdir=workdir)
        return tokenizer, tokenizer.vocab_size
    weights = config.init_from
    named = data.vocab or (weights if weights and has_tokenizer(weights) else '')
    try:
        if not named:
            tokenizer = train_tokenizer(
                source.vocabulary_texts(),
                kind=data.vocab_kind,
                size=data.vocab_limit,
                min_count=data.vocab_min_count,
                strip_accents=data.strip_accents,
                fill=False,
                end_token=data.end_token,
            )
            return tokenizer, tokenizer.vocab_size
        tokenizer = make_tokenizer(named, texts=(), size=0, end_token=data.end_token)
        least = tokenizer.vocab_size
        if not data.extend_vocab:
            return tokenizer, least
        tokenizer = extend_tokenizer(
            tokenizer,
            texts=source.vocabulary_texts(),
            size=max(data.vocab_limit, least),
            min_count=data.vocab_min_count,
        )
    except ValueError as error:
        raise ValueError(f'data.vocab_limit={data.vocab_limit}: {error}') from None
    # It ends in unused places up to its size; they are not counted.
    tokens = tokenizer.tokens()
    used = max(i for i, token in enumerate(tokens) if not UNUSED.fullmatch(token))
    return tokenizer, max(least, used + 1)


def _lengths(config: Any, source: Any, tokenizer: Tokenizer) -> dict[str, int]:
    """Lengths that hold the texts of the source, as far as the position table has rows.

    A longer caption or prompt is cut, a longer target refused, see data/examples.py.
    """
    data, text = config.data, config.model.text
    captions, prompts, targets = set(), set(), set()
    for entry in text_entries(source):
        captions |= {clean_caption(t, max_words=data.max_words) for t in entry.get('captions', ())}
        prompts.add(clean_caption(entry.get('prompt', ''), max_words=None))
        targets.update(entry.get('targets', ()), filter(None, [entry.get('label')]))
    longest = lambda texts: max(map(tokenizer.length, texts), default=0)
    rows = text.max_positions - text.position_offset
    return {
        'data.max_tokens': min(rows, max(3, data.max_tokens, longest(captions | prompts))),
        'data.max_prompt_tokens': min(rows, longest(prompts)),
        'data.max_target_tokens': min(rows, max(3, longest(captions | targets))),
    }


def _fill(config: Any, values: dict[str, Any], *, giver: str) -> str:
    """Sets fields; returns what changed: 'from GIVER: KEY=VALUE, ...', '' if nothing did."""
    flat, changed = _flat(config.to_dict()), []
    for key, value in values.items():
        value = tuple(value) if isinstance(value, list) else value
        if flat[key] != value:
            changed.append(f'{key}={value}')
        try:
            config.update_from_flattened_dict({key: value})
        except TypeError:  # a config.json that is damaged, or another project's
            raise ValueError(f'{giver}: {key} cannot be {value!r:.60}') from None
    return f'from {giver}: {", ".join(changed)}' if changed else ''


def _flat(tree: dict[str, Any]) -> dict[str, Any]:
    """{'model': {'image': {'width': 1}}} -> {'model.image.width': 1}."""
    return flax.traverse_util.flatten_dict(tree, sep='.')
