"""Topologies of machines that are not present, as devices to compile for.

v5e:16x16    a TPU slice by its shape in chips; v4, v5p, v6e alike        needs libtpu
h100:8       GPUs, up to 8 of a host, or whole hosts of 8                 needs the CUDA plugin
local        the devices of this machine
"""

import dataclasses
import importlib.util
import math
import os
import pathlib
from typing import Any

import jax
from jax._src.cudnn import fused_attention_stablehlo
from jax.experimental import topologies

from semmim_jax.planning.chips import CHIPS, Chip, chip_of

_TARGETS = pathlib.Path(__file__).parent
_CUDNN = 91100  # version 9.11


@dataclasses.dataclass(frozen=True)
class Machine:
    """What to compile for.

    Attributes:
      name: as asked for.
      devices: JAX's, without hardware behind them unless local.
      chip: their figures; None if unknown.
      sides: of the slice in chips; one number for chips behind a switch.
    """

    name: str
    devices: list[Any]
    chip: Chip | None
    sides: tuple[int, ...]

    @property
    def tpu(self) -> bool:
        """Whether the chip is known to be one: those with links of a torus are."""
        return bool(self.chip and self.chip.wrap)

    @property
    def tile(self) -> tuple[int, int]:
        """What two dimensions of an array are padded to: TPUs keep 32-bit arrays in such tiles."""
        return (8, 128) if self.tpu else (1, 1)

    @property
    def compiler_options(self) -> dict[str, Any]:
        """What XLA needs to compile without the hardware."""
        if self.name == 'local' or self.tpu:
            return {}
        # Its cost model for Triton products finds no tiling for some of ours; with a device, XLA
        # would time the candidates. cuBLAS's products need none.
        return {'xla_gpu_enable_triton_gemm': False}


def open_machine(name: str) -> Machine:
    """The machine that `--topology` names. To be called before JAX uses any device.

    Raises:
      ValueError: for a name that is not known, or whose compiler is not installed.
    """
    if name == 'local':
        devices = jax.devices()
        chip = chip_of(devices[0].device_kind)
        torus = zip(*(device.coords for device in devices)) if chip and chip.wrap else ()
        sides = tuple(max(places) - min(places) + 1 for places in torus)
        return Machine(name, devices, chip, sides or (len(devices),))
    kind, _, shape = name.partition(':')
    sides = tuple(int(side) if side.isdecimal() else 0 for side in shape.split('x'))
    if kind not in CHIPS or not all(sides):
        raise ValueError(
            f'--topology={name}: use local, or a chip and a shape such as v5e:16x16, v5p:4x4x8 '
            f'or h100:8; chips: {", ".join(CHIPS)}'
        )
    chip = CHIPS[kind]
    jax.config.update('jax_platforms', 'cpu')  # where the tracing runs
    describe = _tpus if chip.wrap else _gpus
    try:
        return Machine(name, describe(chip, sides), chip, sides)
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(f'--topology={name}: {str(error).splitlines()[0]}') from error


def _tpus(chip: Chip, sides: tuple[int, ...]) -> list[Any]:
    if importlib.util.find_spec('libtpu') is None:
        raise ValueError("compiling for TPUs needs libtpu: pip install 'semmim_jax[preflight]'")
    # Without these, libtpu asks a metadata server and prints warnings; `shape` decides.
    os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
    os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
    os.environ.setdefault('TPU_ACCELERATOR_TYPE', 'v5litepod-8')
    os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')  # its lock guards a TPU; here is none
    shape = 'x'.join(str(side) for side in (*sides, 1, 1)[: 3 if chip.wrap == 4 else 2])
    # One device a chip, as JAX's meshes want it, not one a core.
    options = {'chip_config_name': 'megacore'} if chip.name == 'v4' else {}
    return topologies.get_topology_desc(
        platform='tpu', topology_name=f'{chip.name}:{shape}', **options
    ).devices


def _gpus(chip: Chip, sides: tuple[int, ...]) -> list[Any]:
    if importlib.util.find_spec('jax_cuda13_plugin') is None:
        raise ValueError(
            "compiling for GPUs needs the CUDA plugin: pip install 'semmim_jax[preflight]'"
        )
    count, hosts = math.prod(sides), -(-math.prod(sides) // chip.host)
    if len(sides) > 1 or count % hosts or count > chip.host and count % chip.host:
        raise ValueError(
            f'--topology={chip.name}:{"x".join(map(str, sides))}: GPUs are a number, up to '
            f'{chip.host} or a multiple of {chip.host}'
        )
    if not (_TARGETS / f'{chip.name}.txtpb').exists():
        raise ValueError(f'--topology={chip.name}: there is no description of it to compile for')
    # Before JAX lowers attention to cuDNN it asks cuDNN for its version; none is installed here.
    # There is no public way to tell it.
    fused_attention_stablehlo.check_cudnn_version = lambda: _CUDNN
    return topologies.get_topology_desc(
        platform='cuda',
        topology_name='',
        target_config=(_TARGETS / f'{chip.name}.txtpb').read_text(),
        topology=f'1x{hosts}x{count // hosts}',
    ).devices
