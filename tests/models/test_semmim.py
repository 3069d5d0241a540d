"""Laws of the model's pieces: the exact trims change nothing, masks hide, rows do not mix."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from flax.core import meta

from configs.pretrain import get_config
from semmim_jax.models.semmim import SemMIM
from semmim_jax.tasks.pretrain.task import Pretrain
from tests.golden_files import assert_close

ROWS = 3
PATCHES = 16  # of the tiny config: 32 px in patches of 8


def every_part(model):
    """Touches every part of the model, for the shapes of its parameters."""
    size = model.config.image.image_size
    tokens = model.encode_image(jnp.zeros((1, size, size, 3), jnp.uint8))
    ids = jnp.ones((1, 4), int)
    text = model.encode_text(ids, ids > 0)
    fused = model.fuse(text, ids > 0, model.image_context(tokens))
    injected = model.inject('global', tokens, text, ids > 0, positions=ids, layers=1)
    features = model.project_image(tokens), model.project_text(text)
    heads = model.match(fused), model.predict_words(fused), model.decode(ids, fused, ids > 0)
    for separate in True, False:
        model.encode_patches(injected, separate=separate)
    return features, heads, model.pixel_head(injected), model.feature_head(injected)


def model_and_params(seed=0, **changes):
    """The tiny model with random parameters: no bias is zero, no norm the identity."""
    config = get_config('tiny').model
    config.update(changes)
    module = SemMIM(ml_collections.FrozenConfigDict(config))
    shapes = jax.eval_shape(lambda k: module.init(k, method=every_part), jax.random.key(0))
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        centre = 1.0 if path[-1].key == 'scale' else 0.0
        return jnp.asarray(centre + 0.2 * rng.normal(size=leaf.shape), jnp.float32)

    return module, jax.tree.map_with_path(fill, meta.unbox(shapes)['params'])


def call(module, params, method, *inputs):
    return jax.jit(nn.apply(method, module))({'params': params}, *inputs)


@pytest.fixture(scope='module')
def semmim():
    return model_and_params()


@pytest.fixture(scope='module')
def streams(semmim):
    """Image tokens, text tokens and validity of a batch, by the model itself."""
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (ROWS, 32, 32, 3), np.uint8)
    ids = rng.integers(5, semmim[0].config.text.vocab_size, (ROWS, 9), np.int32)

    def encode(model, images, ids):
        return model.encode_image(images), model.encode_text(ids, ids > 0)

    image, text = call(*semmim, encode, images, ids)
    mask = np.arange(9) < np.array([[9], [5], [3]])
    return {'images': images, 'ids': ids, 'image': image, 'text': text, 'mask': mask}


def gathered(tokens, positions):
    return np.take_along_axis(np.asarray(tokens), positions[..., None], axis=1)


def test_fusing_queries_is_fusing_all_positions_and_gathering(semmim, streams):
    queries = np.array([[0, 2, 1], [4, 0, 4], [1, 2, 0]])

    def both(model, image, text, mask):
        context = model.image_context(image)
        full = model.fuse(text, mask, context)
        return full, model.fuse(text, mask, context, queries=queries)

    full, some = call(*semmim, both, *(streams[name] for name in ('image', 'text', 'mask')))
    assert_close(some, gathered(full, queries))


def test_a_context_index_is_fusing_with_the_gathered_images(semmim, streams):
    index = np.array([2, 0, 0, 1, 2])  # image of each text
    rows = np.array([0, 1, 2, 2, 0])  # text of each pair

    def both(model, image, text, mask):
        context = model.image_context(image)
        indexed = model.fuse(text[rows], mask[rows], context, context_index=index)
        return indexed, model.fuse(text[rows], mask[rows], model.image_context(image[index]))

    indexed, plain = call(*semmim, both, *(streams[name] for name in ('image', 'text', 'mask')))
    assert_close(indexed, plain)


@pytest.mark.parametrize('layers', [1, 2])
def test_injecting_at_some_patches_is_injecting_everywhere_and_gathering(semmim, streams, layers):
    some = np.array([[0, 5, 15], [3, 4, 9], [14, 2, 2]])
    everywhere = np.broadcast_to(np.arange(PATCHES), (ROWS, PATCHES))

    def both(model, image, text, mask):
        inject = lambda positions: model.inject(
            'cross_attention', image, text, mask, positions=positions, layers=layers
        )
        return inject(everywhere), inject(some)

    full, part = call(*semmim, both, *(streams[name] for name in ('image', 'text', 'mask')))
    assert full.shape == (ROWS, PATCHES, 32)
    assert_close(part, gathered(full, some))


def test_injection_runs_image_to_text_through_the_fusion_encoders_first_layers(semmim, streams):
    """Text tokens are keys and values, the image's CLS takes part as a query: layer by layer."""

    def both(model, image, text, mask):
        x, context = image, model.fusion.project_context(text)
        for index in range(2):
            x = model.fusion.layer(index, x, context, mask=None, context_mask=mask)
        everywhere = jnp.broadcast_to(jnp.arange(PATCHES), (ROWS, PATCHES))
        options = dict(positions=everywhere, layers=2)
        return x[:, 1:], model.inject('cross_attention', image, text, mask, **options)

    by_layer, injected = call(*semmim, both, *(streams[name] for name in ('image', 'text', 'mask')))
    assert_close(injected, by_layer)


