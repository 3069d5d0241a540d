"""Weights in and out: python -m semmim_jax.convert COMMAND FROM OUT [flags]

from-hf DIR OUT --config=FILE[:VARIANT]   a Hugging Face folder (CLIP, ViT, DeiT, BERT, RoBERTa) for
                                          --config.init_from=OUT
to-hf WORKDIR OUT [--params=online]       the towers of a run as OUT/image and OUT/text, and a
                                          processor of images and texts as OUT
from-torch FILE OUT --config=...          a checkpoint of ALBEF or, with a config of SCL, of SCL, or
                                          a folder of to-torch, likewise
to-torch WORKDIR OUT [--params=online]    a run as a folder that PyTorch reads without this project

OUT is a new folder; after an error there is none. docs/weights.md says more.
"""

import functools
import logging
import os
import pathlib
import sys
from typing import TYPE_CHECKING, Any

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # hides XLA's notes on the machine

from absl import app, flags

from semmim_jax.cli.parser import define_config, parse

if TYPE_CHECKING:
    pass

# Packages that take seconds to import are imported in the functions below: by then the flags, the
# config and the folders are known to be right.

_CONFIG = define_config(None, 'from-*: the experiment to convert for')
_PART = flags.DEFINE_enum('part', '', ['', 'image', 'text'], 'from-hf: what DIR has to hold')
_PARAMS = flags.DEFINE_enum('params', 'ema', ['ema', 'online'], 'which parameters of a run')
_DEBUG = flags.DEFINE_bool('debug', False, 'show the traceback of an error')


def convert_from_hf(source: str, out: str) -> None:
    """Our weights from a Hugging Face folder; prints the report."""
    from semmim_jax.conversion import from_hf
    from semmim_jax.conversion.weights import write_converted

    config, shapes, _ = _wanted()
    loaded = from_hf.from_hf(
        source,
        model=config.model,
        shapes=shapes,
        part=_PART.value,
        fusion=config.init.fusion,
        decoder=config.init.decoder,
    )
    print(write_converted(out, loaded, config=config, shapes=shapes, source=source))


def convert_from_torch(source: str, out: str) -> None:
    """Our weights from a checkpoint of ALBEF or SCL, or a folder of to-torch; prints the report."""
    from semmim_jax.conversion import from_torch
    from semmim_jax.conversion.weights import write_converted

    config, shapes, task = _wanted()
    loaded = from_torch.from_torch(
        source, model=config.model, shapes=shapes, family=task.family, images=task.images
    )
    config.data.end_token = from_torch.end_token(source, family=task.family)
    print(write_converted(out, loaded, config=config, shapes=shapes, source=source))


def _wanted() -> tuple[Any, dict[str, tuple[int, ...]], Any]:
    """The experiment of --config, resolved; the shapes of its model's parameters; its task."""
    import flax
    import jax
    import ml_collections
    from flax.core import meta

    from semmim_jax.ops.special_tokens import SpecialTokens
    from semmim_jax.run.resolve import resolve
    from semmim_jax.tasks.registry import find_task

    config = ml_collections.ConfigDict(resolve(_CONFIG.value, None).to_dict())
    special = SpecialTokens(0, 0, 0, 0, config.model.text.vocab_size)  # ids shape nothing
    task = find_task(config)(ml_collections.FrozenConfigDict(config), special)
    params = meta.unbox(jax.eval_shape(task.init, jax.random.key(0)))
    flat = flax.traverse_util.flatten_dict(params, sep='/')
    return config, {path: x.shape for path, x in flat.items()}, task


def convert_to_hf(workdir: str, out: str) -> None:
    """A run's towers as Hugging Face folders."""
    from semmim_jax.conversion import files, to_hf
    from semmim_jax.data.run_files import tokenizer_of_run
    from semmim_jax.tasks.registry import task_of_run
    from semmim_jax.training.checkpoint import load_params

    params, saved = load_params(workdir, params=_PARAMS.value)
    tokenizer, model = tokenizer_of_run(saved, workdir=workdir), saved.config['model']
    task, name = task_of_run(saved.config, tokenizer.special), saved.config['task']['name']
    files.check_exportable(task, name=name, families=('semmim',), to='Hugging Face')
    with files.new_folder(out) as folder:
        for part in ('image', 'text'):
            (folder / part).mkdir()
        to_hf.write_image_tower(folder / 'image', params=params, model=model)
        pad_id = tokenizer.pad_id
        to_hf.write_text_tower(folder / 'text', params=params, model=model, pad_id=pad_id)
        tokenizer.save(folder / 'text')
        to_hf.write_processor(folder, tokenizer=tokenizer, model=model)


def convert_to_torch(workdir: str, out: str) -> None:
    """A run as a folder for PyTorch."""
    from semmim_jax.conversion import to_torch

    to_torch.to_torch(workdir, out, params=_PARAMS.value)


COMMANDS = {
    'from-hf': convert_from_hf,
    'to-hf': convert_to_hf,
    'from-torch': convert_from_torch,
    'to-torch': convert_to_torch,
}
WORDS = {'COMMAND': tuple(COMMANDS), 'FROM': (), 'OUT': ()}


def main(argv: list[str]) -> None:
    """Runs a command; a mistake ends in one line, not in a traceback."""
    logging.getLogger().setLevel(logging.WARNING)
    _, command, source, out = argv
    try:
        if command.startswith('from-') and _CONFIG.value is None:
            raise ValueError('--config=FILE is needed: the model that the weights are for')
        if pathlib.Path(out).exists():
            raise ValueError(f'{out} exists already: name a new folder')
        COMMANDS[command](source, out)
        print(f'wrote {pathlib.Path(out)}')
    except (ValueError, OSError) as error:
        if _DEBUG.value:
            raise
        sys.exit(f'error: {error}')


if __name__ == '__main__':
    app.run(main, flags_parser=functools.partial(parse, words=WORDS))
