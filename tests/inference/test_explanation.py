"""Word maps against plain NumPy, Grad-CAM against PyTorch's autograd, patches against PyTorch."""

import numpy as np
import pytest
import scipy.special

import semmim_jax
from semmim_jax.conversion.to_torch import to_torch
from tests.conversion.random_run import TEXTS, random_images, random_params, save_run

torch = pytest.importorskip('torch')
towers = pytest.importorskip('semmim_jax.conversion.torch_towers')
torch_model = pytest.importorskip('semmim_jax.conversion.torch_model')


@pytest.fixture(scope='module', params=['words', 'plain'])
def run(request, tmp_path_factory):
    """(name of the config, the model, the exported module); random weights."""
    parent = tmp_path_factory.mktemp(request.param)
    workdir = save_run(parent / 'run', request.param)
    to_torch(workdir, parent / 'out')
    model = semmim_jax.load(workdir, batch_size=2)
    return request.param, model, torch_model.SemMIM.load(parent / 'out')


class Plain:
    """The towers in NumPy: CLIP's of images, BERT's of texts; one example at a time."""

    def __init__(self, params, config):
        self.params, self.config = {k: x.astype(np.float64) for k, x in params.items()}, config

    def get(self, name, layer=None):
        x = self.params[name]
        return x if layer is None else x[layer]

    def norm(self, x, name, epsilon, layer=None):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
        return x * self.get(f'{name}/scale', layer) + self.get(f'{name}/bias', layer)

    def dense(self, x, name, layer=None):
        kernel, bias = self.get(f'{name}/kernel', layer), self.get(f'{name}/bias', layer)
        return np.tensordot(x, kernel, kernel.ndim - bias.ndim) + bias

    def attend(self, x, context, name, layer):
        """What is read [t, d], and the probabilities [h, t, s]."""
        query, key, value = (
            self.dense(y, f'{name}/{part}', layer)
            for y, part in ((x, 'query'), (context, 'key'), (context, 'value'))
        )
        logits = np.einsum('thd,shd->hts', query, key) / key.shape[-1] ** 0.5
        weights = scipy.special.softmax(logits, axis=-1)
        read = np.einsum('hts,shd->thd', weights, value)
        return self.dense(read, f'{name}/out', layer), weights

    def mlp(self, x, name, layer, activation):
        return self.dense(activation(self.dense(x, f'{name}/up', layer)), f'{name}/down', layer)

    def image(self, pixels):
        c, image = self.config, self.config.image
        x = (pixels / 255 - np.array(c.pixel_mean)) / np.array(c.pixel_std)
        side, p = image.image_size // image.patch_size, image.patch_size
        x = x.reshape(side, p, side, p, 3).swapaxes(1, 2).reshape(side * side, -1)
        x = np.concatenate([self.get('image/cls')[None], x @ self.get('image/patch/kernel')])
        x = self.norm(x + self.get('image/position'), 'image/norm_pre', image.epsilon)
        quick_gelu = lambda x: x * scipy.special.expit(1.702 * x)
        for layer in range(image.depth):
            at = 'image/blocks/layers'
            y = self.norm(x, f'{at}/norm1', image.epsilon, layer)
            x = x + self.attend(y, y, f'{at}/attn', layer)[0]
            y = self.norm(x, f'{at}/norm2', image.epsilon, layer)
            x = x + self.mlp(y, f'{at}/mlp', layer, quick_gelu)
        return self.norm(x, 'image/norm', image.epsilon)

    def text_layer(self, x, at, layer, context=None):
        epsilon, weights = self.config.text.epsilon, None
        x = self.norm(
            x + self.attend(x, x, f'{at}/attn', layer)[0], f'{at}/attn_norm', epsilon, layer
        )
        if context is not None:
            read, weights = self.attend(x, context, f'{at}/cross_attn', layer)
            x = self.norm(x + read, f'{at}/cross_norm', epsilon, layer)
        gelu = lambda x: x * scipy.special.ndtr(x)
        x = x + self.mlp(x, f'{at}/mlp', layer, gelu)
        return self.norm(x, f'{at}/mlp_norm', epsilon, layer), weights

    def attention(self, pixels, ids):
        """Cross-attention of the fusion encoder for a text without padding: [layers, h, t, s]."""
        context = self.dense(self.image(pixels), 'bridge')
        context = self.norm(context, 'bridge_norm', 1e-12)
        at = 'text/embeddings'
        x = self.get(f'{at}/word')[ids] + self.get(f'{at}/position')[: len(ids)]
        x = self.norm(x + self.get(f'{at}/type')[0], f'{at}/norm', self.config.text.epsilon)
        for layer in range(self.config.text.depth):
            x, _ = self.text_layer(x, 'text/blocks/layers', layer)
        maps = []
        for layer in range(self.config.fusion_depth):
            x, weights = self.text_layer(x, 'fusion/blocks/layers', layer, context)
            maps.append(weights)
        return np.stack(maps)


