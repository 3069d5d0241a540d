"""SCL against plain PyTorch (golden): towers, both streams, five losses and their gradients."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from flax.core import meta

from configs.completion import get_config
from semmim_jax.models.two_stream import Streams
from semmim_jax.ops.masking import MaskedTokens, ReplacedWords, Shift
from semmim_jax.ops.special_tokens import SpecialTokens
from semmim_jax.tasks.completion.passes import completion_pass
from semmim_jax.tasks.completion.plan import Draws
from semmim_jax.tasks.completion.task import Completion
from tests.golden_files import assert_close, load
from tests.models import golden_params
from tests.tasks.warm_state import jit


def task_of(golden, frames: int) -> Completion:
    """The shipped task at the golden's sizes."""
    g, config = golden.config, get_config('tiny')
    sizes = {name: g[name] for name in ('width', 'heads', 'mlp_width')}
    text, image, fusion = g['depths']
    config.data.update(image_size=g['image_size'], patch_size=g['patch_size'], frames=frames)
    config.data.max_tokens = golden.inputs['ids'].shape[1]
    config.model.image.update(depth=image, frames=g['places'], epsilon=1e-5, **sizes)
    config.model.text.update(
        vocab_size=g['words'], max_positions=12, position_offset=2, types=1, epsilon=1e-5
    )
    config.model.text.update(depth=text, **sizes)
    config.model.update(fusion_depth=fusion, embed_dim=g['features'])
    config.model.update(pixel_mean=(g['mean'],) * 3, pixel_std=(g['std'],) * 3)
    config.model.scan = True  # compiles faster
    config.task.weights = g['weights']
    config.task.temperature = g['temperature']
    special = SpecialTokens(pad=g['pad'], cls=0, sep=2, mask=g['mask'], vocab_size=g['words'])
    return Completion(ml_collections.FrozenConfigDict(config), special)


def slots(chosen: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """bool [b, t] -> the chosen positions [b, count] and their weights; unused slots are last."""
    positions = np.argsort(~chosen, axis=1, kind='stable')[:, :count]
    return positions, np.take_along_axis(chosen, positions, axis=1).astype(np.float32)


def draws_of(given) -> Draws:
    """The golden's random choices."""
    positions, weights = slots(given['mlm_labels'] >= 0, 3)
    labels = np.take_along_axis(given['ids'], positions, axis=1)
    masked = MaskedTokens(given['mlm_ids'], positions, labels, weights)
    draws = Draws(
        valid=given['mask'],
        masked=masked,
        replaced=ReplacedWords(given['replaced_ids'], *slots(given['replaced'], 4)),
        kept=given['kept'],
        hidden=slots(given['hidden'], 4)[0],
        pairs=Shift(given['pairs_rows'], given['pairs_matches'], np.ones(4, np.float32)),
        dropout=None,
    )
    return jax.tree.map(jnp.asarray, draws)


@pytest.mark.parametrize('frames', [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_step_is_that_of_plain_pytorch(frames):
    golden = load('scl')
    task, draws = task_of(golden, frames), draws_of(golden.inputs)
    shapes = meta.unbox(jax.eval_shape(task.init, jax.random.key(0)))
    theirs = golden_params.split_in_proj(golden.params)
    params = golden_params.to_ours(theirs, golden_params.SCL, shapes)
    pixels = golden.inputs[f'frames_{frames}'].astype(np.uint8)
    batch = {'frames': pixels, 'ids': golden.inputs['ids']}

    def loss(params):
        losses, _ = nn.apply(completion_pass, task.model)(
            {'params': params}, task.plan, batch, draws
        )
        values = {name: mean.value for name, mean in losses.items()}
        return sum(golden.config['weights'][name] * value for name, value in values.items()), values

    def tokens(model):
        text, image = model.encode_text(batch['ids'], draws.valid), model.encode_frames(pixels)
        streams = Streams(model.to_text_stream(text), model.to_image_stream(image))
        _, fused = model.fusion.blocks(streams, text_mask=draws.valid, collect=True)
        kept = model.encode_frames(pixels, keep=draws.kept)
        return dict(text=text, image=image, kept=kept), fused

    both = jit(
        lambda params: (
            jax.value_and_grad(loss, has_aux=True)(params),
            nn.apply(tokens, task.model)({'params': params}),
        )
    )
    ((_, losses), gradients), (towers, fused) = both(params)
    expected = {
        name.removeprefix(f'{frames}/'): value
        for name, value in golden.outputs.items()
        if name.startswith(f'{frames}/')
    }
    valid = golden.inputs['mask']
    for name, value in towers.items():
        where = valid if name == 'text' else ...  # padding has other positions
        assert_close(value[where], expected[name][where])
    for layer, (text, image) in enumerate(zip(fused.text, fused.image, strict=True)):
        assert_close(text[valid], expected[f'text_{layer}'][valid], atol=2e-5)
        assert_close(image, expected[f'image_{layer}'], atol=2e-5)
    assert set(losses) == set(golden.config['weights'])
    for name, value in losses.items():
        assert_close(value, expected[f'loss_{name}'], rtol=1e-5)
    found = {name for name in expected if name.startswith('grad/')}
    assert len(found) == 15
    for name in found:
        ours, value = golden_params.one_of_ours(
            name.removeprefix('grad/').replace('.resblocks.', '.layers.'),
            expected[name],
            golden_params.SCL,
            gradients,
        )
        assert_close(ours, value, atol=2e-5 * np.abs(value).max() + 1e-6)