def test_injection_none_and_global_by_hand(semmim, streams):
    module, params = semmim
    positions = np.array([[0, 5], [3, 4], [14, 2]])
    image, text = streams['image'], streams['text']

    def inject(model, kind):
        return model.inject(kind, image, text, streams['mask'], positions=positions, layers=1)

    patches = gathered(np.asarray(image)[:, 1:], positions)
    none = nn.apply(inject, module)({'params': params}, 'none')
    np.testing.assert_array_equal(none, patches)
    added = np.asarray(text)[:, 0] @ params['text_injection']['kernel']
    added = added + params['text_injection']['bias']
    injected = nn.apply(inject, module)({'params': params}, 'global')
    assert_close(injected, patches + added[:, None])
    with pytest.raises(ValueError, match="'everywhere'.*cross_attention"):
        nn.apply(inject, module)({'params': params}, 'everywhere')


def test_masked_patches_hide_their_pixels_and_nothing_else(semmim, streams):
    module, params = semmim
    encode = jax.jit(nn.apply(lambda model, x, mask: model.encode_image(x, mask), module))
    mask = np.random.default_rng(0).random((ROWS, PATCHES)) < 0.5
    pixels = mask.reshape(ROWS, 4, 1, 4, 1, 1)  # where the mask lies, over patches of 8 x 8
    images = streams['images'].reshape(ROWS, 4, 8, 4, 8, 3)
    other = np.random.default_rng(1).integers(0, 256, images.shape, np.uint8)
    flat = lambda x: x.reshape(ROWS, 32, 32, 3)
    tokens = encode({'params': params}, flat(images), mask)
    hidden = encode({'params': params}, flat(np.where(pixels, other, images)), mask)
    np.testing.assert_array_equal(tokens, hidden)
    seen = encode({'params': params}, flat(np.where(pixels, images, other)), mask)
    assert np.abs(tokens - seen).max(axis=(1, 2)).min() > 1e-2
    nothing = encode({'params': params}, flat(images), np.zeros_like(mask))
    assert_close(nothing, streams['image'])


def test_a_mask_replaces_patch_embeddings_and_keeps_cls_and_positions(semmim, streams):
    """What enters the first block: by hand for CLIP's form, LN([CLS; patches] + positions)."""
    module, params = semmim
    mask = np.arange(PATCHES) % 3 == np.arange(ROWS)[:, None]

    def entering(model, images, mask):
        mean, std = np.array(model.config.pixel_mean), np.array(model.config.pixel_std)
        normalised = (images / 255 - mean) / std
        return model.image(normalised, mask=mask, mask_token=model.mask_token, collect=True)[1][0]

    tower = params['image']
    run = jax.jit(nn.apply(entering, module))
    plain = run({'params': params}, streams['images'], np.zeros_like(mask))
    masked = run({'params': params}, streams['images'], mask)
    positioned = np.asarray(params['mask_token'] + tower['position'][1:])
    expected = positioned - positioned.mean(-1, keepdims=True)
    expected /= np.sqrt(positioned.var(-1, keepdims=True) + 1e-5)
    expected = expected * tower['norm_pre']['scale'] + tower['norm_pre']['bias']
    assert_close(masked[:, 0], plain[:, 0])
    for row in range(ROWS):
        assert_close(masked[row, 1:][mask[row]], expected[mask[row]])
        assert_close(masked[row, 1:][~mask[row]], plain[row, 1:][~mask[row]])


