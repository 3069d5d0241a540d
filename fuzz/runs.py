"""Fuzzing of what a run reads: command line, config, metrics, checkpoints, weights."""

import functools
import json
import pathlib
import shutil
import sys
import tempfile

import jax
import ml_collections
import numpy as np
import safetensors.numpy
from absl import flags
from hypothesis import strategies as st

from configs.pretrain import get_config
from drills.small_state import abstract, one_device, save
from fuzz.mutations import NUMBERS, json_values, mutated
from semmim_jax import main  # noqa: F401  defines the flags
from semmim_jax.cli.parser import parse
from semmim_jax.conversion.files import read_tensors
from semmim_jax.run.experiment import open_experiment
from semmim_jax.tasks.registry import find_task
from semmim_jax.training.checkpoint import Checkpoints
from semmim_jax.training.config_rules import check_ranges
from semmim_jax.training.metrics import MetricsWriter
from semmim_jax.training.step import make_step
from semmim_jax.training.verify import verify_workdir
from semmim_jax.viz.curves import read_metrics


def metrics(data: st.DataObject, folder: pathlib.Path) -> None:
    path = folder / 'metrics.jsonl'
    lines = [json.dumps({'step': i, 'train/loss': 1 / i}) for i in range(1, 6)]
    if data.draw(st.booleans()):
        lines += [json.dumps(data.draw(json_values(st.just('step'))))]
    path.write_bytes(mutated(data, ('\n'.join(lines) + '\n').encode()))
    try:
        read_metrics(path)
    except ValueError as error:
        assert str(path) in str(error), error
    writer = MetricsWriter(folder, first_step=3, active=True, trackers=())
    writer.scalars(4, 'train', {'loss': 0.5})
    writer.close()
    steps = [json.loads(line)['step'] for line in path.read_text().splitlines()]
    assert steps.pop() == 4 and all(step <= 3 for step in steps)
    read_metrics(path)


@functools.cache
def saved() -> pathlib.Path:
    """A workdir with steps 1 and 2."""
    folder = pathlib.Path(tempfile.mkdtemp())
    checkpoints = Checkpoints(folder, keep=2, async_save=False)
    for step in (1, 2):
        save(checkpoints, one_device(step))
    checkpoints.check_last_save()
    checkpoints.close()
    return folder


def checkpoint(data: st.DataObject, folder: pathlib.Path) -> None:
    shutil.copytree(saved(), folder, dirs_exist_ok=True)
    files = sorted(path for path in (folder / 'checkpoints').rglob('*') if path.is_file())
    for path in data.draw(st.lists(st.sampled_from(files), min_size=1, max_size=3, unique=True)):
        if data.draw(st.integers(0, 9)):
            path.write_bytes(mutated(data, path.read_bytes()))
        elif path.name != 'digests.json':  # without it there is nothing to compare with
            path.unlink()
    intact = verify_workdir(folder)
    checkpoints = Checkpoints(folder, keep=2, async_save=False)
    try:
        restored, _ = checkpoints.restore(abstract(one_device(0)))
    finally:
        checkpoints.close()
    expected = one_device(int(restored.step))
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(expected), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert restored.step == 2 or not intact


NUMBERS_TYPED = '0 -1 1 2 3 5 7 8 0.5 1.5 -0.0 1e-9 1e400 nan inf -inf 2147483648 0x10'.split()
WORDS_TYPED = (
    'None True plain none full float16 int8 fsdp data nowhere random block pixel global same '
    'centring online pillow cudnn emoji_scenes:val emoji_scenes:x captions:/dev/null captions:. '
    '/dev/zero () (1,2) (0.1,0.9) (1,"a",3) [1] {"a":1} __import__("os") \\0 ü'
).split() + ['', '9' * 30, '9' * 5000]


@functools.cache
def fields() -> dict[str, bool]:
    """Every field of the tiny config, dotted, and whether it is a number."""

    def below(config, prefix):
        for name, value in config.items():
            if hasattr(value, 'items'):
                yield from below(value, f'{prefix}{name}.')
            else:
                yield prefix + name, isinstance(value, int | float)

    return dict(below(get_config('tiny'), ''))


