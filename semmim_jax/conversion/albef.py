"""ALBEF (2107.07651): where each of its tensors stands in ours.

The names are those of ALBEF's pre-training model, of its VQA model for the decoder, and of its
classifiers for `cls_head`, which here has a LayerNorm inside; the image tower's are timm's. What
ALBEF lacks has names of its own.
"""

from collections.abc import Collection

from semmim_jax.conversion.hf_tables import BERT_EMBEDDINGS, BERT_HEAD, BERT_LAYERS
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
    qkv,
)

VIT = [
    Entry('cls', 'cls_token', TOKEN),
    Entry('distillation', 'dist_token', TOKEN),
    Entry('position', 'pos_embed', BATCHED),
    Entry('patch/kernel', 'patch_embed.proj.weight', PATCH),
    Entry('patch/bias', 'patch_embed.proj.bias', SAME),
    *norm('norm_pre', 'norm_pre'),  # CLIP's; no name of ALBEF's
    *placed(
        [
            *norm('norm1', 'norm1'),
            *qkv('attn.qkv.weight', 'attn.qkv.bias'),
            *linear('attn/out', 'attn.proj', DENSE_OUT),
            *norm('norm2', 'norm2'),
            *linear('mlp/up', 'mlp.fc1'),
            *linear('mlp/down', 'mlp.fc2'),
        ],
        ours='blocks/layers/',
        theirs='blocks.{layer}.',
    ),
    *norm('norm', 'norm'),
]

CROSS_ATTENTION = placed(
    [
        *linear('cross_attn/query', 'self.query'),
        *linear('cross_attn/key', 'self.key'),
        *linear('cross_attn/value', 'self.value'),
        *linear('cross_attn/out', 'output.dense', DENSE_OUT),
        *norm('cross_norm', 'output.LayerNorm'),
    ],
    ours='blocks/layers/',
    theirs='encoder.layer.{layer}.crossattention.',
)

ENCODING_HEAD = [
    *linear('hidden1', 'hidden1'),
    *linear('hidden2', 'hidden2'),
    *linear('bottleneck_out', 'bottleneck_out'),
    Entry('directions', 'directions', SAME),
]
ENCODING_HEADS = ('encoding_head', 'patch_encoding_head')

LINEAR = {  # ours: theirs; the first three are ALBEF's
    'image_projection': 'vision_proj',
    'text_projection': 'text_proj',
    'itm_head': 'itm_head',
    'bridge': 'bridge',
    'text_injection': 'text_injection',
    'grounding/patch_projection': 'grounding.patch_projection',
    'grounding/word_projection': 'grounding.word_projection',
    'grounding/injection': 'grounding.injection',
    'pixel_head': 'pixel_head',
    'feature_head': 'feature_head',
}


CLS_HEAD = [
    *linear('label_head/up', 'cls_head.0'),
    *norm('label_head/norm', 'cls_head.1'),
    *linear('label_head/out', 'cls_head.3'),  # 2 is the GELU
]


def albef_table(paths: Collection[str], *, text_depth: int) -> list[Entry]:
    """The entries of a model.

    Args:
      paths: of its parameters; entries of parts that it lacks are left out.
      text_depth: layers of the text encoder; ALBEF counts the fusion encoder's on from there.
    """
    cross_layers = [*BERT_LAYERS, *CROSS_ATTENTION]
    entries = [
        *placed(VIT, ours='image/', theirs='visual_encoder.'),
        *placed([*BERT_EMBEDDINGS, *BERT_LAYERS], ours='text/', theirs='text_encoder.bert.'),
        *placed(cross_layers, ours='fusion/', theirs='text_encoder.bert.', first=text_depth),
        *placed(BERT_HEAD, ours='mlm_head/', theirs='text_encoder.'),
        *placed([*BERT_EMBEDDINGS, *cross_layers], ours='decoder/', theirs='text_decoder.bert.'),
        *placed(BERT_HEAD, ours='decoder_head/', theirs='text_decoder.'),
        *(entry for ours, theirs in LINEAR.items() for entry in linear(ours, theirs)),
        *norm('bridge_norm', 'bridge_norm'),
        *(
            entry
            for name in ENCODING_HEADS
            for entry in placed(ENCODING_HEAD, ours=f'{name}/', theirs=f'{name}.')
        ),
        *CLS_HEAD,
        Entry('image_ids', 'image_ids', SAME),
        Entry('mask_token', 'mask_token', SAME),
        Entry('temperature', 'temp', SAME),
    ]
    return [entry for entry in entries if set(entry.paths) <= set(paths)]
