"""A step is the same on every mesh, in slices or not; what its program moves is what it must."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from benchmarks import partitioned_step

ROOT = pathlib.Path(__file__).parent.parent.parent
RUNS = ('one device', '2x4x1, then 2x2x2', '2 processes, accumulate 2')
CASES = ('one device', 'one device, accumulate 4', '4x2x1, local negatives')


def figures(name: str, *options: str):
    """What a benchmark prints; a process of its own, as it wants eight devices."""
    result = subprocess.run(
        [sys.executable, '-m', f'benchmarks.{name}', '--json', *options],
        cwd=ROOT,
        env=os.environ | {'XLA_FLAGS': ''},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(scope='module')
def trained():
    return figures('mesh_invariance', '--steps=4', '--runs', *RUNS)


@pytest.mark.slow
@pytest.mark.parametrize('run', RUNS[1:])
def test_meshes_processes_slices_and_resuming_change_nothing(trained, run):
    """The whole task: the second is saved after two steps and goes on on another mesh."""
    bounds = {'first loss': 1e-5, 'gradient': 1e-5, 'losses': 1e-4, 'params': 1e-4, 'queue': 1e-4}
    bounds['grounding'] = 2e-5  # of the gradient: see mesh_invariance.GROUNDING
    assert set(trained[run]) == set(bounds)
    for kind, bound in bounds.items():
        assert trained[run][kind] < bound, kind


@pytest.fixture(scope='module')
def compiled():
    return figures('partitioned_step', '--losses', 'itc', 'itm', '--cases', *CASES)


def test_a_device_computes_its_share(compiled):
    one, eight = compiled['one device'], compiled['4x2x1, local negatives']
    assert 8 * eight['flops'] == pytest.approx(one['flops'], rel=0.03)


def test_local_negatives_leave_image_tokens_where_they_are(compiled):
    """Tokens are [64, 17, 32], keys and values [64, 17, 2, 16], 8 rows of them on each device."""
    gathered = compiled['4x2x1, local negatives']['gathered']
    assert 'f32[64,16]' in gathered  # the features
    assert not any(shape.startswith('f32[64,17,') for shape in gathered)


def test_parameters_are_gathered_a_layer_at_a_time_and_their_gradients_stay_sharded(compiled):
    """The MLP's first kernel is [layers, 32, 64], split over fsdp along 32."""
    case, layers = compiled['4x2x1, local negatives'], partitioned_step.LAYERS
    assert 'f32[32,64]' in case['gathered']
    assert not any(shape.startswith(f'f32[{layers},') for shape in case['gathered'])
    assert f'f32[{layers},16,64]' in case['carried']  # parameters and gradients of the loops
    assert f'f32[{layers},32,64]' not in case['carried']


def test_slices_need_less_memory(compiled):
    """Four slices hold a quarter of the activations at a time, and tokens of the whole batch."""
    whole, slices = compiled['one device'], compiled['one device, accumulate 4']
    assert slices['temp_bytes'] < whole['temp_bytes'] / 3
