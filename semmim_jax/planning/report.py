"""Compiles the step for a machine and puts its figures into a table and into JSON."""

import dataclasses
import textwrap
import time
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from semmim_jax.planning import costs, program, roofline
from semmim_jax.planning.topologies import Machine
from semmim_jax.training import flops, sharding
from semmim_jax.training.assembly import MakeTask
from semmim_jax.training.state import TrainState

SETTINGS = ('train.batch_size', 'train.steps', 'model.dtype', 'model.remat', 'model.scan')
SETTINGS += ('model.attention', 'train.accumulate')
MOST_SCOPES = 8  # lines of the table of HBM traffic
PARTS = ('params', 'optimizer', 'ema', 'extra', 'batch')


class DoesNotFit(ValueError):
    """A step that needs more memory than a device has.

    Args:
      machine: its name.
      reason: how much is needed; kept as an attribute.
    """

    def __init__(self, machine: str, reason: str):
        super().__init__(
            f'the step does not fit {machine}: {reason}. A larger mesh.fsdp, model.remat=full or a '
            'smaller train.batch_size saves memory'
        )
        self.reason = reason


class Built(NamedTuple):
    """A compiled step and what it was made of."""

    compiled: jax.stages.Compiled
    state: TrainState  # abstract
    batch: dict[str, jax.ShapeDtypeStruct]
    mesh: Mesh
    compile_seconds: float


def preflight(config: Any, make_task: MakeTask, machine: Machine) -> dict[str, Any]:
    """All figures of a run that are known before renting the machine; see `build`, `figures`.

    Raises:
      ValueError: if the mesh or the batch does not fit the machine.
      DoesNotFit: if the step does not fit its memory.
    """
    built = build(config, make_task, machine)
    check_fits(needed_bytes(built.compiled.memory_analysis(), machine), machine)
    return figures(config, make_task, machine, built)


def build(config: Any, make_task: MakeTask, machine: Machine) -> Built:
    """Compiles the step of a config for a machine.

    Args:
      config: the experiment.
      make_task: (config, special tokens) -> task.
      machine: of `topologies.open_machine`.

    Raises:
      ValueError: if the mesh or the batch does not fit the machine.
      DoesNotFit: if the compiler says so.
    """
    try:
        mesh = sharding.make_mesh(config.mesh, devices=machine.devices)
    except NotImplementedError as error:  # JAX's
        raise ValueError(
            f'mesh {dict(config.mesh)}: each axis must be a product of sides of {machine.name}'
        ) from error
    lowered, state, batch = program.lower_step(config, make_task, mesh)
    started = time.monotonic()
    compiled = _compile(lowered, machine)
    return Built(compiled, state, batch, mesh, time.monotonic() - started)


def figures(config: Any, make_task: MakeTask, machine: Machine, built: Built) -> dict[str, Any]:
    """What a compiled step needs and how long it is expected to take.

    Args:
      config, make_task, machine: as in `build`.
      built: of `build`.

    Returns:
      Figures of plain numbers, strings, lists and dicts: bytes and FLOPs are of one device where
      the name says so, times in seconds. 'time' is None where the chip is not in the table. All are
      of texts padded to `data.max_tokens`, but 'model_flops_by_length'; that is None without
      `data.text_buckets`.
    """
    mesh = built.mesh
    plain, _, _ = program.lower_step(program.without_kernels(config), make_task, mesh)
    once = plain
    if config.model.remat != 'none' or config.train.accumulate > 1:
        once, _, _ = program.lower_step(program.without_recomputation(config), make_task, mesh)
    batch_size, devices = config.train.batch_size, mesh.size
    model_flops = flops.matmul_flops(once).total()
    found = {
        'topology': machine.name,
        'device': machine.devices[0].device_kind,
        'devices': devices,
        'mesh': dict(mesh.shape),
        'settings': {name: _field(config, name) for name in SETTINGS},
        'model_flops_per_sample': model_flops / batch_size,
        'step_flops_per_sample': flops.matmul_flops(plain).total() / batch_size,
        'model_flops_by_length': (
            program.flops_by_length(config, make_task, mesh) if config.data.text_buckets else None
        ),
        'compile_seconds': built.compile_seconds,
        'bytes_per_device': _memory(built.compiled, built.state, built.batch, machine),
    }
    per_device = costs.read(built.compiled.as_text(), mesh.shape)
    found |= {
        'flops_per_device': per_device.flops,
        'hbm_traffic_per_device': per_device.hbm_bytes,
        'hbm_traffic_by_scope': per_device.hbm_bytes_by_scope(),
        'unknown_loops': per_device.unknown_loops,
        'collectives': _collectives(per_device),
        'time': None,
    }
    if machine.chip is not None:
        times = roofline.estimate(
            per_device,
            machine.chip,
            interconnect=machine.chip.interconnect(machine.sides),
            model_flops=model_flops,
            batch_size=batch_size,
            steps=config.train.steps,
            devices=devices,
        )
        found['time'] = dataclasses.asdict(times)
    return found


