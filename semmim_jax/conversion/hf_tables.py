"""Hugging Face's CLIP, ViT, DeiT, BERT and RoBERTa: where each of their tensors stands in ours.

Left ours, right theirs, both below a prefix; names as `save_pretrained` writes them.
"""

from semmim_jax.conversion.table import (
    BATCHED,
    DENSE_OUT,
    PATCH,
    SAME,
    TOKEN,
    Entry,
    linear,
    norm,
    placed,
)

_STACK = 'blocks/layers/'

CLIP = [
    Entry('cls', 'embeddings.class_embedding', SAME),
    Entry('patch/kernel', 'embeddings.patch_embedding.weight', PATCH),
    Entry('position', 'embeddings.position_embedding.weight', SAME),
    *norm('norm_pre', 'pre_layrnorm'),
    *placed(
        [
            *norm('norm1', 'layer_norm1'),
            *linear('attn/query', 'self_attn.q_proj'),
            *linear('attn/key', 'self_attn.k_proj'),
            *linear('attn/value', 'self_attn.v_proj'),
            *linear('attn/out', 'self_attn.out_proj', DENSE_OUT),
            *norm('norm2', 'layer_norm2'),
            *linear('mlp/up', 'mlp.fc1'),
            *linear('mlp/down', 'mlp.fc2'),
        ],
        ours=_STACK,
        theirs='encoder.layers.{layer}.',
    ),
    *norm('norm', 'post_layernorm'),
]

VIT = [
    Entry('cls', 'embeddings.cls_token', TOKEN),
    Entry('patch/kernel', 'embeddings.patch_embeddings.projection.weight', PATCH),
    Entry('patch/bias', 'embeddings.patch_embeddings.projection.bias', SAME),
    Entry('position', 'embeddings.position_embeddings', BATCHED),
    *placed(
        [
            *norm('norm1', 'layernorm_before'),
            *linear('attn/query', 'attention.attention.query'),
            *linear('attn/key', 'attention.attention.key'),
            *linear('attn/value', 'attention.attention.value'),
            *linear('attn/out', 'attention.output.dense', DENSE_OUT),
            *norm('norm2', 'layernorm_after'),
            *linear('mlp/up', 'intermediate.dense'),
            *linear('mlp/down', 'output.dense'),
        ],
        ours=_STACK,
        theirs='encoder.layer.{layer}.',
    ),
    *norm('norm', 'layernorm'),
]

DEIT = [*VIT, Entry('distillation', 'embeddings.distillation_token', TOKEN)]

BERT_EMBEDDINGS = placed(
    [
        Entry('word', 'word_embeddings.weight', SAME),
        Entry('position', 'position_embeddings.weight', SAME),
        Entry('type', 'token_type_embeddings.weight', SAME),
        *norm('norm', 'LayerNorm'),
    ],
    ours='embeddings/',
    theirs='embeddings.',
)

BERT_LAYERS = placed(
    [
        *linear('attn/query', 'attention.self.query'),
        *linear('attn/key', 'attention.self.key'),
        *linear('attn/value', 'attention.self.value'),
        *linear('attn/out', 'attention.output.dense', DENSE_OUT),
        *norm('attn_norm', 'attention.output.LayerNorm'),
        *linear('mlp/up', 'intermediate.dense'),
        *linear('mlp/down', 'output.dense'),
        *norm('mlp_norm', 'output.LayerNorm'),
    ],
    ours=_STACK,
    theirs='encoder.layer.{layer}.',
)

BERT_HEAD = [
    *linear('transform', 'cls.predictions.transform.dense'),
    *norm('norm', 'cls.predictions.transform.LayerNorm'),
    Entry('bias', 'cls.predictions.bias', SAME),
]

ROBERTA_HEAD = [
    *linear('transform', 'lm_head.dense'),
    *norm('norm', 'lm_head.layer_norm'),
    Entry('bias', 'lm_head.bias', SAME),
]
