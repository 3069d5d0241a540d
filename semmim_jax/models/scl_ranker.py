"""SCL with a score for a pair, to be compared with those of other texts of the same image.

It stands where pre-training has ITM, and starts as the row of ITM's head that says how well a pair
matches (docs/method.md section 9).
"""

import jax
import jax.numpy as jnp

from semmim_jax.models.layers import LAST_DENSE, dense
from semmim_jax.models.scl import SCL


class SCLRanker(SCL):
    """The model of `tasks.rank`; `config` is `config.model` (docs/method.md section 9)."""

    def setup(self) -> None:
        """Makes the parts of `SCL` and the head."""
        super().setup()
        self.rank_head = dense(1, ('embed', None), **LAST_DENSE)

    def match(self, text_cls: jax.Array, image_cls: jax.Array) -> jax.Array:
        """As of `SCL`, [b, 2] float32: 0, and the score of the pair.

        The difference orders the texts of an image; it is no log-odds.
        """
        score = self.rank_head(self.joint(text_cls, image_cls))
        return jnp.concatenate([jnp.zeros_like(score), score], axis=-1)
