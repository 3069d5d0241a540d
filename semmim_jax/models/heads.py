"""Heads on the towers: the encoding space, prototypes, and the classifier of fine-tuning."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from semmim_jax.models.dense import product
from semmim_jax.models.layers import INIT_STDDEV, LAST_DENSE, dense, gelu, layer_norm, param_init
from semmim_jax.models.platform import DenseForm
from semmim_jax.ops.products import HIGHEST, full_precision
from semmim_jax.ops.unit import unit


class EncodingHead(nn.Module):
    """Maps CLS and patch tokens into the one encoding space (docs/method.md section 1).

    The form is that of DINO and iBOT.

    MLP of three layers with GELU, unit length, then a linear layer whose rows have unit length too:
    the outputs are cosines with `codes` learned directions.
    """

    hidden: int
    bottleneck: int
    codes: int
    dtype: DTypeLike
    dense: DenseForm = 'xla'

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., d] -> cosines [..., codes], float32."""
        linear = functools.partial(dense, form=self.dense, dtype=self.dtype)
        x = linear(self.hidden, ('embed', 'mlp'), name='hidden1')(x)
        x = gelu(x, form=self.dense)
        x = linear(self.hidden, ('mlp', None), name='hidden2')(x)
        x = gelu(x, form=self.dense)
        x = linear(self.bottleneck, ('mlp', None), name='bottleneck_out')(x)
        directions = self.param(
            'directions',
            param_init(nn.initializers.normal(INIT_STDDEV), 'codes', None),
            (self.codes, self.bottleneck),
        )
        # Unit length in float32: a bfloat16 norm would move every cosine.
        x, directions = unit(x).astype(self.dtype), unit(directions).astype(self.dtype)
        if self.dense == 'cpu':
            cosines = product(x.reshape(-1, self.bottleneck), directions.T, jnp.float32)
            return cosines.reshape(*x.shape[:-1], -1)
        return jnp.einsum('...d,kd->...k', x, directions, **full_precision(self.dtype))


class Prototypes(nn.Module):
    """Compares patches with linear prototypes (CAPI's form; docs/method.md section 4).

    Unit length, then a linear layer without bias whose columns have any length: their logits start
    with a deviation of 1, whatever the width.
    """

    codes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., d] -> logits [..., codes], float32."""
        kernel = self.param(
            'kernel',
            param_init(nn.initializers.normal(1.0), 'embed', 'codes'),
            (x.shape[-1], self.codes),
        )
        return jnp.matmul(unit(x), kernel, precision=HIGHEST)


class LabelHead(nn.Module):
    """Dense, LayerNorm, GELU, dense (SCL's form for VQA)."""

    hidden: int
    classes: int
    epsilon: float
    dtype: DTypeLike

    def setup(self) -> None:
        """Makes the layers."""
        self.up = dense(self.hidden, (None, 'mlp'), dtype=self.dtype)
        self.norm = layer_norm(self.epsilon, self.dtype)
        self.out = dense(self.classes, ('mlp', None), **LAST_DENSE)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., d] -> logits [..., classes], float32."""
        x = nn.gelu(self.norm(self.up(x)), approximate=False)
        return self.out(x)
