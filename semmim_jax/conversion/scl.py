"""SCL (2211.13437) and GLSCL (2306.07096): where each of their tensors stands in ours.

The names are those of the authors' public code: RoBERTa's by transformers, the image tower's by
OpenAI's CLIP, both streams' by BERT.
"""

from collections.abc import Collection, Mapping

import numpy as np

from semmim_jax.conversion.albef import CROSS_ATTENTION
from semmim_jax.conversion.hf_tables import BERT_EMBEDDINGS, BERT_LAYERS
from semmim_jax.conversion.table import (
    BATCHED,
    DENSE_OUT,
    PATCH,
    SAME,
    Entry,
    Shape,
    linear,
    norm,
    placed,
    qkv,
)

# The text tower's unused pooler, buffers, and the decoder of masked autoencoders that no loss of
# the published code runs.
IGNORE = (
    'text_transformer.pooler.*',
    '*.position_ids',
    'vision_transformer.decoder_*',
    'vision_transformer.mask_token',
)
# Parts of which a model has those that its task trains.
HEADS = (
    'mlm_score.*',
    'itm_score.*',
    'vision_proj.*',
    'language_proj.*',
    'cl_temp',
    'vision_transformer.visual.visual_mask_token',
    'rank_output.*',
    'vqa_classifier.*',
    'nlvr2_classifier.*',
)
# The checkpoints do not say this; the code does. The heads of attention are nowhere.
SETTINGS = {
    'image': {'variant': 'clip', 'epsilon': 1e-5, 'distilled': False},
    'text': {'epsilon': 1e-5, 'position_offset': 2},
    'fusion_epsilon': 1e-12,
}
TEMPORAL = 'image/temporal'  # a row a place in time; the first is what an image has

_IMAGE = [
    Entry('patch/kernel', 'conv1.weight', PATCH),
    Entry('cls', 'class_embedding', SAME),
    Entry('position', 'positional_embedding', SAME),
    Entry('temporal', 'temporal_embed', BATCHED),
    *norm('norm_pre', 'ln_pre'),
    *placed(
        [
            *norm('norm1', 'ln_1'),
            *qkv('attn.in_proj_weight', 'attn.in_proj_bias'),
            *linear('attn/out', 'attn.out_proj', DENSE_OUT),
            *norm('norm2', 'ln_2'),
            *linear('mlp/up', 'mlp.c_fc'),
            *linear('mlp/down', 'mlp.c_proj'),
        ],
        ours='blocks/layers/',
        theirs='transformer.resblocks.{layer}.',
    ),
    *norm('norm', 'ln_post'),
]


def _stream(name: str) -> list[Entry]:
    """The layers of one of the two streams."""
    below = 'encoder.layer.{layer}.'
    return [
        Entry(
            entry.ours.replace('layers/', f'layers/{name}/'),
            entry.theirs.replace(below, f'cross_modal_{name}_layers.{{layer}}.'),
            entry.layout,
        )
        for entry in [*BERT_LAYERS, *CROSS_ATTENTION]
        if isinstance(entry.ours, str)
    ]


def _label_head(ours: str, theirs: str) -> list[Entry]:
    """Dense, LayerNorm, GELU, dense; 2 is the GELU."""
    head = [*linear('up', '0'), *norm('norm', '1'), *linear('out', '3')]
    return placed(head, ours=f'{ours}/', theirs=f'{theirs}.')


def scl_table(paths: Collection[str], *, images: int) -> list[Entry]:
    """The entries of a model.

    Args:
      paths: of its parameters; entries of parts that it lacks are left out.
      images: that a classifier looks at: 2 is NLVR2's, whose head has a name of its own.
    """
    classifier = 'nlvr2_classifier' if images > 1 else 'vqa_classifier'
    entries = [
        *placed(_IMAGE, ours='image/', theirs='vision_transformer.visual.'),
        *placed([*BERT_EMBEDDINGS, *BERT_LAYERS], ours='text/', theirs='text_transformer.'),
        *placed([*_stream('text'), *_stream('image')], ours='fusion/'),
        *linear('text_bridge', 'cross_modal_text_transform'),
        *linear('image_bridge', 'cross_modal_image_transform'),
        *linear('text_pooler', 'cross_modal_text_pooler.dense'),
        *linear('image_pooler', 'cross_modal_image_pooler.dense'),
        Entry('types', 'token_type_embeddings.weight', SAME),
        *linear('mlm_head/transform', 'mlm_score.transform.dense'),
        *norm('mlm_head/norm', 'mlm_score.transform.LayerNorm'),
        Entry('mlm_words/word', 'mlm_score.decoder.weight', SAME),
        Entry('mlm_head/bias', 'mlm_score.bias', SAME),
        *linear('itm_head', 'itm_score.fc'),
        *_label_head('image_contrast', 'vision_proj'),
        *_label_head('text_contrast', 'language_proj'),
        Entry('temperature', 'cl_temp', SAME),
        Entry('visual_mask/vector', 'vision_transformer.visual.visual_mask_token', BATCHED),
        *_label_head('label_head', classifier),
        *linear('rank_head', 'rank_output'),
    ]
    return [entry for entry in entries if set(entry.paths) <= set(paths)]


def fit_parts(
    params: Mapping[str, np.ndarray], *, shapes: Mapping[str, Shape], images_only: bool
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The parts of SCL that another run of it has by other names or with other rows.

    A rank head starts as the row of the ITM head that says how well a pair matches; the type of a
    second image as that of the first. Of places in time those are taken that both have.

    Args:
      params: path -> array, of one run.
      shapes: of another's parameters.
      images_only: whether `params` have seen images alone and the other run sees videos: only the
        first place in time is trained then.

    Returns:
      The parameters, and a line on each change. `TEMPORAL` may have fewer rows than are asked for.
    """
    fitted, notes = dict(params), []
    if 'rank_head/kernel' in shapes and 'rank_head/kernel' not in params:
        if 'itm_head/kernel' in params:
            for leaf in ('kernel', 'bias'):
                fitted[f'rank_head/{leaf}'] = fitted.pop(f'itm_head/{leaf}')[..., 1:]
            notes.append('rank_head: row 1 of itm_head, of a match')
    if 'types' in params and 'types' in shapes:
        there, here = len(params['types']), shapes['types'][0]
        rows = [min(row, there - 1) for row in range(here)]
        fitted['types'] = params['types'][rows]
        if there < here:
            notes.append(f'types: row {here - 1} is a copy of row {there - 1}')
        elif there > here:
            notes.append(f'types: first {here} of {there} rows')
    if TEMPORAL in params and TEMPORAL in shapes:
        here = shapes[TEMPORAL][0]
        fitted[TEMPORAL] = params[TEMPORAL][: 1 if images_only else here]
        taken = len(fitted[TEMPORAL])
        if taken < here:
            notes.append(f'{TEMPORAL}: first {taken} of {here} rows; the others are fresh')
        elif len(params[TEMPORAL]) > here:
            notes.append(f'{TEMPORAL}: first {here} of {len(params[TEMPORAL])} rows')
    return fitted, notes
