"""SCL with a classifier over the joint features of a text and an image, or several.

    image i -> image tower, bridge, + type i --+
    text ---> text tower, bridge, + type 0 ----+--> fusion --> joint features i --> joined --> MLP

With two images this is NLVR2, the text meeting each in a pass of its own (docs/method.md section
9).
"""

import jax
import jax.numpy as jnp

from semmim_jax.models.heads import LabelHead
from semmim_jax.models.scl import IMAGE, SCL
from semmim_jax.models.two_stream import Streams


class SCLClassifier(SCL):
    """The model of `tasks.classify` with `task.model='scl'`; `config` is `config.model`.

    See docs/method.md section 9.

    Attributes:
      classes: number of logits.
      hidden: width inside of the head.
      images: images a row, told apart by their types.
    """

    classes: int = 2
    hidden: int = 1

    def setup(self) -> None:
        """Makes the parts of `SCL` and the head."""
        super().setup()
        self.label_head = LabelHead(self.hidden, self.classes, epsilon=1e-5, dtype=self.dtype)

    def __call__(
        self,
        images: jax.Array,
        ids: jax.Array,
        mask: jax.Array,
        *,
        text_keys: jax.Array | None = None,
        fusion_keys: jax.Array | None = None,
    ) -> jax.Array:
        """uint8 images [b, i, s, s, 3], ids and validity [b, t] -> logits [b, classes], float32.

        Args:
          images, ids, mask: the inputs.
          text_keys, fusion_keys: dropout keys [b] and [b, i]; None: nothing is dropped.
        """
        rows = len(images)
        frames = images.reshape(-1, 1, *images.shape[2:])  # [b * i, 1, s, s, 3]
        types = jnp.tile(self.types[IMAGE:], (rows, 1))[:, None].astype(self.dtype)
        image = self.encode_frames(frames) + types  # [b * i, n + 1, d]
        text = self.to_text_stream(self.encode_text(ids, mask, dropout_keys=text_keys))
        text, mask = (jnp.repeat(x, self.images, axis=0) for x in (text, mask))
        keys = None if fusion_keys is None else fusion_keys.reshape(-1)
        streams = self.fusion(Streams(text, image), text_mask=mask, stop=-1, dropout_keys=keys)
        cls = jnp.zeros((len(text), 1), jnp.int32)
        fused = self.fusion.last(
            streams, text_mask=mask, text_queries=cls, image_queries=cls, dropout_keys=keys
        )
        assert fused.text is not None and fused.image is not None, 'both are asked for'
        joint = self.joint(fused.text[:, 0], fused.image)  # [b * i, 2 d]
        return self.label_head(joint.reshape(rows, -1))
