"""SemMIM with a classifier over fused text CLS tokens, for one image or several.

    image i -> image tower, + id i --+
    text ---> text tower ------------+--> fusion encoder --> CLS i --> joined --> MLP --> classes

With two images this is SCL's form for NLVR2 (docs/method.md section 7): the text meets each image
in a pass of its own. SCL joins text and image CLS of two streams; here the text CLS is all there
is.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from semmim_jax.models.heads import LabelHead
from semmim_jax.models.layers import INIT_STDDEV, param_init
from semmim_jax.models.semmim import SemMIM


class Classifier(SemMIM, kw_only=True):
    """The model of `tasks.classify`; `config` is `config.model` (docs/method.md section 7).

    Attributes:
      classes: number of logits.
      hidden: width inside of the head.
      images: images a row; several are told apart by a learned vector added to their tokens.
    """

    classes: int
    hidden: int
    images: int

    def setup(self) -> None:
        """Makes the parts of `SemMIM`, the head, and the vectors of the images."""
        super().setup()
        epsilon = self.config.text.epsilon
        self.label_head = LabelHead(self.hidden, self.classes, epsilon, self.dtype)
        if self.images > 1:
            normal = param_init(nn.initializers.normal(INIT_STDDEV), None, 'embed')
            self.image_ids = self.param('image_ids', normal, (self.images, self.config.image.width))

    def __call__(self, images: jax.Array, ids: jax.Array, mask: jax.Array) -> jax.Array:
        """uint8 images [b, i, s, s, 3], ids and validity [b, t] -> logits [b, classes], float32."""
        rows = len(images)
        tokens = self.encode_image(images.reshape(-1, *images.shape[2:]))  # [b * i, n + 1, d]
        if self.images > 1:
            tokens += jnp.tile(self.image_ids, (rows, 1))[:, None].astype(tokens.dtype)
        text = jnp.repeat(self.encode_text(ids, mask), self.images, axis=0)
        cls = jnp.zeros((len(text), 1), jnp.int32)
        fused = self.fuse(
            text,
            jnp.repeat(mask, self.images, axis=0),
            self.image_context(tokens),
            queries=cls,
        )  # [b * i, 1, d]
        return self.label_head(fused.reshape(rows, -1))
