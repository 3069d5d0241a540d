"""SCL's image tower with an output for each word of direction.

frames -> image tower -> bridge -> mean CLS of the frames -> linear -> [k, 2]
"""

import jax

from semmim_jax.models.layers import LAST_DENSE, dense
from semmim_jax.models.scl import SCL


class SCLDirections(SCL):
    """The model of `tasks.directions`; `config` is `config.model`.

    See docs/method.md section 9.

    Attributes:
      pairs: of opposite directions.
    """

    pairs: int = 1

    def setup(self) -> None:
        """Makes the parts of `SCL` and the head."""
        super().setup()
        self.direction_head = dense(2 * self.pairs, ('embed', None), **LAST_DENSE)

    def __call__(self, frames: jax.Array) -> jax.Array:
        """uint8 frames [b, f, s, s, 3] -> logits [b, k, 2], float32."""
        b, f = frames.shape[:2]
        cls = self.encode_frames(frames)[:, :f].mean(axis=1)  # [b, d]
        logits: jax.Array = self.direction_head(cls).reshape(b, self.pairs, 2)
        return logits
