"""Predicts patches that an image tower has not seen from those that it has.

    x = x + attention(LN(x) -> seen tokens), then x + MLP(LN(x)); LN at the end

Masked patches read the others and not each other, as in CrossMAE (2401.14391); docs/method.md
section 6.
"""

from typing import Any

import flax.linen as nn
import jax
from jax.typing import DTypeLike

from semmim_jax.models.layers import MLP, Attention, layer_norm
from semmim_jax.models.platform import AttentionForm, DenseForm, Forms


class PredictorBlock(nn.Module):
    """Pre-norm layer whose queries read a context."""

    width: int
    heads: int
    mlp_width: int
    epsilon: float
    dtype: DTypeLike
    dense: DenseForm
    attention: AttentionForm

    def setup(self) -> None:
        """Makes the parts."""
        self.norm1 = layer_norm(self.epsilon, self.dtype, form=self.dense)
        self.attn = Attention(self.width, self.heads, self.dtype, self.attention, self.dense)
        self.norm2 = layer_norm(self.epsilon, self.dtype, form=self.dense)
        self.mlp = MLP(self.width, self.mlp_width, 'gelu', self.dtype, self.dense)

    def __call__(self, x: jax.Array, seen: jax.Array) -> jax.Array:
        """[b, p, d], [b, s, d] -> [b, p, d]."""
        x = x + self.attn(self.norm1(x), self.attn.project(seen))
        return x + self.mlp(self.norm2(x))


class PatchPredictor(nn.Module):
    """`depth` layers and a LayerNorm (docs/method.md section 6).

    Attributes:
      depth: number of layers.
      dtype: of the computation.
      forms: of products and attention.
      image: `config.model.image`, for the sizes.
    """

    depth: int
    dtype: DTypeLike
    forms: Forms
    image: Any

    def setup(self) -> None:
        """Makes the layers."""
        image = self.image
        sizes = (image.width, image.heads, image.mlp_width, image.epsilon)
        self.blocks = [PredictorBlock(*sizes, self.dtype, *self.forms) for _ in range(self.depth)]
        self.norm = layer_norm(image.epsilon, self.dtype, form=self.forms.dense)

    def __call__(self, queries: jax.Array, seen: jax.Array) -> jax.Array:
        """Predicts patches.

        Args:
          queries: [b, p, d], the [MASK] vector at their positions.
          seen: [b, s, d], tokens after the tower's last LayerNorm.

        Returns:
          [b, p, d].
        """
        for block in self.blocks:
            queries = block(queries, seen)
        return self.norm(queries)