def _field(config: Any, name: str) -> Any:
    for part in name.split('.'):
        config = config[part]
    return config


def _compile(lowered: jax.stages.Lowered, machine: Machine) -> jax.stages.Compiled:
    try:
        return lowered.compile(compiler_options=machine.compiler_options)
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        message = str(error).splitlines()[0].partition('RESOURCE_EXHAUSTED: ')[2]
        raise DoesNotFit(machine.name, message.rstrip('.')) from error


def needed_bytes(usage: Any, machine: Machine) -> float:
    """Bytes of one device for a step, by its compiler (docs/scaling.md, How the figures are made).

    Args:
      usage: `memory_analysis` of the compiled step.
      machine: a TPU needs the peak, which its compiler compares with the memory that it may fill;
        others keep room for all temporaries.
    """
    if machine.tpu:
        return float(usage.peak_memory_in_bytes + usage.generated_code_size_in_bytes)
    # Results that take no argument's place.
    kept = usage.output_size_in_bytes - usage.alias_size_in_bytes
    held = usage.argument_size_in_bytes + kept + usage.temp_size_in_bytes
    return float(held + usage.generated_code_size_in_bytes)


def check_fits(needed: float, machine: Machine) -> None:
    """Refuses a step that a device has no memory for.

    Args:
      needed: bytes, of `needed_bytes`.
      machine: any step fits a chip without figures.

    Raises:
      DoesNotFit: if the device has less; says how much is needed.
    """
    if machine.chip and needed > machine.chip.hbm_bytes:
        have = machine.chip.hbm_bytes / 1e9
        raise DoesNotFit(machine.name, f'it needs {needed / 1e9:.1f} of {have:.1f} GB a device')


def _memory(compiled, state, batch, machine: Machine) -> dict[str, float]:
    """Bytes of one device: our sums over the shardings and tiles, then what the compiler says."""
    rest = state.replace(params=None, opt_state=None, ema_params=None)
    held = (state.params, state.opt_state, state.ema_params, rest, batch)
    ours = {name: program.device_bytes(tree, tile=machine.tile) for name, tree in zip(PARTS, held)}
    usage = compiled.memory_analysis()
    return ours | {
        'arguments_predicted': sum(ours.values()),
        'arguments': usage.argument_size_in_bytes,
        'temporaries': usage.temp_size_in_bytes,
        'code': usage.generated_code_size_in_bytes,
        'needed': needed_bytes(usage, machine),
        'hbm': machine.chip.hbm_bytes if machine.chip else None,
    }


def _collectives(per_device: costs.Costs) -> list[dict[str, Any]]:
    """Collectives of the same kind over the same axes, added up."""
    by_axes: dict[tuple, dict[str, Any]] = {}
    for c in per_device.collectives:
        total = by_axes.setdefault(
            (c.kind, c.axes), {'kind': c.kind, 'axes': list(c.axes), 'calls': 0, 'bytes': 0.0}
        )
        total['calls'] += c.times
        total['bytes'] += c.times * c.bytes
    return sorted(by_axes.values(), key=lambda total: -total['bytes'])


def table(figures: dict[str, Any]) -> str:
    """The figures as text for people."""
    mesh = ' x '.join(f'{axis} {size}' for axis, size in figures['mesh'].items())
    settings = ', '.join(f'{name}={value}' for name, value in figures['settings'].items())
    lines = [
        f'{figures["topology"]}: {figures["devices"]} x {figures["device"]}, mesh {mesh}',
        *textwrap.wrap(settings, 100, break_long_words=False),
        f'compiled in {figures["compile_seconds"]:.0f} s',
        *_memory_lines(figures['bytes_per_device']),
        *_flops_lines(figures),
        *_traffic_lines(figures['hbm_traffic_by_scope']),
        *_collective_lines(figures['collectives']),
    ]
    if figures['unknown_loops']:
        lines.append(f'  loops of unknown length, counted once: {figures["unknown_loops"]}')
    return '\n'.join(lines + _time_lines(figures))


