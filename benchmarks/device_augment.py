"""Crop and RandAugment of data/transforms.py by JAX, to be measured on a device; no run has it."""

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

SCALE, LEVEL, OPS, PROB, FILL = (0.2, 1.0), 7, 2, 0.5, 128.0


def augment_batch(key: jax.Array, images: jax.Array, *, size: int) -> jax.Array:
    """uint8 [b, h, w, 3] -> uint8 [b, size, size, 3], each image by its own choices."""
    keys = jax.random.split(key, len(images))
    return jax.vmap(lambda key, image: _augment(key, image, size))(keys, images)


def _augment(key: jax.Array, image: jax.Array, size: int) -> jax.Array:
    area, aspect, place, mirror, *ops = jax.random.split(key, 4 + OPS)
    height, width, _ = image.shape
    pixels = height * width * jax.random.uniform(area, minval=SCALE[0], maxval=SCALE[1])
    ratio = jnp.exp(jax.random.uniform(aspect, minval=jnp.log(3 / 4), maxval=jnp.log(4 / 3)))
    sides = jnp.sqrt(pixels * jnp.array([1 / ratio, ratio]))  # height, width
    sides = jnp.minimum(sides, jnp.array([height, width], jnp.float32))
    corner = jax.random.uniform(place, (2,)) * (jnp.array([height, width]) - sides)
    scale = size / sides
    view = jax.image.scale_and_translate(
        image.astype(jnp.float32), (size, size, 3), (0, 1), scale, -corner * scale, 'cubic'
    )
    view = jnp.where(jax.random.bernoulli(mirror), view[:, ::-1], view).clip(0, 255)
    for op in ops:
        view = _operation(op, view)
    return view.astype(jnp.uint8)


def _operation(key: jax.Array, view: jax.Array) -> jax.Array:
    kind, applies, sign = jax.random.split(key, 3)
    sign = jnp.where(jax.random.bernoulli(sign), 1.0, -1.0)
    share = sign * LEVEL / 10
    branches = [
        lambda view: view,
        _auto_contrast,
        _equalize,
        lambda view: (view * (0.1 + 1.8 * LEVEL / 10)).clip(0, 255),
        _sharpness,
        *(lambda view, i=i: _affine(view, share, i) for i in range(5)),
    ]
    done = jax.lax.switch(jax.random.randint(kind, (), 0, len(branches)), branches, view)
    return jnp.where(jax.random.bernoulli(applies, PROB), done, view)


def _auto_contrast(view: jax.Array) -> jax.Array:
    low, high = view.min((0, 1)), view.max((0, 1))
    return jnp.where(high > low, (view - low) * 255 / jnp.maximum(high - low, 1), view)


def _equalize(view: jax.Array) -> jax.Array:
    def channel(values):  # [h, w]
        counts = jnp.bincount(values.astype(jnp.int32).ravel(), length=256)
        total = jnp.cumsum(counts)
        step = jnp.maximum(total[-1] // 255, 1)
        table = ((total - counts + step // 2) // step).clip(0, 255)
        return table[values.astype(jnp.int32)].astype(jnp.float32)

    return jax.vmap(channel, -1, -1)(view)


def _sharpness(view: jax.Array) -> jax.Array:
    padded = jnp.pad(view, ((1, 1), (1, 1), (0, 0)), 'edge')
    height, width, _ = view.shape
    near = sum(padded[y : y + height, x : x + width] for y in range(3) for x in range(3))
    smooth = (near + 4 * view) / 13
    return (smooth + (0.1 + 1.8 * LEVEL / 10) * (view - smooth)).clip(0, 255)


def _affine(view: jax.Array, share: jax.Array, kind: int) -> jax.Array:
    size = view.shape[0]
    angle = jnp.deg2rad(30 * share)
    zero, one = jnp.zeros(()), jnp.ones(())
    rows = [
        [[one, 0.3 * share], [zero, one]],
        [[one, zero], [0.3 * share, one]],
        [[one, zero], [zero, one]],
        [[one, zero], [zero, one]],
        [[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]],
    ][kind]
    moved = {2: jnp.array([0.0, 10.0]), 3: jnp.array([10.0, 0.0])}.get(kind, jnp.zeros(2)) * share
    middle = size / 2 if kind == 4 else 0.0
    grid = jnp.stack(jnp.mgrid[:size, :size]).reshape(2, -1) - middle  # [2, size * size]
    places = (jnp.array(rows) @ grid + middle + moved[:, None]).reshape(2, size, size)
    warp = lambda channel: map_coordinates(channel, list(places), 1, cval=FILL)
    return jax.vmap(warp, -1, -1)(view)
