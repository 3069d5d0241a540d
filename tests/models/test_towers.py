"""The towers against transformers' (goldens), state by state; scanned, unrolled, and with remat."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from flax.core import meta

from configs.pretrain import get_config
from semmim_jax.models.bert import Bert
from semmim_jax.models.semmim import SemMIM
from semmim_jax.models.vit import ViT
from tests.golden_files import assert_close, load
from tests.models import golden_params

RUN = dict(dtype=jnp.float32, attention='xla', remat='none', scan=True)
BOTH_WAYS = pytest.mark.parametrize('scan', [True, False], ids=['scan', 'unrolled'])


def shapes_of(module, *inputs, method=None):
    """Our parameter tree, without running anything."""
    init = functools.partial(module.init, method=method)
    return meta.unbox(jax.eval_shape(init, jax.random.key(0), *inputs)['params'])


def size(config):
    return dict(
        width=config['hidden_size'],
        depth=config['num_hidden_layers'],
        heads=config['num_attention_heads'],
        mlp_width=config['intermediate_size'],
        epsilon=config['layer_norm_eps'],
    )


def vit(golden, variant, table, **run):
    """The module, its parameters, and the images in our layout [b, s, s, 3]."""
    sides = {name: golden.config[name] for name in ('image_size', 'patch_size')}
    options = dict(variant=variant, distilled=False, registers=0) | sides
    module = ViT(**options, **size(golden.config), **RUN | run)
    images = jnp.asarray(golden.inputs['pixels'].transpose(0, 2, 3, 1))
    return module, golden_params.to_ours(golden.params, table, shapes_of(module, images)), images


def bert(config, *, cross, words, **run):
    """The module and the shapes of its parameters."""
    words = dict(
        vocab_size=config['vocab_size'] if words else 0,
        max_positions=config['max_position_embeddings'],
        position_offset=0,
        types=2,
    )
    module = Bert(cross=cross, **words, **size(config), **RUN | run)

    def every_part(module):
        token = jnp.zeros((1, 1, module.width))
        if module.vocab_size:
            module.embed(jnp.zeros((1, 1), int))
        module(token, module.project_context(token) if cross else None)

    return module, shapes_of(module, method=every_part)


def run_jitted(module, method, params, *inputs):
    """method(bound module, *inputs)."""
    return jax.jit(nn.apply(method, module))({'params': params}, *inputs)


def assert_hidden(hidden, outputs, prefix='hidden_', where=...):
    """hidden [layers + 1, b, t, d] against the golden's layer by layer."""
    assert len(hidden) == sum(name.startswith(prefix) for name in outputs)
    for layer, state in enumerate(hidden):
        assert_close(state[where], outputs[f'{prefix}{layer}'][where])


@BOTH_WAYS
def test_clip_vit(scan):
    golden = load('vit_clip')
    module, params, images = vit(golden, 'clip', golden_params.VIT_CLIP, scan=scan)
    tokens, hidden = run_jitted(module, lambda m, x: m(x, collect=True), params, images)
    assert_hidden(hidden, golden.outputs)
    assert_close(tokens, golden.outputs['tokens'])


@BOTH_WAYS
def test_plain_vit_full_and_masked(scan):
    golden = load('vit_plain')
    mask_token = golden.params.pop('embeddings.mask_token').reshape(-1)
    module, params, images = vit(golden, 'plain', golden_params.VIT_PLAIN, scan=scan)
    call = lambda m, x, mask: m(x, mask=mask, mask_token=mask_token, collect=True)
    for prefix, mask in ('', None), ('masked_', golden.inputs['mask']):
        tokens, hidden = run_jitted(module, call, params, images, mask)
        assert_hidden(hidden, golden.outputs, f'{prefix}hidden_')
        assert_close(tokens, golden.outputs[f'{prefix}tokens'])


@BOTH_WAYS
def test_text_encoder(scan):
    golden = load('bert_text')
    module, shapes = bert(golden.config, cross=False, words=True, scan=scan)
    params = golden_params.to_ours(golden.params, golden_params.TEXT, shapes)

    def hidden_states(module, ids, mask):
        x = module.embed(ids)
        tokens, hidden = module(x, mask=mask, collect=True)
        return tokens, jnp.concatenate([x[None], hidden])

    ids, mask = golden.inputs['ids'], golden.inputs['mask']
    tokens, hidden = run_jitted(module, hidden_states, params, ids, mask)
    assert_hidden(hidden, golden.outputs)
    assert_close(tokens, golden.outputs['tokens'])


@BOTH_WAYS
def test_fusion_in_both_directions_with_one_set_of_weights(scan):
    golden = load('bert_fusion')
    module, shapes = bert(golden.config, cross=True, words=False, scan=scan)
    params = golden_params.to_ours(golden.params, golden_params.FUSION, shapes)

    def layers(module, x, mask, context, context_mask):
        context = module.project_context(context)
        return module(x, context, mask=mask, context_mask=context_mask, collect=True)[1]

    text, mask, image = (golden.inputs[name] for name in ('text', 'text_mask', 'image'))
    hidden = run_jitted(module, layers, params, text, mask, image, None)
    assert_hidden(hidden, golden.outputs, 'text_to_image/layer_')
    hidden = run_jitted(module, layers, params, image, None, text, mask)
    assert_hidden(hidden, golden.outputs, 'image_to_text/layer_')