def test_word_maps_are_those_of_plain_numpy(run):
    name, model, _ = run
    if name != 'words':
        pytest.skip('the NumPy towers are those of the other config')
    plain = Plain(random_params(name, 1), model.config.model)
    images, text = random_images(name), 'A naive café, and a small cafés on blue'
    found = [model.explain(images[0], text, layer=layer)[0] for layer in (0, 1)]
    cleaned = 'a naive café and a small cafés on blue'
    ids = model.tokenizer.encode(cleaned, 18)
    tokens = model.tokenizer.tokens()
    pieces = [tokens[i] for i in ids if i not in (0, 2, 3)]
    assert pieces == ['a', 'naive', 'cafe', 'and', 'a', 'small', 'cafe', '##s', 'on', 'blue']
    maps = plain.attention(images[0], ids[ids > 0])  # [layers, h, t, s]
    for layer, explanation in enumerate(found):
        of_tokens = maps[layer].mean(axis=0)[1:-1, 1:]  # without [CLS], [SEP]; patches
        of_words = [of_tokens[i] for i in range(6)] + [of_tokens[6:8].mean(0), *of_tokens[8:]]
        assert explanation.words == tuple(cleaned.split())
        assert np.std(of_words) > 0.005, 'maps that say nothing'
        np.testing.assert_allclose(explanation.attention, of_words, atol=1e-5)
        np.testing.assert_allclose(explanation.caption_attention, of_tokens.mean(0), atol=1e-5)
    assert model.explain(images[0], text)[0].layer == 0


def test_grad_cam_is_that_of_torch_autograd(run, monkeypatch):
    name, model, module = run
    images, layers = random_images(name), range(model.config.model.fusion_depth)
    taken = []

    def attend(query, key, value, *, heads, mask=None, causal=False):
        query, key, value = (
            x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value)
        )
        logits = query @ key.transpose(-1, -2) / key.shape[-1] ** 0.5
        if mask is not None:
            logits = logits.masked_fill(~mask[:, None, None, :], float('-inf'))
        weights = logits.softmax(-1)  # [b, h, t, s]
        if weights.requires_grad:
            weights.retain_grad()
        taken.append(weights)
        return (weights @ value).transpose(1, 2).flatten(2)

    monkeypatch.setattr(towers, 'attend', attend)
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    logits = module.match(images, list(TEXTS))
    logits[:, 1].sum().backward()
    crossed = [weights for weights in taken if weights.shape[-2:] == (18, 17)]  # tokens, patches
    assert len(crossed) == len(layers)
    odds = (logits[:, 1] - logits[:, 0]).detach().numpy()
    for layer in layers:
        weights = crossed[layer]
        cam = (weights * weights.grad.clamp(min=0)).mean(1)[..., 1:].detach().numpy()
        explanations = model.explain(images, list(TEXTS), layer=layer)
        for i, explanation in enumerate(explanations):
            words = model.tokenizer.words(model._cleaned(TEXTS)[i], 18)
            assert explanation.words == tuple(model._cleaned(TEXTS)[i].split())
            expected = np.stack([cam[i, positions].mean(0) for _, positions in words])
            last = layer == layers[-1]  # where only [CLS] reaches the logit
            assert expected.max() == 0 if last else expected.max() > 1e-4
            np.testing.assert_allclose(explanation.gradcam, expected, atol=1e-5)
            used = [position for _, positions in words for position in positions]
            np.testing.assert_allclose(explanation.caption_gradcam, cam[i, used].mean(0), atol=1e-5)
            assert explanation.match == pytest.approx(1 / (1 + np.exp(-odds[i])), abs=1e-5)


@torch.no_grad()
def test_patches_and_fused_tokens_are_those_of_torch(run):
    name, model, module = run
    images, depth = random_images(name), model.config.model.image.depth
    read = {}
    module.visual_encoder.blocks[depth - 1].attn.qkv.register_forward_hook(
        lambda _, inputs, output: read.update(values=output.chunk(3, -1)[2])
    )
    tokens = module.visual_encoder(module.pixels(images))
    values = read['values'].numpy()
    patches = model.encode_patches(images, list(TEXTS))
    np.testing.assert_allclose(patches.features, tokens[:, 1:].numpy(), atol=2e-5)
    np.testing.assert_allclose(patches.values, values[:, -patches.features.shape[1] :], atol=2e-5)
    with_text = module.patterns(images, list(TEXTS))[1].numpy().argmax(-1)
    without = module.patterns(images)[1].numpy().argmax(-1)
    assert (with_text != without).any()
    np.testing.assert_array_equal(patches.codes, without)
    np.testing.assert_array_equal(patches.codes_with_text, with_text)
    alone = model.encode_patches(images)
    assert alone.codes_with_text is None
    np.testing.assert_array_equal(alone.codes, without)
    fused = model.encode_fused(images, list(TEXTS))
    expected = module.fuse(images, list(TEXTS)).numpy()
    shown = fused.mask[:, : expected.shape[1]]
    np.testing.assert_allclose(
        fused.tokens[:, : expected.shape[1]][shown], expected[shown], atol=2e-5
    )
    assert fused.mask.sum() == shown.sum()


def test_what_does_not_fit_is_said(run):
    name, model, _ = run
    images = random_images(name)
    with pytest.raises(ValueError, match='3 images, but 1 texts'):
        model.explain(images, 'a dog')
    with pytest.raises(ValueError, match='layer=2: this fusion encoder has the layers 0 to 1'):
        model.explain(images[0], 'a dog', layer=2)
    with pytest.raises(ValueError, match="text 0 is '!', which has no words"):
        model.explain(images[0], '!')