def every_output(model, images, ids, mask):
    """What all parts give: tokens and logits, and (in float32 whatever the dtype) cosines."""
    image, text = model.encode_image(images), model.encode_text(ids, mask)
    fused = model.fuse(text, mask, model.image_context(image))
    everywhere = jnp.broadcast_to(jnp.arange(PATCHES), (len(ids), PATCHES))
    options = dict(positions=everywhere, layers=2)
    tokens = {
        'image': image,
        'text': text,
        'fused': fused,
        'injected': model.inject('cross_attention', image, text, mask, **options),
        'decoded': model.decode(ids, fused, mask),
    }
    cosines = {
        'codes': model.encode_patches(image, separate=False),
        'image feature': model.project_image(image),
        'text feature': model.project_text(text),
    }
    return tokens, cosines


@pytest.fixture(scope='module')
def run_every_output(semmim):
    jitted = jax.jit(nn.apply(every_output, semmim[0]))
    return lambda *inputs: jitted({'params': semmim[1]}, *inputs)


def test_a_permuted_batch_permutes_every_output(run_every_output, streams):
    order = np.array([2, 0, 1])
    inputs = [streams[name] for name in ('images', 'ids', 'mask')]
    plain = jax.tree.leaves(run_every_output(*inputs))
    permuted = jax.tree.leaves(run_every_output(*(x[order] for x in inputs)))
    for before, after in zip(plain, permuted):
        assert_close(after, before[order])
        assert np.abs(before[0] - before[1]).max() > 1e-2  # rows do differ


def test_ids_at_padding_change_no_valid_output(semmim, streams):
    mask = streams['mask']
    other = np.where(mask, streams['ids'], 7 + np.arange(9))

    def every_reader_of_text(model, ids):
        image, text = streams['image'], model.encode_text(ids, mask)
        context = model.image_context(image)
        everywhere = jnp.broadcast_to(jnp.arange(PATCHES), (len(ids), PATCHES))
        options = dict(positions=everywhere, layers=2)
        return {
            'text': text[mask],
            'fused': model.fuse(text, mask, context)[mask],
            'injected': model.inject('cross_attention', image, text, mask, **options),
            'attention': model.text_to_patch_attention(text, mask, context, layer=1),
            'decoded': model.decode(jnp.ones((ROWS, 4), int), text, mask),
        }

    run = jax.jit(nn.apply(every_reader_of_text, semmim[0]))
    assert (other != streams['ids']).any()
    plain, changed = (run({'params': semmim[1]}, ids) for ids in (streams['ids'], other))
    for name in plain:
        assert_close(changed[name], plain[name], atol=1e-6)


def test_the_decoder_sees_no_later_token(semmim, streams):
    ids, text = streams['ids'], streams['text']
    decode = jax.jit(nn.apply(lambda m, ids: m.decode(ids, text, streams['mask']), semmim[0]))
    plain = decode({'params': semmim[1]}, ids)
    for place in range(ids.shape[1]):
        changed = ids.copy()
        changed[:, place] = (changed[:, place] + 17) % semmim[0].config.text.vocab_size
        logits = decode({'params': semmim[1]}, changed)
        assert_close(logits[:, :place], plain[:, :place], atol=1e-6)
        assert (np.abs(logits - plain)[:, place:].max(axis=-1) > 1e-4).all()