def test_fusion_layer_by_layer_gives_the_same_states_and_the_attention_maps():
    golden = load('bert_fusion')
    module, shapes = bert(golden.config, cross=True, words=False)
    params = golden_params.to_ours(golden.params, golden_params.FUSION, shapes)

    def walk(module, x, mask, image):
        context, states, maps = module.project_context(image), [], []
        for index in range(module.depth):
            options = dict(mask=mask, context_mask=None)
            maps.append(module.layer(index, x, context, method='cross_weights', **options))
            x = module.layer(index, x, context, **options)
            states.append(x)
        return states, maps

    text, mask, image = (golden.inputs[name] for name in ('text', 'text_mask', 'image'))
    states, maps = run_jitted(module, walk, params, text, mask, image)
    assert_hidden(states, golden.outputs, 'text_to_image/layer_')
    assert_hidden(maps, golden.outputs, 'text_to_image/cross_maps_')


def semmim(golden, **changes):
    """The whole model at a golden's size (embedding dimension 8, as the projections')."""
    config = get_config('tiny').model
    shape = size(golden.config)
    depth = shape.pop('depth')
    config.image.update(shape)
    config.text.update(shape)
    config.text.vocab_size = golden.config['vocab_size']
    config.text.max_positions = golden.config['max_position_embeddings']
    config.update(fusion_depth=depth, decoder_depth=depth, **changes)
    return SemMIM(ml_collections.FrozenConfigDict(config))


def of_the_model(module, *parts, method):
    """Shapes of the parameters of some parts of the model; and values for what is always there."""
    shapes = shapes_of(module, method=method)
    always = {'mask_token': np.zeros(module.config.image.width), 'temperature': np.float32(0.07)}
    assert set(shapes) == {*parts, *always}
    return {part: shapes[part] for part in parts}, always


def test_text_to_patch_attention_of_the_model():
    golden = load('bert_fusion')
    module = semmim(golden)
    text, mask, image = (golden.inputs[name] for name in ('text', 'text_mask', 'image'))
    shapes, always = of_the_model(module, 'fusion', method=lambda m: m.image_context(image))
    fusion = golden_params.to_ours(golden.params, golden_params.FUSION, shapes['fusion'])

    def relevance(model):
        context = model.image_context(image)
        return [
            model.text_to_patch_attention(text, mask, context, layer=layer)
            for layer in range(model.config.fusion_depth)
        ]

    actual = run_jitted(module, relevance, {'fusion': fusion, **always})
    assert_hidden(actual, golden.outputs, 'relevance_')


@BOTH_WAYS
def test_decoder(scan):
    golden = load('bert_decoder')
    module = semmim(golden, scan=scan)
    ids, mask, context, context_mask = (
        golden.inputs[name] for name in ('ids', 'mask', 'context', 'context_mask')
    )
    decode = lambda model: model.decode(ids, context, context_mask)
    shapes, always = of_the_model(module, 'decoder', 'decoder_head', method=decode)
    table = golden_params.DECODER | golden_params.vocabulary_head('decoder_head')
    params = golden_params.to_ours(golden.params, table, shapes)

    def hidden_states(model):
        x = model.decoder.embed(ids)
        keys_values = model.decoder.project_context(context)
        options = dict(context_mask=context_mask, causal=True, collect=True)
        return jnp.concatenate([x[None], model.decoder(x, keys_values, **options)[1]])

    # Ours leaves padding at the end unmasked, since no real token sees it: real tokens only.
    hidden = run_jitted(module, hidden_states, params | always)
    assert_hidden(hidden, golden.outputs, where=mask)
    logits = run_jitted(module, decode, params | always)
    assert_close(logits[mask], golden.outputs['logits'][mask])


def image_tower(**run):
    golden = load('vit_clip')
    module, params, images = vit(golden, 'clip', golden_params.VIT_CLIP, **run)
    return module, params, lambda m: m(images)


def fusion_tower(**run):
    golden = load('bert_fusion')
    module, shapes = bert(golden.config, cross=True, words=False, **run)
    params = golden_params.to_ours(golden.params, golden_params.FUSION, shapes)
    text, mask, image = (golden.inputs[name] for name in ('text', 'text_mask', 'image'))
    return module, params, lambda m: m(text, m.project_context(image), mask=mask)


@pytest.mark.parametrize(
    'tower, others',
    [(image_tower, [(True, 'full')]), (fusion_tower, [(True, 'full'), (False, 'dots')])],
)
def test_scan_and_remat_change_neither_output_nor_gradient(tower, others):
    def output_and_gradient(**run):
        module, params, call = tower(**run)

        def loss(params):
            out = nn.apply(call, module)({'params': params})
            return (out * jnp.cos(jnp.arange(out.size).reshape(out.shape))).sum(), out

        (_, out), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
        return out, gradient

    plain, plain_gradient = output_and_gradient(scan=True, remat='none')
    for scan, remat in others:
        out, gradient = output_and_gradient(scan=scan, remat=remat)
        assert_close(out, plain)
        jax.tree.map(assert_close_gradient, gradient, plain_gradient)


def assert_close_gradient(actual, expected):
    """1e-5 of the array's largest element: a small element is a sum of large ones that cancel."""
    assert_close(actual, expected, atol=1e-5 * max(1.0, float(jnp.abs(expected).max())))


def test_the_table_of_parameters_refuses_what_is_missing_or_extra():
    golden = load('bert_text')
    _, shapes = bert(golden.config, cross=False, words=True)
    spare = golden.params | {'encoder.pooler.weight': np.zeros(1)}
    with pytest.raises(ValueError, match=r'encoder\.pooler\.weight'):
        golden_params.to_ours(spare, golden_params.TEXT, shapes)
    golden.params.pop('embeddings.LayerNorm.bias')
    with pytest.raises(ValueError, match='embeddings/norm/bias'):
        golden_params.to_ours(golden.params, golden_params.TEXT, shapes)
