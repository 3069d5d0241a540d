"""Seeded draws for the references, and the one format in which their results are stored.

A golden is a flat .npz: 'config' (JSON text), 'param/<name>', 'in/<name>', 'out/<name>'.
References compute in float64 from inputs that are exact in float32, so what is stored is the
exact answer to the stored question and not one library's rounding.
"""

import json
import os

import numpy as np
import torch

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)


class Draw:
    """Random tensors of one golden: its own generator, float64 values exact in float32."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape, std=1.0, mean=0.0):
        values = torch.randn(*shape, generator=self.generator, dtype=torch.float64)
        return exact(mean + std * values)

    def unit(self, *shape):
        """Rows of length one (to float32 rounding)."""
        return exact(torch.nn.functional.normalize(self.normal(*shape), dim=-1))

    def integers(self, low, high, *shape):
        return torch.randint(low, high, shape, generator=self.generator)

    def subset_masks(self, rows, size, count):
        """bool [rows, size] with `count` true entries in each row."""
        order = torch.rand(rows, size, generator=self.generator, dtype=torch.float64).argsort(-1)
        return order.argsort(-1) < count

    @torch.no_grad()
    def randomise(self, module, *, weight=0.2, bias=0.2, embedding=0.03):
        """Overwrites every parameter, so that no bias is zero and no norm is the identity.

        Small embeddings keep the variance at the first LayerNorm near 1e-3: a wrong epsilon shows.
        """
        for name, parameter in module.named_parameters():
            owner = module.get_submodule(name.rpartition('.')[0])
            leaf = name.rpartition('.')[2]
            if isinstance(owner, torch.nn.LayerNorm) and leaf == 'weight':
                value = self.normal(*parameter.shape, mean=1.0, std=0.3)
            elif isinstance(owner, torch.nn.Conv2d):
                value = self.normal(*parameter.shape, std=0.004 if leaf == 'weight' else 0.03)
            elif isinstance(owner, torch.nn.Linear) and leaf == 'weight':
                value = self.normal(*parameter.shape, std=weight)
            elif leaf == 'bias':
                value = self.normal(*parameter.shape, std=bias)
            else:  # word, position and type embeddings, class and mask tokens
                value = self.normal(*parameter.shape, std=embedding)
            parameter.copy_(value)
        return module.double().eval()


def exact(tensor):
    """Rounds to float32 and returns float64."""
    return tensor.float().double()


def write(path, *, config, inputs, outputs, params=None):
    """Writes one golden and prints its size."""
    arrays = {'config': np.array(json.dumps(config, sort_keys=True))}
    for group, tensors in (('param', params or {}), ('in', inputs), ('out', outputs)):
        for name, tensor in tensors.items():
            arrays[f'{group}/{name}'] = to_array(tensor, is_exact=group != 'out', name=name)
    np.savez(path, **arrays)
    count = len(arrays) - 1
    print(f'{os.path.basename(path):<24} {count:>3} arrays {os.path.getsize(path):>8} bytes')


def to_array(tensor, *, is_exact, name):
    array = np.asarray(tensor.detach().cpu().numpy() if torch.is_tensor(tensor) else tensor)
    if array.dtype == np.int64:
        return array.astype(np.int32)
    if array.dtype == np.float64:
        rounded = array.astype(np.float32)
        if is_exact and not np.array_equal(rounded, array):
            raise ValueError(f'{name}: an input is not exact in float32')
        return rounded
    if array.dtype == np.float32:
        raise ValueError(f'{name}: computed in float32; references compute in float64')
    return array


def check_close(actual, expected, what, tolerance=1e-6):
    """Two formulations of one quantity must agree before either is stored."""
    error = (actual - expected).abs().max().item()
    if not error <= tolerance:
        raise AssertionError(f'{what}: two references differ by {error:.2e}')
