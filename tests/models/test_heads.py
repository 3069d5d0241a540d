"""The heads against PyTorch's (goldens), through the model's own methods."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from flax.core import meta

from configs.pretrain import get_config
from semmim_jax.models.heads import EncodingHead
from semmim_jax.models.semmim import SemMIM
from semmim_jax.tasks.pretrain.plan import Plan
from semmim_jax.tasks.pretrain.teacher import patch_relevance
from tests.golden_files import assert_close, load
from tests.models import golden_params


def semmim(**changes):
    """The tiny model at the goldens' width, 32."""
    config = get_config('tiny').model
    config.update(changes)
    return SemMIM(ml_collections.FrozenConfigDict(config))


def filled(module, golden, table, *, method):
    """Parameters of the parts that `method` uses, from a golden."""
    shapes = jax.eval_shape(lambda k: module.init(k, method=method)['params'], jax.random.key(0))
    shapes = dict(meta.unbox(shapes))
    always = {name: np.zeros(shapes.pop(name).shape) for name in ('mask_token', 'temperature')}
    return golden_params.to_ours(golden.params, table, shapes) | always


def test_mlm_head_tied_to_the_words_of_the_text_encoder():
    golden = load('mlm_head')
    words = golden.params.pop('bert.embeddings.word_embeddings.weight')
    module = semmim(text=dict(vocab_size=len(words)))
    hidden = golden.inputs['hidden']
    head = lambda model: model.mlm_head(hidden, words)
    params = filled(module, golden, golden_params.vocabulary_head('mlm_head'), method=head)
    others = {'position': np.zeros((32, 32)), 'type': np.zeros((2, 32))}
    params['text'] = {'embeddings': {'word': words, **others}}
    predict = jax.jit(nn.apply(lambda model: model.predict_words(hidden), module))
    actual = predict({'params': params})
    # Logits reach 10: relative as well.
    assert_close(actual, golden.outputs['logits'], rtol=1e-5)


def encoding_head():
    golden = load('encoding_head')
    gain = golden.params.pop('last_layer.weight_g')
    assert (gain == 1).all()  # ours is fixed to 1
    sizes = golden.config
    module = EncodingHead(
        hidden=sizes['hidden'],
        bottleneck=sizes['bottleneck'],
        codes=sizes['encodings'],
        dtype=jnp.float32,
    )
    tokens = jnp.asarray(golden.inputs['tokens'])
    shapes = meta.unbox(jax.eval_shape(module.init, jax.random.key(0), tokens)['params'])
    return golden, module, golden_params.to_ours(golden.params, golden_params.ENCODING_HEAD, shapes)


def test_encoding_head_and_its_gradients():
    golden, module, params = encoding_head()
    cotangent = golden.inputs['cotangent']

    def loss(params, tokens):
        logits = module.apply({'params': params}, tokens)
        return (logits * cotangent).sum(), logits

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    (of_params, of_tokens), logits = gradient(params, golden.inputs['tokens'])
    expected = golden.outputs
    assert_close(logits, expected['logits'])
    assert_close(of_tokens, expected['grad_tokens'], rtol=1e-5)
    assert_close(of_params['hidden1']['kernel'].T, expected['grad_mlp.0.weight'], rtol=1e-5)
    assert_close(of_params['directions'], expected['grad_last_layer.weight_v'], rtol=1e-5)


@pytest.mark.parametrize('scale', [1e-3, 1e3])
def test_encoding_logits_are_cosines(scale):
    golden, module, params = encoding_head()
    params['directions'] = params['directions'] * scale
    apply = jax.jit(module.apply)
    logits = apply({'params': params}, golden.inputs['tokens'])
    assert_close(logits, golden.outputs['logits'])  # the length of a direction does not matter
    bottleneck = params['directions'] / np.linalg.norm(params['directions'], axis=1, keepdims=True)
    params = params | {
        'bottleneck_out': {'kernel': np.zeros((48, 16)), 'bias': scale * bottleneck[7]}
    }
    aligned = apply({'params': params}, golden.inputs['tokens'])
    assert_close(aligned[..., 7], np.ones((3, 4)))  # a token along direction 7
    assert (aligned <= 1 + 1e-5).all()


def test_a_zero_token_gives_finite_cosines_and_gradients():
    _, module, params = encoding_head()
    params['bottleneck_out']['bias'] = np.zeros(16, np.float32)
    params['hidden1']['bias'] = np.zeros(48, np.float32)
    params['hidden2']['bias'] = np.zeros(48, np.float32)
    total = lambda tokens: module.apply({'params': params}, tokens).sum()
    value, gradient = jax.jit(jax.value_and_grad(total))(jnp.zeros((1, 32)))
    assert value == 0
    assert np.isfinite(gradient).all()


def projections():
    golden = load('projections')
    module = semmim(embed_dim=golden.config['features'])
    parts = {name: jnp.asarray(golden.inputs[f'{name}_tokens']) for name in ('image', 'text')}
    fused = jnp.asarray(golden.inputs['fused_tokens'])

    def every_head(model):
        features = model.project_image(parts['image']), model.project_text(parts['text'])
        return *features, model.match(fused[:, 0])

    params = filled(module, golden, golden_params.PROJECTIONS, method=every_head)
    return golden, module, {'params': params}, every_head


def test_features_and_matching_logits():
    golden, module, variables, every_head = projections()
    image, text, logits = jax.jit(nn.apply(every_head, module))(variables)
    assert_close(image[:, 0], golden.outputs['vision_feat'])
    assert_close(text[:, 0], golden.outputs['text_feat'])
    assert_close(logits, golden.outputs['itm_logits'])
    for feature in image, text:
        assert_close(jnp.linalg.norm(feature, axis=-1), np.ones(feature.shape[:-1]))


@pytest.mark.parametrize('masking, sign', [('similarity', 1), ('similarity_inverse', -1)])
def test_relevance_of_patches(special, masking, sign):
    golden, module, variables, _ = projections()
    config = get_config('tiny')
    config.task.mim.masking = masking
    plan = Plan(config, special)

    def relevance(model):
        text = golden.inputs['text_tokens']
        feature = model.project_text(text[:, 0])
        return patch_relevance(
            model, plan, golden.inputs['image_tokens'], text, feature, None, None, None
        )

    actual = jax.jit(nn.apply(relevance, module))(variables)
    assert_close(actual, sign * golden.outputs['relevance'])
