"""Starting a run from existing weights, as `config.init` says."""

import pathlib
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

from semmim_jax.conversion.from_hf import from_hf
from semmim_jax.conversion.report import Loaded, Report
from semmim_jax.conversion.weights import fit_weights, read_weights
from semmim_jax.data.run_files import tokenizer_of_run
from semmim_jax.data.tokenizer import (
    UNUSED,
    Tokenizer,
    check_vocab_size,
    extend_tokenizer,
    has_tokenizer,
    make_tokenizer,
    train_tokenizer,
)
from semmim_jax.training.checkpoint import SavedRun, checkpoints_of, load_params
from semmim_jax.training.state import TrainState


def run_tokenizer(
    config: Any, source: Any, saved: SavedRun | None, *, workdir: pathlib.Path | None
) -> Tokenizer:
    """The tokeniser of a run.

    What `data.vocab` names; if that is '', the checkpoint's once there is one, or that of
    `init_from`, or else one of the kind `data.vocab_kind`, made from the texts of the source.
    With `data.extend_vocab` the source's words are added to the one of `data.vocab` or
    `init_from`.

    Args:
      config: the experiment.
      source: of training records.
      saved: of the newest checkpoint, None if there is none.
      workdir: the run's folder; not needed where there is no checkpoint.

    Raises:
      ValueError: if there is no such vocabulary, or it has not the size that the model embeds.
    """
    data, size = config.data, config.model.text.vocab_size
    if saved and not data.vocab:
        tokenizer = tokenizer_of_run(saved, workdir=workdir)
        check_vocab_size(tokenizer, size)
        return tokenizer
    vocab = data.vocab
    if not vocab and config.init_from and has_tokenizer(config.init_from):
        vocab = config.init_from
    if not vocab:
        return train_tokenizer(
            source.vocabulary_texts(),
            kind=data.vocab_kind,
            size=size,
            min_count=data.vocab_min_count,
            strip_accents=data.strip_accents,
            fill=True,
            end_token=data.end_token,
        )
    tokenizer = make_tokenizer(vocab, texts=(), size=size, end_token=data.end_token)
    if data.extend_vocab:
        texts = source.vocabulary_texts()
        tokenizer = extend_tokenizer(
            tokenizer, texts=texts, size=size, min_count=data.vocab_min_count
        )
    check_vocab_size(tokenizer, size)
    return tokenizer


def start_from(state: TrainState, config: Any, tokenizer: Tokenizer) -> tuple[TrainState, Report]:
    """Replaces the fresh parameters, student's and teacher's, by those that `config.init` names.

    Args:
      state: fresh; every array stays on its devices.
      config: the experiment.
      tokenizer: of the run; the words of a checkpoint must be its words.

    Returns:
      The state, and the account of what was loaded.

    Raises:
      ConversionError: if something does not fit.
    """
    flat = flax.traverse_util.flatten_dict(state.params, sep='/')
    shapes = {path: x.shape for path, x in flat.items()}
    loaded = load(config, shapes=shapes, tokenizer=tokenizer)
    shardings = jax.tree.map(lambda x: x.sharding, state.params)
    placed = {path: _placed(x, flat[path]) for path, x in loaded.params.items()}
    params = flax.traverse_util.unflatten_dict(flat | placed, sep='/')
    # Copies by the devices: arrays may share the host's memory, and the step donates its state.
    copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=shardings)
    state = state.replace(params=copy(params), ema_params=copy(params))
    return state, Report.of(loaded, shapes=shapes)


def load(config: Any, *, shapes: dict[str, tuple[int, ...]], tokenizer: Tokenizer) -> Loaded:
    """The parameters that `config.init` names; arguments as in `start_from`."""
    init, loaded = config.init, Loaded({}, {}, [])
    if config.init_from:
        _check_words(tokenizer, config.init_from, extended=config.data.extend_vocab)
        if checkpoints_of(config.init_from).is_dir():
            params, saved = load_params(config.init_from, params=init.params)
            config_there = saved.config
        else:
            params, config_there = read_weights(config.init_from)
        fitted = fit_weights(
            params,
            config_there,
            model=config.model,
            shapes=shapes,
            origin=config.init_from,
            more_words=config.data.extend_vocab,
            frames=config.data.frames if 'frames' in config.data else 1,
        )
        loaded = loaded.with_others(fitted)
        end = config_there['data']['end_token']
        if end != config.data.end_token:
            origin = config.init_from
            raise ValueError(f'{origin} has its tokens with --config.data.end_token={end}')
    if init.text:
        _check_words(tokenizer, init.text, extended=config.data.extend_vocab)
        if not config.data.vocab and not has_tokenizer(init.text):
            raise ValueError(
                f"data.vocab is '', but {init.text} has a vocabulary of its own: name its file"
            )
    for part in ('image', 'text'):
        if init[part]:
            tower = from_hf(
                init[part],
                model=config.model,
                shapes=shapes,
                part=part,
                fusion=init.fusion,
                decoder=init.decoder,
            )
            loaded = loaded.with_others(tower)
    return loaded


def _placed(value: np.ndarray, fresh: jax.Array) -> jax.Array:
    """A loaded value on the devices of the fresh parameter; words that it lacks stay fresh."""
    if value.shape != fresh.shape:
        fill = lambda fresh, value: fresh.at[: len(value)].set(value)
        return jax.jit(fill, out_shardings=fresh.sharding)(fresh, value)
    return jax.make_array_from_callback(fresh.shape, fresh.sharding, lambda i: value[i])


def _check_words(tokenizer: Tokenizer, folder: str, *, extended: bool) -> None:
    """Raises ValueError if the folder has a tokeniser of other words than the run's.

    Words added by the run (`extended`) stand in the places of unused ones, and after all others.
    """
    if not has_tokenizer(folder):
        return
    theirs, ours = make_tokenizer(folder, texts=(), size=0).tokens(), tokenizer.tokens()
    free = UNUSED.fullmatch if extended else lambda token: False
    pairs = enumerate(zip(theirs, ours))
    at = next((i for i, (a, b) in pairs if a != b and not free(a)), None)
    if len(theirs) > len(ours) or len(theirs) < len(ours) and not extended:
        clash = f'{len(theirs)} tokens there, {len(ours)} here'
    elif at is not None:
        clash = f'token {at} is {theirs[at]!r} there, {ours[at]!r} here'
    else:
        return
    raise ValueError(
        f'data.vocab is not the vocabulary of {folder}: {clash}; use --config.data.vocab={folder}'
    )