VARIANTS = {
    'shipped': {},
    'separate head, global injection': {
        'task.mim.target': 'semantic_separate_head',
        'task.mim.inject_student': 'global',
        'task.mim.inject_teacher': 'global',
    },
    'pixels, bridge, plain': {
        'task.mim.target': 'pixel',
        'task.weights.local': 0.0,
        'model.image.width': 48,
        'model.image.variant': 'plain',
    },
    'features': {
        'task.mim.target': 'feature',
        'task.mim.masking': 'cross_attention',
        'task.weights.local': 0.0,
    },
}


@pytest.mark.parametrize('changes', VARIANTS.values(), ids=VARIANTS)
def test_every_parameter_names_each_of_its_dimensions(config, special, changes):
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    boxed = jax.eval_shape(Pretrain(config, special).init, jax.random.key(0))
    is_box = lambda x: isinstance(x, meta.AxisMetadata)
    known = {*config.sharding, 'layers', 'norm', 'kv', None}
    for path, leaf in jax.tree.leaves_with_path(boxed, is_leaf=is_box):
        name = jax.tree_util.keystr(path)
        assert isinstance(leaf, nn.LogicallyPartitioned), f'{name} has no axes'
        assert len(leaf.names) == leaf.value.ndim, name
        assert set(leaf.names) <= known, name
        assert (leaf.names[:1] == ('layers',)) == ('layers' in name), name
        assert leaf.value.dtype == jnp.float32, name


def test_bfloat16_stays_near_float32(run_every_output, streams):
    """Each result is rounded to 8 bits, an error of at most 2**-9 of its size.

    About 30 roundings follow each other from pixels to fused tokens, of elements up to 3: as a
    random walk, sqrt(30) * 3 * 2**-9 = 0.03, and a third of that for a typical element. Five times
    the former and half as much again as the latter would be another computation.
    """

    inputs = [streams[name] for name in ('images', 'ids', 'mask')]
    exact = run_every_output(*inputs)
    rounded = call(*model_and_params(dtype='bfloat16'), every_output, *inputs)
    for name in 'image', 'text', 'fused', 'injected':
        assert rounded[0][name].dtype == jnp.bfloat16
        error = np.abs(np.asarray(rounded[0][name], np.float32) - exact[0][name])
        assert error.max() < 0.15 and error.mean() < 0.015, (name, error.max(), error.mean())
    for name, value in rounded[1].items():
        assert value.dtype == jnp.float32  # cosines feed softmaxes at temperature 0.04
        error = np.abs(value - exact[1][name])
        assert error.max() < 0.05 and error.mean() < 0.005, (name, error.max(), error.mean())
    assert np.isfinite(np.asarray(rounded[0]['decoded'], np.float32)).all()


def test_rows_that_share_a_context_decode_as_with_copies_of_it(semmim, streams):
    ids = np.random.default_rng(3).integers(5, 90, (2 * ROWS, 6), np.int32)

    def both(model, image):
        seen = jnp.arange(image.shape[1])[None] < jnp.array([[17], [9], [4]])
        copies = jnp.repeat(image, 2, axis=0), jnp.repeat(seen, 2, axis=0)
        return model.decode(ids, image, seen), model.decode(ids, *copies)

    shared, copied = call(*semmim, both, streams['image'])
    assert_close(shared, copied)


@pytest.mark.parametrize('scan', [True, False])
def test_decoding_token_by_token_is_decoding_at_once(scan, streams):
    module, params = model_and_params(scan=scan)
    ids = np.random.default_rng(3).integers(5, 90, (2 * ROWS, 6), np.int32)
    seen = np.arange(17)[None] < np.array([[17], [9], [4]])

    def both(model, image):
        context = model.decoder_context(image)
        cache, logits = model.decoder.empty_cache(len(ids), 8), []
        for position in range(ids.shape[1]):
            at_once = ids[:, position], position, context, seen, cache
            following, cache = model.decode_next(*at_once)
            logits.append(following)
        return model.decode(ids, image, seen), jnp.stack(logits, axis=1)

    whole, stepwise = call(module, params, both, streams['image'])
    assert_close(stepwise, whole)
