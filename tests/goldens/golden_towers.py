"""Towers: the modules of `transformers`, and BERT fusion layers in plain torch checked with them.

Parameter names are those of the files that `save_pretrained` writes (the names in memory differ in
transformers 5), with the published prefix 'vision_model.' for CLIP. Linear weights are
[out, in], convolutions [out, in, height, width], pixels [b, 3, s, s].
"""

import tempfile

import torch
from golden_store import Draw, check_close, write
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertLMHeadModel,
    BertModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    ViTConfig,
    ViTModel,
)
from transformers.models.bert.modeling_bert import BertEncoder

SHAPE = dict(hidden_size=32, num_attention_heads=4, intermediate_size=128)
BERT = dict(
    SHAPE,
    hidden_act='gelu',
    layer_norm_eps=1e-12,
    vocab_size=50,
    max_position_embeddings=16,
    type_vocab_size=2,
    pad_token_id=0,
)


def file_parameters(model, prefix=''):
    """{name in the saved file: float32 tensor}; tied weights appear once."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tensors = load_file(f'{folder}/model.safetensors')
    return {prefix + name: tensor.double() for name, tensor in sorted(tensors.items())}


def hidden_states(result, layers):
    """The input of every layer and the output of the last: 'hidden_0' ... 'hidden_<layers>'."""
    if len(result.hidden_states) != layers + 1:
        raise AssertionError(f'{len(result.hidden_states)} hidden states for {layers} layers')
    return {f'hidden_{i}': state for i, state in enumerate(result.hidden_states)}


def padding_mask(lengths, width):
    """bool [b, t], true on real tokens."""
    return torch.arange(width)[None, :] < torch.tensor(lengths)[:, None]


@torch.no_grad()
def write_vit_clip(folder):
    """CLIP's image tower; the output is post_layernorm of ALL tokens, not of CLS alone."""
    draw = Draw(101)
    config = dict(
        SHAPE,
        num_hidden_layers=2,
        hidden_act='quick_gelu',
        layer_norm_eps=1e-5,
        image_size=16,
        patch_size=4,
    )
    model = draw.randomise(CLIPVisionModel(CLIPVisionConfig(**config)))
    pixels = draw.normal(3, 3, 16, 16)
    result = model(pixels, output_hidden_states=True)
    outputs = hidden_states(result, 2)
    outputs['tokens'] = model.post_layernorm(outputs['hidden_2'])  # [b, n + 1, d]
    check_close(outputs['tokens'][:, 0], result.pooler_output, 'CLIP CLS token')
    write(
        f'{folder}/vit_clip.npz',
        config=config,
        params=file_parameters(model, prefix='vision_model.'),
        inputs={'pixels': pixels},
        outputs=outputs,
    )


@torch.no_grad()
def write_vit_plain(folder):
    """Plain ViT, full and with [MASK] vectors in place of masked patch embeddings."""
    draw = Draw(102)
    config = dict(
        SHAPE,
        num_hidden_layers=2,
        hidden_act='gelu',
        layer_norm_eps=1e-6,
        image_size=12,
        patch_size=4,
    )
    model = ViTModel(ViTConfig(**config), add_pooling_layer=False, use_mask_token=True)
    model = draw.randomise(model)
    pixels = draw.normal(3, 3, 12, 12)
    mask = draw.subset_masks(3, 9, 4)
    full = model(pixels, output_hidden_states=True)
    masked = model(pixels, bool_masked_pos=mask, output_hidden_states=True)
    outputs = hidden_states(full, 2) | {'tokens': full.last_hidden_state}
    check_close(model.layernorm(outputs['hidden_2']), outputs['tokens'], 'ViT final LayerNorm')
    outputs |= {f'masked_{name}': state for name, state in hidden_states(masked, 2).items()}
    outputs['masked_tokens'] = masked.last_hidden_state
    write(
        f'{folder}/vit_plain.npz',
        config=config,
        params=file_parameters(model),
        inputs={'pixels': pixels, 'mask': mask},
        outputs=outputs,
    )


@torch.no_grad()
def write_bert_text(folder):
    """Text tower: BERT over a padded batch; all token types are 0."""
    draw = Draw(103)
    config = dict(BERT, num_hidden_layers=2)
    model = draw.randomise(BertModel(BertConfig(**config), add_pooling_layer=False))
    mask = padding_mask((7, 4, 2), 7)
    ids = draw.integers(1, 50, 3, 7) * mask
    result = model(ids, attention_mask=mask.long(), output_hidden_states=True)
    outputs = hidden_states(result, 2)
    outputs['tokens'] = result.last_hidden_state
    check_close(outputs['tokens'], outputs['hidden_2'], 'BERT last hidden state')
    write(
        f'{folder}/bert_text.npz',
        config=config,
        params=file_parameters(model),
        inputs={'ids': ids, 'mask': mask},
        outputs=outputs,
    )