def _si(value: float, unit: str = '') -> str:
    """12.3 G; the prefix keeps 1 to 999 before the point."""
    power = next((p for p in range(4) if abs(value) < 999.5 * 1000**p), 4)
    return f'{value / 1000**power:10.2f} {"kMGT"[power - 1] + unit if power else unit:2}'


def _memory_lines(memory: dict[str, Any]) -> list[str]:
    line = lambda name, key: f'  {name:26}{_si(memory[key], "B")}'
    off, hbm = memory['arguments'] / memory['arguments_predicted'] - 1, memory['hbm']
    share = f'   {memory["needed"] / hbm:.0%} of {hbm / 1e9:.1f} GB HBM' if hbm else ''
    return [
        '',
        'memory of a device',
        *(line(name, name) for name in PARTS),
        line('sum of these', 'arguments_predicted'),
        f'{line("arguments, compiler", "arguments")}   {off:+.1%}',
        line('temporaries, compiler', 'temporaries'),
        line('needed, compiler', 'needed') + share,
    ]


def _flops_lines(figures: dict[str, Any]) -> list[str]:
    batch_size, devices = figures['settings']['train.batch_size'], figures['devices']
    step, once = figures['step_flops_per_sample'], figures['model_flops_per_sample']
    actual, even = figures['flops_per_device'], step * batch_size / devices
    line = lambda name, value: f'  {name:26}{_si(value)}'
    lengths = figures['model_flops_by_length'] or {}
    of_texts = [line(f'with texts of {n} tokens', cost) for n, cost in lengths.items()]
    return [
        '',
        'FLOPs of matrix products',
        line('model, a sample', once),
        *of_texts,
        f'{line("with recomputation", step)}   {step / once - 1:+.1%}',
        line('model, a step', once * batch_size),
        f'{line("compiled, a device", actual)}   {actual / even - 1:+.1%} against an even share',
    ]


def _traffic_lines(by_scope: dict[str, float]) -> list[str]:
    """The parts of the model that read and write most, and all others as one."""
    total, parts = sum(by_scope.values()), list(by_scope.items())
    rest = sum(size for _, size in parts[MOST_SCOPES:])
    shown = [(name or 'optimizer, losses, ...', size) for name, size in parts[:MOST_SCOPES]]
    shown += [('others', rest)] * (rest > 0)
    lines = ['', f'{"HBM traffic of a device":40}']
    return lines + [f'  {name:38}{_si(size, "B")}{size / total:7.0%}' for name, size in shown]


def _collective_lines(collectives: list[dict[str, Any]]) -> list[str]:
    lines = ['', f'{"collectives a step":24}{"mesh axes":20}{"calls":>7}{"received":>12}']
    for total in collectives:
        axes = ', '.join(total['axes'])
        lines.append(f'  {total["kind"]:22}{axes:20}{total["calls"]:7}{_si(total["bytes"], "B")}')
    return [*lines, f'  {"all":49}{_si(sum(total["bytes"] for total in collectives), "B")}']


def _time_lines(figures: dict[str, Any]) -> list[str]:
    times = figures['time']
    if times is None:
        return ['', f'no peak figures for {figures["device"]}: no times']
    rows = [
        ('products at peak', times['compute'] * 1e3, 'ms'),
        ('HBM traffic', times['hbm'] * 1e3, 'ms'),
        ('interconnect', times['interconnect'] * 1e3, 'ms'),
        ('waits for links or copies', times['exposed'] * 1e3, 'ms'),
        ('no step is faster than', times['bound'] * 1e3, 'ms'),
        ('predicted step', times['step'] * 1e3, 'ms'),
        ('predicted MFU', times['mfu'] * 100, '%'),
        ('samples a second', times['samples_per_second'], ''),
        ('days', times['days'], ''),
        ('chip-hours', times['chip_hours'], ''),
    ]
    head = f'roofline from peak figures, not measured; {figures["settings"]["train.steps"]} steps'
    return ['', head, *(f'  {name:26}{value:10.2f} {unit}'.rstrip() for name, value, unit in rows)]
