"""The parts of SemMIM in PyTorch: image tower, text encoder and decoder, encoding head.

`semmim_torch.py` puts them together. Names are those of ALBEF's vit.py and xbert.py, sizes those of
config.json. Letters in shapes: b batch, n patches, t tokens, s tokens of a context, d width,
h heads, k encodings, v vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    heads: int,
    mask: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    """Multi-head attention of [b, t, d] over [b, s, d]; `mask` [b, s] is False at padding."""
    query = query.unflatten(-1, (heads, -1)).transpose(1, 2)  # [b, h, t, d / h]
    key = key.unflatten(-1, (heads, -1)).transpose(1, 2)
    value = value.unflatten(-1, (heads, -1)).transpose(1, 2)
    if mask is not None:
        mask = mask[:, None, None, :]
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
    return out.transpose(1, 2).flatten(2)


def unit(x: Tensor) -> Tensor:
    """x, in float32 at least, scaled to unit length along the last axis."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return x * x.square().sum(-1, keepdim=True).clamp(min=1e-12).rsqrt()


# The image tower.


class Attention(nn.Module):
    """Self-attention: [b, n, d] -> [b, n, d]."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).chunk(3, -1)
        return self.proj(attend(query, key, value, heads=self.heads))


class Mlp(nn.Module):
    """Two layers with GELU between them; CLIP's approximation of it if `quick_gelu`."""

    def __init__(self, width: int, hidden: int, quick_gelu: bool):
        super().__init__()
        self.quick_gelu = quick_gelu
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        x = x * torch.sigmoid(1.702 * x) if self.quick_gelu else F.gelu(x)
        return self.fc2(x)


class Block(nn.Module):
    """Pre-norm transformer layer: [b, n, d] -> [b, n, d]."""

    def __init__(self, sizes: dict[str, Any]):
        super().__init__()
        width, epsilon = sizes['width'], sizes['epsilon']
        self.norm1 = nn.LayerNorm(width, epsilon)
        self.attn = Attention(width, sizes['heads'])
        self.norm2 = nn.LayerNorm(width, epsilon)
        self.mlp = Mlp(width, sizes['mlp_width'], sizes['variant'] == 'clip')

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """Normalised images [b, 3, s, s] -> patches [b, n, d]."""

    def __init__(self, width: int, patch_size: int, bias: bool):
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch_size, stride=patch_size, bias=bias)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """ViT: normalised images [b, 3, s, s] -> [b, n + 1, d], CLS first.

    The variant is 'plain' (ALBEF's) or 'clip'. DeiT's distillation token, if there is one, is left
    out of what is returned.
    """

    def __init__(self, sizes: dict[str, Any]):
        super().__init__()
        width, epsilon, patch_size = sizes['width'], sizes['epsilon'], sizes['patch_size']
        clip, distilled = sizes['variant'] == 'clip', sizes['distilled']
        patches = (sizes['image_size'] // patch_size) ** 2
        tokens = patches + (2 if distilled else 1)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.dist_token = nn.Parameter(torch.zeros(1, 1, width)) if distilled else None
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, width))
        self.patch_embed = PatchEmbed(width, patch_size, bias=not clip)
        self.norm_pre = nn.LayerNorm(width, epsilon) if clip else nn.Identity()
        self.blocks = nn.ModuleList(Block(sizes) for _ in range(sizes['depth']))
        self.norm = nn.LayerNorm(width, epsilon)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch_embed(images)
        cls = self.cls_token.expand(len(patches), -1, -1)
        if self.dist_token is None:
            x = torch.cat([cls, patches], 1)
        else:
            x = torch.cat([cls, self.dist_token.expand(len(patches), -1, -1), patches], 1)
        x = self.norm_pre(x + self.pos_embed)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        if self.dist_token is not None:
            x = torch.cat([x[:, :1], x[:, 2:]], 1)
        return x


# Text encoder, fusion encoder and decoder.


class BertEmbeddings(nn.Module):
    """Ids [b, t] -> [b, t, d]. The first token's position is `position_offset` (RoBERTa: 2)."""

    def __init__(self, sizes: dict[str, Any]):
        super().__init__()
        width = sizes['width']
        self.position_offset = sizes['position_offset']
        self.word_embeddings = nn.Embedding(sizes['vocab_size'], width)
        self.position_embeddings = nn.Embedding(sizes['max_positions'], width)
        self.token_type_embeddings = nn.Embedding(sizes['types'], width)
        self.LayerNorm = nn.LayerNorm(width, sizes['epsilon'])

    def forward(self, ids: Tensor) -> Tensor:
        first = self.position_offset
        positions = self.position_embeddings.weight[first : first + ids.shape[1]]
        x = self.word_embeddings(ids) + positions + self.token_type_embeddings.weight[0]
        return self.LayerNorm(x)