def residual_attention(params, name, x, context, key_mask):
    """Post-LN attention block: LayerNorm(x + dense(attention)). Returns it and [b, h, t, s] maps.

    key_mask: bool [b, s], true where a key may be attended to.
    """

    def project(part, tokens):
        weight, bias = params[f'{name}.self.{part}.weight'], params[f'{name}.self.{part}.bias']
        heads = F.linear(tokens, weight, bias).unflatten(-1, (4, 8))
        return heads.transpose(1, 2)  # [b, h, t, d / h]

    scores = project('query', x) @ project('key', context).transpose(-1, -2) / 8**0.5
    scores = scores.masked_fill(~key_mask[:, None, None, :], float('-inf'))
    maps = scores.softmax(-1)  # [b, h, t, s]
    mixed = (maps @ project('value', context)).transpose(1, 2).flatten(2)
    weight, bias = params[f'{name}.output.dense.weight'], params[f'{name}.output.dense.bias']
    return norm(params, f'{name}.output.LayerNorm', x + F.linear(mixed, weight, bias)), maps


def norm(params, name, x):
    return F.layer_norm(x, (32,), params[f'{name}.weight'], params[f'{name}.bias'], eps=1e-12)


def fusion_layers(params, x, x_mask, context, context_mask):
    """ALBEF's multimodal layers: self-attention, cross-attention, FFN; the context is fixed."""
    states, maps = [], []
    for i in range(3):
        x, _ = residual_attention(params, f'layer.{i}.attention', x, x, x_mask)
        x, cross = residual_attention(params, f'layer.{i}.crossattention', x, context, context_mask)
        inner, outer = f'layer.{i}.intermediate.dense', f'layer.{i}.output.dense'
        hidden = F.gelu(F.linear(x, params[f'{inner}.weight'], params[f'{inner}.bias']))
        hidden = F.linear(hidden, params[f'{outer}.weight'], params[f'{outer}.bias'])
        x = norm(params, f'layer.{i}.output.LayerNorm', x + hidden)
        states.append(x)
        maps.append(cross)
    return states, maps


def hf_fusion_layers(encoder, x, x_mask, context, context_mask):
    """The same through transformers' decoder layers: explicit masks switch its causality off."""

    def additive(mask, queries):
        mask = mask[:, None, None, :].expand(-1, 1, queries, -1)
        return torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, -1e30)

    states = []
    for layer in encoder.layer:
        x = layer(
            x,
            attention_mask=additive(x_mask, x.shape[1]),
            encoder_hidden_states=context,
            encoder_attention_mask=additive(context_mask, x.shape[1]),
        )
        states.append(x)
    return states


@torch.no_grad()
def write_bert_fusion(folder):
    """Fusion layers in both directions with one set of weights, and the text-to-patch relevance."""
    draw = Draw(104)
    config = dict(BERT, num_hidden_layers=3, is_decoder=True, add_cross_attention=True)
    hf_config = BertConfig(**config)
    hf_config._attn_implementation = 'eager'
    encoder = draw.randomise(BertEncoder(hf_config))
    params = dict(sorted(encoder.state_dict().items()))
    text, image = draw.normal(3, 6, 32), draw.normal(3, 10, 32)
    text_mask = padding_mask((6, 4, 3), 6)
    image_mask = torch.ones(3, 10, dtype=torch.bool)

    outputs = {}
    for direction, streams in {
        'text_to_image': (text, text_mask, image, image_mask),
        'image_to_text': (image, image_mask, text, text_mask),
    }.items():
        states, maps = fusion_layers(params, *streams)
        for i, hf_state in enumerate(hf_fusion_layers(encoder, *streams)):
            check_close(states[i], hf_state, f'{direction} layer {i}', tolerance=1e-10)
            outputs[f'{direction}/layer_{i}'] = states[i]
        if direction == 'text_to_image':
            for i, cross in enumerate(maps):
                outputs[f'text_to_image/cross_maps_{i}'] = cross  # [b, h, t, n + 1]
                weights = text_mask.double() / text_mask.sum(1, keepdim=True)
                outputs[f'relevance_{i}'] = torch.einsum(  # [b, n]: heads' mean, real tokens' mean
                    'bhtn,bt->bn', cross[..., 1:] / 4, weights
                )
    write(
        f'{folder}/bert_fusion.npz',
        config=config,
        params=params,
        inputs={'text': text, 'text_mask': text_mask, 'image': image},
        outputs=outputs,
    )


@torch.no_grad()
def write_bert_decoder(folder):
    """Causal decoder with cross-attention to a padded context, and the tied vocabulary head."""
    draw = Draw(105)
    config = dict(BERT, num_hidden_layers=2, is_decoder=True, add_cross_attention=True)
    model = draw.randomise(BertLMHeadModel(BertConfig(**config)), embedding=0.15)
    mask = padding_mask((6, 5, 3), 6)
    ids = draw.integers(1, 50, 3, 6) * mask
    context, context_mask = draw.normal(3, 8, 32), padding_mask((5, 8, 6), 8)
    result = model(
        ids,
        attention_mask=mask.long(),
        encoder_hidden_states=context,
        encoder_attention_mask=context_mask.long(),
        use_cache=False,
        output_hidden_states=True,
    )
    write(
        f'{folder}/bert_decoder.npz',
        config=config,
        params=file_parameters(model),
        inputs={'ids': ids, 'mask': mask, 'context': context, 'context_mask': context_mask},
        outputs=hidden_states(result, 2) | {'logits': result.logits},
    )


def write_all(folder):
    write_vit_clip(folder)
    write_vit_plain(folder)
    write_bert_text(folder)
    write_bert_fusion(folder)
    write_bert_decoder(folder)
