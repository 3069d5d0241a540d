"""Heads, projections and the resizing of position embeddings."""

import torch
from golden_store import Draw, check_close, exact, write
from golden_towers import BERT
from torch import nn
from torch.nn import functional as F
from transformers import BertConfig, ViTConfig, ViTModel
from transformers.models.bert.modeling_bert import BertOnlyMLMHead


@torch.no_grad()
def write_mlm_head(folder):
    """BERT's head on given hidden states; rows of unlike size, so that eps and GELU show."""
    draw = Draw(201)
    head = draw.randomise(BertOnlyMLMHead(BertConfig(**BERT)), bias=0.02)
    words = draw.normal(50, 32, std=0.3)
    bias = draw.normal(50, std=0.5)
    head.predictions.decoder.weight.copy_(words)
    head.predictions.decoder.bias.copy_(bias)
    scale = torch.logspace(-2, 0.3, 12, dtype=torch.float64).view(4, 3, 1)
    hidden = exact(scale * draw.normal(4, 3, 32))  # [b, m, d]
    params = {
        f'cls.predictions.transform.{name}': value
        for name, value in head.predictions.transform.state_dict().items()
    }
    params |= {'cls.predictions.bias': bias, 'bert.embeddings.word_embeddings.weight': words}
    write(
        f'{folder}/mlm_head.npz',
        config=BERT,
        params=params,
        inputs={'hidden': hidden},
        outputs={'logits': head(hidden)},
    )


def encoding_logits(params, tokens):
    """DINO's and iBOT's head; both vectors have length one, so the logits are cosines."""
    x = F.gelu(F.linear(tokens, params['mlp.0.weight'], params['mlp.0.bias']))
    x = F.gelu(F.linear(x, params['mlp.2.weight'], params['mlp.2.bias']))
    x = F.normalize(F.linear(x, params['mlp.4.weight'], params['mlp.4.bias']), dim=-1)
    directions = params['last_layer.weight_v']  # [k, bottleneck]
    directions = directions / directions.norm(dim=1, keepdim=True)
    return F.linear(x, params['last_layer.weight_g'] * directions)


def write_encoding_head(folder):
    """Logits of the encoding head, and the gradients of sum(cotangent * logits)."""
    draw = Draw(202)
    config = dict(width=32, hidden=48, bottleneck=16, encodings=24, layers=3)
    first, second, third = nn.Linear(32, 48), nn.Linear(48, 48), nn.Linear(48, 16)
    mlp = nn.Sequential(first, nn.GELU(), second, nn.GELU(), third)
    draw.randomise(mlp)
    params = {f'mlp.{name}': value.detach() for name, value in mlp.state_dict().items()}
    params['last_layer.weight_v'] = draw.normal(24, 16, std=0.7)
    params['last_layer.weight_g'] = torch.ones(24, 1, dtype=torch.float64)
    tokens, cotangent = draw.normal(3, 4, 32), draw.normal(3, 4, 24)

    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    leaf_tokens = tokens.clone().requires_grad_()
    logits = encoding_logits(leaves, leaf_tokens)
    (logits * cotangent).sum().backward()

    last = nn.Linear(16, 24, bias=False).double()
    last.weight.data.copy_(params['last_layer.weight_v'])
    last = nn.utils.parametrizations.weight_norm(last, dim=0)
    last.parametrizations.weight.original0.data.fill_(1.0)
    check_close(logits, last(F.normalize(mlp(tokens), dim=-1)), 'weight-normalised last layer')
    write(
        f'{folder}/encoding_head.npz',
        config=config,
        params=params,
        inputs={'tokens': tokens, 'cotangent': cotangent},
        outputs={
            'logits': logits,
            'grad_tokens': leaf_tokens.grad,
            'grad_mlp.0.weight': leaves['mlp.0.weight'].grad,
            'grad_last_layer.weight_v': leaves['last_layer.weight_v'].grad,
        },
    )


def write_projections(folder):
    """ITC projections, the relevance of patches to the text, and the ITM head."""
    draw = Draw(203)
    sizes = {'vision_proj': 8, 'text_proj': 8, 'itm_head': 2}
    params = {}
    for name, size in sizes.items():
        params[f'{name}.weight'] = draw.normal(size, 32, std=0.2)
        params[f'{name}.bias'] = draw.normal(size, std=0.3)
    image, text, fused = draw.normal(3, 10, 32), draw.normal(3, 6, 32), draw.normal(3, 6, 32)

    def project(name, tokens):
        x = F.linear(tokens, params[f'{name}.weight'], params[f'{name}.bias'])
        return x / x.square().sum(-1, keepdim=True).sqrt()

    vision_feat, text_feat = project('vision_proj', image[:, 0]), project('text_proj', text[:, 0])
    relevance = F.cosine_similarity(
        text_feat[:, None],
        F.linear(image[:, 1:], params['vision_proj.weight'], params['vision_proj.bias']),
        dim=-1,
    )
    write(
        f'{folder}/projections.npz',
        config=dict(width=32, features=8),
        params=params,
        inputs={'image_tokens': image, 'text_tokens': text, 'fused_tokens': fused},
        outputs={
            'vision_feat': vision_feat,
            'text_feat': text_feat,
            'relevance': relevance,  # [b, n]: metric 'similarity' of the text-guided mask
            'itm_logits': F.linear(
                fused[:, 0], params['itm_head.weight'], params['itm_head.bias']
            ),  # column 1 is 'matched'
        },
    )


def resize(positions, old, new):
    """Bicubic (a = -0.75, edges repeated, no antialias), CLS row kept: [1 + old^2, d] in."""
    grid = positions[1:].view(1, old, old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(new, new), mode='bicubic', align_corners=False)
    return torch.cat([positions[:1], grid.permute(0, 2, 3, 1).reshape(new * new, -1)])


@torch.no_grad()
def write_pos_embed_resize(folder):
    """3 x 3 to 5 x 5 and 4 x 4 to 3 x 3, checked with transformers' ViT."""
    draw = Draw(204)
    inputs, outputs, cases = {}, {}, [[3, 5], [4, 3]]
    for old, new in cases:
        positions = draw.normal(1 + old * old, 32)
        config = ViTConfig(hidden_size=32, num_attention_heads=4, image_size=old * 4, patch_size=4)
        config.num_hidden_layers = 0
        embeddings = ViTModel(config, add_pooling_layer=False).embeddings.double()
        embeddings.position_embeddings.copy_(positions[None])
        patches = torch.zeros(1, 1 + new * new, 32, dtype=torch.float64)
        expected = embeddings.interpolate_pos_encoding(patches, new * 4, new * 4)[0]
        resized = resize(positions, old, new)
        check_close(resized, expected, f'position embeddings {old} to {new}', tolerance=1e-12)
        inputs[f'positions_{old}_to_{new}'] = positions
        outputs[f'positions_{old}_to_{new}'] = resized
    write(
        f'{folder}/pos_embed_resize.npz',
        config=dict(cases=cases, width=32),
        inputs=inputs,
        outputs=outputs,
    )


def write_all(folder):
    write_mlm_head(folder)
    write_encoding_head(folder)
    write_projections(folder)
    write_pos_embed_resize(folder)
