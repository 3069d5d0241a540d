"""A discrete VAE of the images alone, whose codes may be MIM's target (docs/method.md section 4.6).

Run by itself, before pre-training: `task.mim.dvae` of configs/pretrain.py names its workdir.
"""

from typing import Any

import jax
import jax.numpy as jnp

from semmim_jax.data.examples import ImageExamples
from semmim_jax.losses.distillation import code_statistics
from semmim_jax.losses.dvae import reconstruction_loss, uniform_kl
from semmim_jax.losses.mean import Mean
from semmim_jax.models.dvae import DVAE, stages
from semmim_jax.models.vit import normalise, patches_a_side
from semmim_jax.ops.relaxation import gumbel_softmax
from semmim_jax.ops.special_tokens import SpecialTokens
from semmim_jax.ops.streams import stream
from semmim_jax.training.task import Task


class TrainDVAE(Task):
    """The task `config.task.name = 'dvae'`.

    Args:
      config: the whole experiment; `model`, `task` and `train.steps` are read.
      special: not read: there is no text.

    Raises:
      ValueError: if images cannot be halved until a patch is left.
    """

    examples = ImageExamples
    evaluators = ('reconstruction',)
    family = 'dvae'

    def __init__(self, config: Any, special: SpecialTokens):
        self.config, self.steps = config.task, config.train.steps
        self.model = DVAE(config.model)
        stages(config.model.image.patch_size)
        patches_a_side(config.model.image)

    @property
    def batch_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Of one example."""
        size = self.model.config.image.image_size
        return {'image': jax.ShapeDtypeStruct((size, size, 3), jnp.uint8)}

    def init(self, key: jax.Array) -> Any:
        """Parameters of encoder and decoder, boxed with their logical axes."""
        size = self.model.config.image.image_size
        images = jnp.zeros((1, size, size, 3), jnp.uint8)
        both = lambda model: model.decode(model.encode(images))
        return self.model.init(key, method=both)['params']

    def temperature(self, step: Any) -> jax.Array:
        """Of the relaxation: a cosine from `tau_start` to `tau_end` in `tau_share` of the steps."""
        c = self.config
        return c.tau_end + (c.tau_start - c.tau_end) * (1 - self._cosine(step, c.tau_share))

    def kl_weight(self, step: Any) -> jax.Array:
        """A cosine from 0 to `kl_weight` in `kl_share` of the steps, over the values of a patch."""
        values = 3 * self.model.config.image.patch_size**2
        return self.config.kl_weight / values * self._cosine(step, self.config.kl_share)

    def loss(self, params, ema_params, extra, batch, *, key, step):
        """Reconstruction from relaxed codes, and their divergence from even use.

        See docs/method.md section 4.6.

        Args:
          params: of the model; `ema_params` are not read.
          extra: passed through.
          batch: image uint8 [b, s, s, 3].
          key, step: of the relaxation.

        Returns:
          The loss, and (metrics as a dict of `Mean`, `extra`).
        """
        run = lambda method, x: self.model.apply({'params': params}, x, method=method)
        logits = run('encode', batch['image'])  # [b, n, k]
        temperature = self.temperature(step)
        codes = gumbel_softmax(stream(key, 'codes'), logits, temperature=temperature)
        pixels = normalise(batch['image'], self.model.config)
        losses = {
            'loss_reconstruction': reconstruction_loss(run('decode', codes), pixels),
            'loss_kl': uniform_kl(logits),
        }
        total = losses['loss_reconstruction'].value + self.kl_weight(step) * losses['loss_kl'].value
        shares = jax.nn.softmax(logits, axis=-1).reshape(-1, logits.shape[-1])
        monitors = {f'code_raw_{k}': Mean.of(x) for k, x in code_statistics(shares).items()}
        monitors |= {'loss': Mean.of(total), 'code_temperature': Mean.of(temperature)}
        return total, ({**losses, **monitors}, extra)

    def predict_fns(self) -> dict[str, Any]:
        """Pure functions for evaluators.

        'reconstruct': images uint8 [b, s, s, 3] -> tokens int32 [b, n]; images uint8 [b, s, s, 3]
        that the decoder makes of them; errors [b] of each; moments [b, 2, 3], means of the
        normalised pixels and of their squares; num_codes [b].
        """
        return {'reconstruct': self._reconstruct}

    def _reconstruct(self, variables, images):
        run = lambda method, x: self.model.apply({'params': variables.params}, x, method=method)
        config = self.model.config
        tokens = run('encode', images).argmax(axis=-1)
        output = run('decode', jax.nn.one_hot(tokens, config.dvae.codes))
        pixels = normalise(images, config)
        shown = output * jnp.asarray(config.pixel_std) + jnp.asarray(config.pixel_mean)
        return {
            'tokens': tokens.astype(jnp.int32),
            'images': jnp.round(jnp.clip(shown, 0, 1) * 255).astype(jnp.uint8),
            'errors': jnp.square(output - pixels).mean(axis=(1, 2, 3)),
            'moments': jnp.stack([pixels, pixels**2], axis=1).mean(axis=(2, 3)),
            'num_codes': jnp.full(len(images), config.dvae.codes),
        }

    def _cosine(self, step: Any, share: float) -> jax.Array:
        """From 0 at the first step to 1 after this share of the steps."""
        done = jnp.clip(step / max(share * self.steps, 1), 0.0, 1.0)
        return (1 - jnp.cos(jnp.pi * done)) / 2
