"""The full-size step of configs/pretrain.py on shapes alone: sizes, parameters, FLOPs."""

import collections

import jax
import pytest
from flax.core import meta

from benchmarks import step_flops
from semmim_jax.tasks.pretrain.task import Pretrain
from semmim_jax.training import optim, sharding, state

# docs/method.md section 6, GFLOP per sample: (student, teacher) of each pass.
COST = {
    'ViT, full view': (46.39, 46.39),
    'ViT, masked view': (46.39, 0),
    'text': (4.27, 4.27),
    'fusion image k/v, shared': (3.64, 3.64),
    'ITM': (6.74, 0),
    'MLM': (2.74, 2.74),
    'injection': (0.08, 0.19),
    'words loss': (3.20, 0),
    'encoding head, CLS': (0.02, 0.02),
    'encoding head, masked patches': (1.71, 1.71),
    'encoding head, view 2': (4.29, 0),
    'PrefixLM': (19.16, 0),
    'queue': (0.07, 0.07),
}
LITERAL = {'injection': (11.25, 11.25), 'words loss': None, 'encoding head, view 2': None}
COST_TOTAL = {'SemMIM, literal form': 497, 'literal, without PrefixLM': 440, "ALBEF's step": 249}
TOKENS = 'literal form, tokens of a discrete VAE'
COST_TOTAL[TOKENS] = 499


@pytest.fixture(scope='module')
def config():
    return step_flops.full_size({})


@pytest.fixture(scope='module')
def abstract(config):
    task = Pretrain(config, step_flops.SPECIAL)
    tx = optim.make_optimizer(config.optim, config.train.steps)
    mesh = sharding.make_mesh(dict(data=1, fsdp=1, tensor=1))
    return state.abstract_state(task, tx, seed=0, mesh=mesh, rules=config.sharding)


def test_parameters_by_tower(abstract):
    """The arithmetic of the towers of docs/method.md section 1, biases and norms included."""
    d, words, e, codes = 768, 30522, 256, 8192
    linear = lambda inputs, outputs: inputs * outputs + outputs
    norm = 2 * d
    attention = 4 * linear(d, d)  # query, key, value, out
    block = attention + linear(d, 4 * d) + linear(4 * d, d) + 2 * norm
    crossed = block + attention + norm
    embeddings = (words + 512 + 2) * d + norm  # words, positions, types
    vocabulary_head = linear(d, d) + norm + words  # tied to the word embeddings
    assert count(abstract.params) == {
        # patches without bias, CLS, positions, the norms before and after (CLIP's form)
        'image': 3 * 16 * 16 * d + d + 257 * d + 12 * block + 2 * norm,
        'text': embeddings + 6 * block,
        'fusion': 6 * crossed,
        'decoder': embeddings + 12 * crossed,
        'decoder_head': vocabulary_head,
        'mlm_head': vocabulary_head,
        'image_projection': linear(d, e),
        'text_projection': linear(d, e),
        'itm_head': linear(d, 2),
        # D-2048-2048-256, then directions without gain or bias
        'encoding_head': linear(d, 2048) + linear(2048, 2048) + linear(2048, 256) + 256 * codes,
        'grounding': 2 * linear(d, e) + linear(d, d),
        'mask_token': d,
        'temperature': 1,
    }


def test_towers_have_the_sizes_of_their_namesakes(abstract):
    """The image tower of CLIP's ViT-B/16 has 86,192,640 parameters, BERT-base has 109,482,240.

    CLIP's holds 197 positions (224 px) and a projection to 512, BERT's a pooler.
    """
    sizes = count(abstract.params)
    assert sizes['image'] - (257 - 197) * 768 == 86_192_640 - 768 * 512
    pooler, cross = 768 * 768 + 768, 6 * (4 * (768 * 768 + 768) + 2 * 768)
    assert sizes['text'] + sizes['fusion'] - cross + pooler == 109_482_240