class BertSelfAttention(nn.Module):
    """Attention of x [b, t, d] over a context [b, s, d]; a context of one row serves all rows."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        key = self.key(context).expand(len(x), -1, -1)
        value = self.value(context).expand(len(x), -1, -1)
        return attend(self.query(x), key, value, heads=self.heads, mask=mask, causal=causal)


class BertSelfOutput(nn.Module):
    """Projection, residual, LayerNorm."""

    def __init__(self, inputs: int, width: int, epsilon: float):
        super().__init__()
        self.dense = nn.Linear(inputs, width)
        self.LayerNorm = nn.LayerNorm(width, epsilon)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(residual + self.dense(x))


class BertAttention(nn.Module):
    """Post-norm attention, of a text over itself or over a context."""

    def __init__(self, sizes: dict[str, Any]):
        super().__init__()
        width = sizes['width']
        self.self = BertSelfAttention(width, sizes['heads'])
        self.output = BertSelfOutput(width, width, sizes['epsilon'])

    def forward(
        self, x: Tensor, context: Tensor, mask: Tensor | None, causal: bool = False
    ) -> Tensor:
        return self.output(self.self(x, context, mask, causal), x)


class BertIntermediate(nn.Module):
    """First layer of the MLP, with GELU."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.dense = nn.Linear(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.dense(x))


class BertLayer(nn.Module):
    """Post-norm transformer layer; `cross` gives it cross-attention."""

    def __init__(self, sizes: dict[str, Any], cross: bool):
        super().__init__()
        width, hidden, epsilon = sizes['width'], sizes['mlp_width'], sizes['epsilon']
        self.attention = BertAttention(sizes)
        if cross:
            self.crossattention = BertAttention(sizes)
        self.intermediate = BertIntermediate(width, hidden)
        self.output = BertSelfOutput(hidden, width, epsilon)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        context: Tensor | None,
        context_mask: Tensor | None,
        causal: bool,
    ) -> Tensor:
        x = self.attention(x, x, mask, causal)
        if context is not None:
            x = self.crossattention(x, context, context_mask)
        return self.output(self.intermediate(x), x)


class BertEncoder(nn.Module):
    """`depth` layers, those from `cross_from` on with cross-attention."""

    def __init__(self, sizes: dict[str, Any], depth: int, cross_from: int):
        super().__init__()
        self.layer = nn.ModuleList(BertLayer(sizes, i >= cross_from) for i in range(depth))

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        causal: bool = False,
        start: int = 0,
        stop: int | None = None,
    ) -> Tensor:
        """Runs layers `start` to `stop`.

        Args:
          x: [b, t, d]; its `mask` [b, t] is False at padding.
          context: [b, s, d] or [1, s, d], with `context_mask` [b, s] or [1, s]; None: no
            cross-attention.
          causal: whether a token sees none of those after it.
        """
        for layer in self.layer[start:stop]:
            x = layer(x, mask, context, context_mask, causal)
        return x


class BertModel(nn.Module):
    """Embeddings and layers."""

    def __init__(self, sizes: dict[str, Any], depth: int, cross_from: int):
        super().__init__()
        self.embeddings = BertEmbeddings(sizes)
        self.encoder = BertEncoder(sizes, depth, cross_from)


class BertPredictionHeadTransform(nn.Module):
    """Dense, GELU, LayerNorm."""

    def __init__(self, sizes: dict[str, Any]):
        super().__init__()
        self.dense = nn.Linear(sizes['width'], sizes['width'])
        self.LayerNorm = nn.LayerNorm(sizes['width'], sizes['epsilon'])

    def forward(self, x: Tensor) -> Tensor:
        return self.LayerNorm(F.gelu(self.dense(x)))


class BertLMPredictionHead(nn.Module):
    """[..., d] -> logits [..., v], by the word embeddings."""

    def __init__(self, sizes: dict[str, Any]):
        super().__init__()
        self.transform = BertPredictionHeadTransform(sizes)
        self.bias = nn.Parameter(torch.zeros(sizes['vocab_size']))

    def forward(self, x: Tensor, word_embeddings: nn.Embedding) -> Tensor:
        return F.linear(self.transform(x), word_embeddings.weight, self.bias)


class BertOnlyMLMHead(nn.Module):
    """Holds `predictions`, as in ALBEF."""

    def __init__(self, sizes: dict[str, Any]):
        super().__init__()
        self.predictions = BertLMPredictionHead(sizes)


class Bert(nn.Module):
    """ALBEF's BertForMaskedLM (text encoder and, from layer `cross_from` on, fusion encoder) and
    BertLMHeadModel (decoder); without `cls` if not `head`."""

    def __init__(self, sizes: dict[str, Any], depth: int, cross_from: int, head: bool):
        super().__init__()
        self.bert = BertModel(sizes, depth, cross_from)
        if head:
            self.cls = BertOnlyMLMHead(sizes)

    def predict(self, x: Tensor) -> Tensor:
        """[..., d] -> logits [..., v]."""
        return self.cls.predictions(x, self.bert.embeddings.word_embeddings)


# The encoding space.


class EncodingHead(nn.Module):
    """Tokens [..., d] -> cosines [..., k] with the directions of the encoding space."""

    def __init__(self, width: int, hidden: int, bottleneck: int, codes: int):
        super().__init__()
        self.hidden1 = nn.Linear(width, hidden)
        self.hidden2 = nn.Linear(hidden, hidden)
        self.bottleneck_out = nn.Linear(hidden, bottleneck)
        self.directions = nn.Parameter(torch.zeros(codes, bottleneck))

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.hidden1(x))
        x = F.gelu(self.hidden2(x))
        return unit(self.bottleneck_out(x)) @ unit(self.directions).T
