"""The discrete VAE whose tokens are the target of pre-training (docs/method.md section 4.6).

A run reads it once, when it starts. From then on it is part of the run's own state, and its folder
is only compared, while it is there: a resumed run, or an evaluation elsewhere, needs no other one.
"""

import hashlib
from typing import Any

import flax
import jax

from semmim_jax.training.checkpoint import (
    SavedRun,
    checkpoints_of,
    load_params,
    load_run,
    saved_steps,
)
from semmim_jax.training.state import TrainState

_SIZES = ('data.image_size', 'data.patch_size', 'model.dvae.width', 'model.dvae.codes')
_PIXELS = ('model.pixel_mean', 'model.pixel_std')


def needed(config: Any) -> bool:
    """Whether a config's target is tokens."""
    task = config.task
    return 'mim' in task and task.mim.target == 'dvae' and task.weights.mim > 0


def check(config: Any) -> None:
    """Refuses a start from a discrete VAE that does not fit; no array is read.

    Args:
      config: the experiment.

    Raises:
      ValueError: for a folder that holds none, or the first size that is another there.
    """
    folder = config.task.mim.dvae
    if not folder:
        raise ValueError(
            "task.mim.target='dvae' predicts the tokens of a discrete VAE: name the workdir of a "
            'run of configs/dvae.py by --config.task.mim.dvae=RUN'
        )
    saved = load_run(folder)
    if saved is None:
        raise ValueError(f'task.mim.dvae={folder} holds no checkpoint')
    name = saved.config['task']['name']
    if name != 'dvae':
        raise ValueError(f"task.mim.dvae={folder} is a run of the task {name!r}, not of 'dvae'")
    flat = lambda tree: flax.traverse_util.flatten_dict(tree, sep='.')
    theirs, ours = flat(saved.config), flat(config.to_dict())
    for key in _SIZES + _PIXELS:
        plain = [list(x) if isinstance(x, tuple) else x for x in (theirs[key], ours[key])]
        if plain[0] != plain[1]:
            raise ValueError(
                f'{key} is {plain[0]} in task.mim.dvae={folder}, and {plain[1]} here: they must '
                'be the same'
            )


def put_into(state: TrainState, config: Any) -> TrainState:
    """A fresh state with the encoder of `task.mim.dvae` in it, the EMA of its parameters.

    See docs/method.md section 4.6.
    """
    fresh = state.extra['dvae']
    place = lambda x, like: jax.make_array_from_callback(x.shape, like.sharding, lambda i: x[i])
    loaded = flax.traverse_util.unflatten_dict(_encoder(config.task.mim.dvae), sep='/')
    return state.replace(extra={**state.extra, 'dvae': jax.tree.map(place, loaded, fresh)})


def fingerprint(config: Any, saved: SavedRun | None) -> dict[str, str]:
    """What tells one discrete VAE from another, for the fingerprint of the run's data.

    Where the folder is gone it is what the checkpoint says (docs/method.md section 4.6).

    Args:
      config: the experiment.
      saved: of the run's newest checkpoint, None if there is none.
    """
    folder = config.task.mim.dvae
    if saved and not (folder and saved_steps(checkpoints_of(folder))):
        return {'dvae': saved.data['dvae']} if 'dvae' in saved.data else {}
    digest = hashlib.sha256()
    for name, value in sorted(_encoder(folder).items()):
        digest.update(f'{name} {value.shape}'.encode())
        digest.update(value.tobytes())
    return {'dvae': digest.hexdigest()[:16]}


def _encoder(folder: str) -> dict[str, Any]:
    """'Conv_0/kernel' -> array."""
    params, _ = load_params(folder)
    part = 'encoder/'
    return {k.removeprefix(part): x for k, x in params.items() if k.startswith(part)}