def overrides(data: st.DataObject, *, most: int) -> list[str]:
    """One field of the config or more, with values mostly of their kind."""
    names = data.draw(
        st.lists(st.sampled_from(sorted(fields())), min_size=1, max_size=most, unique=True)
    )
    arguments = []
    for name in names:
        numbers = fields()[name] == bool(data.draw(st.integers(0, 9)))
        typed = st.sampled_from(NUMBERS_TYPED if numbers else WORDS_TYPED)
        arguments.append(f'--config.{name}={data.draw(typed | st.text(max_size=5))}')
    return arguments


def parsed(arguments: list[str]) -> ml_collections.ConfigDict:
    """The config that a command line gives, as main.py parses it."""
    for name in [name for name in flags.FLAGS if name.startswith('config.')]:
        delattr(flags.FLAGS, name)  # of the example before
    sys.argv = ['main', '--config=configs/pretrain.py:tiny', *arguments]
    try:
        parse(sys.argv)
        flags.FLAGS.config.items()
    except SystemExit as ended:
        raise ValueError(ended.code) from None
    except OSError as error:  # of a config file; main.py makes it one line
        raise ValueError(' '.join(str(error).split())) from None
    return flags.FLAGS.config


def command_line(data: st.DataObject, folder: pathlib.Path) -> None:
    arguments = overrides(data, most=3)
    if data.draw(st.booleans()):
        arguments += data.draw(st.lists(st.text(max_size=12) | st.sampled_from(['--', '--mode=x'])))
    if data.draw(st.booleans()):
        text = mutated(data, arguments[0].encode('utf-8', 'surrogatepass'))
        arguments[0] = text.decode('utf-8', 'replace').replace('--flagfile', '')
    if {'--help', '--helpshort', '--helpfull', '--helpxml'} & set(arguments):
        return
    check_ranges(parsed(arguments))


def experiment(data: st.DataObject, folder: pathlib.Path) -> None:
    config = parsed(overrides(data, most=1))
    if isinstance(config.train.compilation_cache, str):
        config.train.compilation_cache = ''  # a folder elsewhere, which it would rightly make
    run = open_experiment(config, str(folder), find_task(config))
    run.checkpoints.close()
    assert not any(folder.iterdir())  # nothing is written before a start has passed its checks
    size = run.config.train.batch_size
    batch = {
        name: jax.ShapeDtypeStruct((size, *field.shape), field.dtype)
        for name, field in run.task.batch_spec.items()
    }
    jax.eval_shape(make_step(run.task, run.tx, run.config), run.abstract, batch)


@functools.cache
def weights_file() -> bytes:
    """A safetensors file of three types."""
    kinds = {'a': np.float32, 'b': np.float16, 'c': np.int64}
    tensors = {name: np.arange(6, dtype=kind).reshape(2, 3) for name, kind in kinds.items()}
    return safetensors.numpy.save(tensors, {'format': 'pt'})


def weights(data: st.DataObject, folder: pathlib.Path) -> None:
    raw = weights_file()
    if data.draw(st.booleans()):  # another header of the right length
        size = int.from_bytes(raw[:8], 'little')
        header = json.loads(raw[8 : 8 + size])
        name = data.draw(st.sampled_from(sorted(header)))
        numbers = st.sampled_from([-1, *NUMBERS]) | st.integers(0, 100)
        kinds = ['F32', 'F64', 'BF16', 'F8_E4M3', 'BOOL', 'U8', 'I64', 'X', '']
        header[name] = data.draw(
            json_values(st.just('x'))
            | st.fixed_dictionaries(
                {
                    'dtype': st.sampled_from(kinds),
                    'shape': st.lists(numbers, max_size=3),
                    'data_offsets': st.lists(numbers, min_size=2, max_size=2),
                }
            )
        )
        text = json.dumps(header).encode()
        raw = len(text).to_bytes(8, 'little') + text + raw[8 + size :]
    else:
        raw = mutated(data, raw)
    if data.draw(st.booleans()):
        (folder / 'model.safetensors').write_bytes(raw)
    else:
        (folder / 'one.safetensors').write_bytes(raw)
        places = data.draw(
            st.just({name: 'one.safetensors' for name in 'abc'}) | json_values(st.just('../one'))
        )
        index = json.dumps({'weight_map': places}).encode()
        if data.draw(st.booleans()):
            index = mutated(data, index)
        (folder / 'model.safetensors.index.json').write_bytes(index)
    for array in read_tensors(folder).values():
        assert array.dtype == np.float32 or array.dtype.kind in 'biu'
        assert array.nbytes <= 100_000
