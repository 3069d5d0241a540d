"""Which form of products and attention a model computes with: `model.dense`, `model.attention`.

All forms have the same meaning; tests hold their losses and gradients together. 'auto' takes what
is fast on the platform that the program is compiled for, other values name a form.
"""

from typing import Any, Literal, NamedTuple

import jax

DenseForm = Literal['xla', 'cpu']
AttentionForm = Literal['xla', 'cpu', 'cudnn', 'tpu']
FORMS = {'dense': ('xla', 'cpu'), 'attention': ('xla', 'cpu', 'cudnn', 'tpu')}


class Forms(NamedTuple):
    """The chosen forms; also the keyword arguments of the towers."""

    dense: DenseForm
    attention: AttentionForm


def platform() -> str:
    """'cpu', 'gpu' or 'tpu': of the mesh in effect, which may be of machines that are not here."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.abstract_device is None:
        return jax.default_backend()
    kind = mesh.abstract_device.device_kind.lower()
    return next((name for name in ('cpu', 'tpu') if kind.startswith(name)), 'gpu')


def choose_forms(model: Any) -> Forms:
    """The forms of `config.model`, 'auto' replaced.

    Raises:
      ValueError: for a form that does not exist.
    """
    for field, forms in FORMS.items():
        if model[field] not in ('auto', *forms):
            raise ValueError(f'model.{field}={model[field]!r} is none of auto, {", ".join(forms)}')
    dense, attention = _fast_forms()
    if model.dense != 'auto':
        dense = model.dense
    if model.attention != 'auto':
        attention = model.attention
    return Forms(dense, attention)


def scans(model: Any, forms: Forms, *, gradient: bool = True) -> bool:
    """Whether layers run as a loop: where `config.model.scan` says so and a loop is fast.

    On a CPU a loop with a gradient clears, slices and copies what it stacks, and in bfloat16 keeps
    it in float32 as well. In float32 `model.remat` saves memory in a loop alone, which then stays.

    Args:
      model: `config.model`.
      forms: of `choose_forms`.
      gradient: whether one is taken of what the layers compute.
    """
    slow = forms.dense == 'cpu' and (model.dtype == 'bfloat16' or model.remat == 'none')
    return bool(model.scan) and not (gradient and slow)


def _fast_forms() -> Forms:
    mesh, name = jax.sharding.get_abstract_mesh(), platform()
    if name == 'tpu':
        return Forms('xla', 'tpu')
    if name == 'gpu':
        return Forms('xla', 'cudnn')
    # Simulated devices: the partitioner knows nothing of the layouts that the form asks for.
    return Forms('cpu', 'cpu') if mesh.empty or mesh.size == 1 else Forms('xla', 'xla')
