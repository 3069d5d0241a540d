"""Which products are float32 at full precision on every platform, read off the lowered programs.

StableHLO is what the compilers for CPU, GPU and TPU all start from. A product of float32 arrays at
the precision DEFAULT may be made of bfloat16 numbers on a TPU and of TF32 numbers on a GPU.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from configs.pretrain import get_config
from semmim_jax.models.heads import EncodingHead, LabelHead
from tests.tasks.warm_state import Warm, override, warm_state

BATCH, DTYPES = 4, ('bfloat16', 'float32')


class Product(NamedTuple):
    """A dot_general of a lowered program."""

    scope: str
    types: tuple[str, str, str]  # of both inputs and the result, e.g. 'tensor<4x32xf32>'
    precision: str

    @property
    def exact(self) -> bool:
        """Whether no platform rounds it; products of bfloat16 numbers are exact in float32."""
        *inputs, result = (re.search(r'(b?f\d+)>$', name)[1] for name in self.types)
        return result == 'f32' and (
            inputs == ['bf16', 'bf16'] or self.precision.count('HIGHEST') == 2
        )


def products(f: Any, *inputs: Any) -> list[Product]:
    """All products of f's program, in order."""
    module = jax.jit(f).lower(*inputs).compiler_ir('stablehlo')
    return [product for op in module.body.operations for product in _products(op)]


def _products(op: Any) -> Iterator[Product]:
    if op.operation.name == 'stablehlo.dot_general':
        types = [str(value.type) for value in (*op.operands, *op.results)]
        scope = re.match(r'loc\("([^"]*)"', str(op.location))[1]
        yield Product(scope, tuple(types), str(op.attributes['precision_config']))
    for region in op.regions:
        for block in region:
            for inner in block:
                yield from _products(inner)


def warm(dtype: str, **changes: Any) -> Warm:
    changes = {'model.dtype': dtype, 'task.mim.masking': 'similarity', **changes}
    return warm_state(override(get_config('tiny'), changes), rows=BATCH)


@pytest.fixture(scope='module', params=DTYPES)
def step(request) -> tuple[str, list[Product]]:
    """The dtype of the computation, and the products of a step, forward and backward."""
    state = warm(request.param)
    loss = lambda params, ema_params: state.task.loss(
        params, ema_params, state.extra, state.batch, key=jax.random.key(0), step=3
    )
    gradient = jax.value_and_grad(loss, has_aux=True)
    return request.param, products(gradient, state.params, state.ema_params)


def test_what_a_plain_product_is_shows_that_tests_run_at_the_precision_of_runs():
    x = jnp.ones((2, 2))
    (plain,) = products(jnp.matmul, x, x)
    assert not plain.exact and 'DEFAULT' in plain.precision


def test_products_of_the_towers_are_rounded(step):
    """So that the other tests could fail."""
    chosen = [p for p in step[1] if '/mlp/up/' in p.scope]
    assert chosen and not any(p.exact for p in chosen)


@pytest.mark.parametrize(
    ('scope', 'least'),
    [
        # Each side against batch and queue, by student and teacher: 8, the queue's again in the
        # backward pass, 4, and the gradients of the student's features, 4.
        (r'jvp\(\)\)*/(checkpoint/|rematted_computation/)*dot_general$', 16),
        ('/image_projection/', 2 + 1 + 2),  # CLS of both, the teacher's patches; the gradients
        ('/text_projection/', 2 + 2),
        ('bne,be->bn', 1),
        ('bne,bwe->bnw', 2 + 2),  # words of the caption, on both sides; the gradients
        ('bne,ue->bnu', 1 + 2),  # words of the batch
        ('/itm_head/', 1 + 2),
    ],
    ids=['itc', 'image features', 'text features', 'relevance', 'own words', 'all words', 'itm'],
)
def test_similarities_relevance_and_matches_are_exact_with_their_gradients(step, scope, least):
    chosen = [p for p in step[1] if re.search(scope, p.scope)]
    assert len(chosen) >= least
    assert [p for p in chosen if not p.exact] == []


def vocabulary(step_products: list[Product]) -> list[Product]:
    """Those whose result has a column for each word."""
    words = get_config('tiny').model.text.vocab_size
    return [p for p in step_products if re.search(rf'x{words}x\w+>$', p.types[2])]


@pytest.mark.parametrize(('scope', 'count'), [('predict_words', 2), (r'SemMIM\.decode\)', 1)])
def test_word_logits_of_a_step_are_exact(step, scope, count):
    chosen = [p for p in vocabulary(step[1]) if re.search(scope, p.scope)]
    assert len(chosen) == count  # of MLM by student and teacher; of the decoder
    assert all(p.exact for p in chosen)


def test_word_logits_take_bfloat16_as_it_is(step):
    """The largest product of the heads costs one pass of a matrix unit, not the six of float32."""
    dtype, step_products = step
    short = {'bfloat16': 'bf16', 'float32': 'f32'}[dtype]
    for p in vocabulary(step_products):
        assert all(name.endswith(f'x{short}>') for name in p.types[:2])


@pytest.mark.parametrize('dtype', DTYPES)
def test_word_logits_of_a_beam_are_exact(dtype):
    state = warm(dtype, losses=('prefix',))
    model, width = state.task.model, state.config.model.text.width

    def write(params):
        def next_logits(model):
            context = model.decoder_context(jnp.zeros((BATCH, 5, width), model.dtype))
            cache, mask = model.decoder.empty_cache(BATCH, 6), jnp.ones((BATCH, 5), bool)
            return model.decode_next(jnp.ones(BATCH, int), 2, context, mask, cache)[0]

        return nn.apply(next_logits, model)({'params': params})

    (product,) = vocabulary(products(write, state.params))
    assert product.exact


@pytest.mark.parametrize('dtype', DTYPES)
def test_relevance_by_attention_is_exact(dtype):
    state = warm(dtype, losses=('itm',))
    model, text = state.task.model, state.config.model.text

    def relevance(params):
        def attend(model):
            context = model.image_context(jnp.zeros((BATCH, 17, text.width), model.dtype))
            tokens = jnp.zeros((BATCH, 6, text.width), model.dtype)
            valid = jnp.ones((BATCH, 6), bool)
            return model.text_to_patch_attention(tokens, valid, context, layer=1)

        return nn.apply(attend, model)({'params': params})

    step_products = products(relevance, state.params)
    (weights,) = [p for p in step_products if 'bthd,bshd->bhts' in p.scope]
    assert weights.exact


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize(
    'head',
    [
        lambda dtype: LabelHead(hidden=8, classes=3, epsilon=1e-6, dtype=dtype),
        lambda dtype: EncodingHead(hidden=8, bottleneck=4, codes=6, dtype=dtype),
    ],
    ids=['labels', 'codes'],
)
def test_logits_of_labels_and_codes_are_exact(head, dtype):
    module, x = head(jnp.dtype(dtype)), jnp.zeros((2, 5))
    params = jax.eval_shape(module.init, jax.random.key(0), x)
    *inside, last = products(module.apply, params, x)
    assert last.exact and inside and not any(p.exact for p in inside)
