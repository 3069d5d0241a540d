"""SemMIM in JAX. `semmim_jax.load(WORKDIR)` gives a trained model for use."""

import importlib.metadata

try:
    __version__ = importlib.metadata.version('semmim_jax')
except importlib.metadata.PackageNotFoundError:  # a checkout on the path that is not installed
    __version__ = 'not installed'


def load(workdir, *, params='ema', batch_size=32):
    """The newest checkpoint of a workdir as a `semmim_jax.inference.model.Model`.

    Args:
      workdir: of pre-training or of any fine-tuning.
      params: 'ema' or 'online'.
      batch_size: images at a time.

    Raises:
      ValueError: if there is no checkpoint; the message names the folder.
    """
    from semmim_jax.inference.model import load

    return load(workdir, params=params, batch_size=batch_size)
