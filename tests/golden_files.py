"""Reads the goldens: answers of PyTorch and transformers to small questions (goldens/README.md)."""

import json
import pathlib
from typing import Any, NamedTuple

import numpy as np

FOLDER = pathlib.Path(__file__).parent / 'goldens'


class Golden(NamedTuple):
    """One golden; names as in its file, without the group's prefix."""

    config: dict[str, Any]
    params: dict[str, np.ndarray]
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]


def load(name: str) -> Golden:
    """The golden goldens/<name>.npz."""
    with np.load(FOLDER / f'{name}.npz') as file:
        arrays = {key: file[key] for key in file}

    def group(prefix):
        return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}

    return Golden(json.loads(str(arrays['config'])), group('param/'), group('in/'), group('out/'))


def assert_close(actual: Any, expected: Any, *, atol: float = 1e-5, rtol: float = 0.0):
    """Every element within `atol` + `rtol` * |expected|, 1e-5 absolute unless stated."""
    np.testing.assert_allclose(np.asarray(actual), expected, atol=atol, rtol=rtol)