def count(params) -> dict[str, int]:
    """Number of parameters of each part."""
    sizes = collections.Counter()
    for path, leaf in jax.tree.leaves_with_path(params):
        sizes[path[0].key] += leaf.size
    return dict(sizes)


def test_the_large_variant_has_vit_larges_tower_and_a_bridge(abstract):
    """The image tower of CLIP's ViT-L/14 has 303,966,208 parameters without its projection to 768.

    It holds 257 positions too (224 px in patches of 14); ours has patches of 16.
    """
    config = step_flops.full_size({}, variant='large')
    task = Pretrain(config, step_flops.SPECIAL)
    sizes = count(meta.unbox(jax.eval_shape(task.init, jax.random.key(0))))
    assert sizes.pop('image') - 3 * (16 * 16 - 14 * 14) * 1024 == 303_179_776
    bridge = sizes.pop('bridge') + sizes.pop('bridge_norm')
    assert bridge == 1024 * 768 + 768 + 2 * 768
    base = count(abstract.params)
    # Wider image tokens enter the [MASK] vector and the ITC projection; all else is base's.
    base['mask_token'] += 256
    base['image_projection'] += 256 * 256
    base['grounding'] += 256 * 256
    assert sizes == {name: size for name, size in base.items() if name != 'image'}


def test_the_state_holds_teacher_moments_and_queue(config, abstract):
    assert jax.tree.map(lambda x: x.shape, abstract.ema_params) == jax.tree.map(
        lambda x: x.shape, abstract.params
    )
    moments = [leaf for leaf in jax.tree.leaves(abstract.opt_state) if leaf.ndim]
    assert sum(leaf.size for leaf in moments) == pytest.approx(
        2 * sum(count(abstract.params).values()), rel=1e-6
    )
    queue = abstract.extra['queue']
    assert queue['image'].shape == queue['text'].shape == (65536, 256)


@pytest.mark.parametrize(('form', 'total'), [('', 475.3), ('-literal', 497.2)])
def test_arithmetic_is_the_pages_table(form, total):
    passes = step_flops.arithmetic(step_flops.full_size({}, variant=f'base{form}'))
    costs = COST | LITERAL if form else COST
    for name, figures in costs.items():
        if figures is None:
            assert name not in [row.name for row in passes]
            continue
        rows = [row for row in passes if row.name.split(',')[0] == name or row.name == name]
        student = sum(row.student for row in rows) / 1e9
        teacher = sum(row.teacher for row in rows) / 1e9
        assert (student, teacher) == pytest.approx(figures, abs=0.006), name
    assert step_flops.training_total(passes) == pytest.approx(total * 1e9, rel=1e-3)


@pytest.mark.parametrize('option', [*step_flops.OPTIONS, 'large', TOKENS])
def test_the_step_spends_what_the_trimmed_arithmetic_says(option):
    others = {'large': ('large', {}), TOKENS: ('base-literal', {})}
    variant, weights = (step_flops.OPTIONS | others)[option]
    config = step_flops.full_size(weights, variant=variant)
    config = step_flops.changed(config, {'train.batch_size': step_flops.BATCH})
    if option == TOKENS:
        config = step_flops.changed(config, {'task.mim.target': 'dvae'})
    passes, held = step_flops.arithmetic(config), step_flops.count(config)
    total = sum(map(sum, held.values()))
    if option in COST_TOTAL:
        assert total == pytest.approx(COST_TOTAL[option] * 1e9, rel=0.03)
    assert total == pytest.approx(step_flops.training_total(passes), rel=0.005)
    for part, (forward, backward) in held.items():
        student = sum(p.student for p in passes if p.part == part)
        teacher = sum(p.teacher for p in passes if p.part == part)
        # Not in the arithmetic: the projections of tokens (0.1). Not needed: gradients of pixels
        # (0.3 a view) and of the queue.
        slack = 0.15e9 + 0.01 * student
        assert forward == pytest.approx(student + teacher, abs=slack), part
        assert backward == pytest.approx(2 * student, abs=slack), part
