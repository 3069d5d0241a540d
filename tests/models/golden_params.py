"""Where each parameter of the published files stands in our modules.

Left: module in the golden ('#' is the layer's number), right: module in our tree. Leaves follow:
'bias' is 'bias', 'weight' is 'kernel' or 'scale', whichever our module has. A parameter on the left
side stands beside one on the right.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util

_BERT_ATTENTION = {
    'attention.self.query': 'attn/query',
    'attention.self.key': 'attn/key',
    'attention.self.value': 'attn/value',
    'attention.output.dense': 'attn/out',
    'attention.output.LayerNorm': 'attn_norm',
}
_BERT_CROSS = {
    'crossattention.self.query': 'cross_attn/query',
    'crossattention.self.key': 'cross_attn/key',
    'crossattention.self.value': 'cross_attn/value',
    'crossattention.output.dense': 'cross_attn/out',
    'crossattention.output.LayerNorm': 'cross_norm',
}
_BERT_MLP = {
    'intermediate.dense': 'mlp/up',
    'output.dense': 'mlp/down',
    'output.LayerNorm': 'mlp_norm',
}
_BERT_EMBEDDINGS = {
    'embeddings.word_embeddings.weight': 'embeddings/word',
    'embeddings.position_embeddings.weight': 'embeddings/position',
    'embeddings.token_type_embeddings.weight': 'embeddings/type',
    'embeddings.LayerNorm': 'embeddings/norm',
}


def _below(table: Mapping[str, str], theirs: str, ours: str) -> dict[str, str]:
    return {f'{theirs}{left}': f'{ours}{right}' for left, right in table.items()}


_STACK = 'blocks/layers/'

FUSION = _below(_BERT_ATTENTION | _BERT_CROSS | _BERT_MLP, 'layer.#.', _STACK)
TEXT = _BERT_EMBEDDINGS | _below(_BERT_ATTENTION | _BERT_MLP, 'encoder.layer.#.', _STACK)
DECODER = _below(_BERT_EMBEDDINGS, 'bert.', 'decoder/') | _below(
    FUSION, 'bert.encoder.', 'decoder/'
)


def vocabulary_head(name: str) -> dict[str, str]:
    """BERT's prediction head as our head `name`."""
    return {
        'cls.predictions.transform.dense': f'{name}/transform',
        'cls.predictions.transform.LayerNorm': f'{name}/norm',
        'cls.predictions.bias': f'{name}/bias',
    }


VIT_CLIP = _below(
    {
        'embeddings.class_embedding': 'cls',
        'embeddings.patch_embedding': 'patch',
        'embeddings.position_embedding.weight': 'position',
        'pre_layrnorm': 'norm_pre',
        'post_layernorm': 'norm',
    }
    | _below(
        {
            'layer_norm1': 'norm1',
            'self_attn.q_proj': 'attn/query',
            'self_attn.k_proj': 'attn/key',
            'self_attn.v_proj': 'attn/value',
            'self_attn.out_proj': 'attn/out',
            'layer_norm2': 'norm2',
            'mlp.fc1': 'mlp/up',
            'mlp.fc2': 'mlp/down',
        },
        'encoder.layers.#.',
        _STACK,
    ),
    'vision_model.',
    '',
)
VIT_PLAIN = {
    'embeddings.cls_token': 'cls',
    'embeddings.patch_embeddings.projection': 'patch',
    'embeddings.position_embeddings': 'position',
    'layernorm': 'norm',
} | _below(
    {
        'layernorm_before': 'norm1',
        'attention.attention.query': 'attn/query',
        'attention.attention.key': 'attn/key',
        'attention.attention.value': 'attn/value',
        'attention.output.dense': 'attn/out',
        'layernorm_after': 'norm2',
        'intermediate.dense': 'mlp/up',
        'output.dense': 'mlp/down',
    },
    'encoder.layer.#.',
    _STACK,
)
ENCODING_HEAD = {
    'mlp.0': 'hidden1',
    'mlp.2': 'hidden2',
    'mlp.4': 'bottleneck_out',
    'last_layer.weight_v': 'directions',
}
PROJECTIONS = {
    'vision_proj': 'image_projection',
    'text_proj': 'text_projection',
    'itm_head': 'itm_head',
}
_CLIP_BLOCK = {
    'ln_1': 'norm1',
    'attn.query': 'attn/query',
    'attn.key': 'attn/key',
    'attn.value': 'attn/value',
    'attn.out_proj': 'attn/out',
    'ln_2': 'norm2',
    'mlp.c_fc': 'mlp/up',
    'mlp.c_proj': 'mlp/down',
}
_CLIP_VISUAL = {
    'conv1': 'patch',
    'class_embedding': 'cls',
    'positional_embedding': 'position',
    'temporal_embed': 'temporal',
    'ln_pre': 'norm_pre',
    'ln_post': 'norm',
} | _below(_CLIP_BLOCK, 'transformer.layers.#.', _STACK)
_FUSION_LAYER = _BERT_ATTENTION | _BERT_CROSS | _BERT_MLP
# Of the authors' checkpoints, as `split_in_proj` leaves them.
SCL = {
    **_below(TEXT, 'text_transformer.', 'text/'),
    **_below(_CLIP_VISUAL, 'vision_transformer.visual.', 'image/'),
    'vision_transformer.visual.visual_mask_token': 'visual_mask/vector',
    **_below(_FUSION_LAYER, 'cross_modal_text_layers.#.', f'fusion/{_STACK}text/'),
    **_below(_FUSION_LAYER, 'cross_modal_image_layers.#.', f'fusion/{_STACK}image/'),
    'cross_modal_text_transform': 'text_bridge',
    'cross_modal_image_transform': 'image_bridge',
    'cross_modal_text_pooler.dense': 'text_pooler',
    'cross_modal_image_pooler.dense': 'image_pooler',
    'token_type_embeddings.weight': 'types',
    'mlm_score.transform.dense': 'mlm_head/transform',
    'mlm_score.transform.LayerNorm': 'mlm_head/norm',
    'mlm_score.decoder.weight': 'mlm_words/word',
    'mlm_score.bias': 'mlm_head/bias',
    'itm_score.fc': 'itm_head',
    **_below({'0': 'up', '1': 'norm', '3': 'out'}, 'vision_proj.', 'image_contrast/'),
    **_below({'0': 'up', '1': 'norm', '3': 'out'}, 'language_proj.', 'text_contrast/'),
    'cl_temp': 'temperature',
}


def split_in_proj(params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """CLIP's blocks with query, key and value apart, and called layers."""
    parts = {}
    for name, value in params.items():
        name = name.replace('.resblocks.', '.layers.')
        before, found, kind = name.partition('.in_proj_')
        if not found:
            parts[name] = value
            continue
        for part, rows in zip(('query', 'key', 'value'), np.split(value, 3)):
            parts[f'{before}.{part}.{kind}'] = rows
    return parts


def our_array(value: np.ndarray, shape: tuple[int, ...], leaf: str) -> np.ndarray:
    """A published array in our layout: linear [out, in], convolution [out, in, h, w]."""
    if leaf == 'kernel':
        value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
    if value.size != np.prod(shape):
        raise ValueError(f'{value.shape} does not fill {shape}')
    return value.reshape(shape)


def to_ours(params: Mapping[str, np.ndarray], table: Mapping[str, str], shapes: Any) -> Any:
    """Our tree of parameters from a golden's.

    Args:
      params: the golden's.
      table: one of this file.
      shapes: our tree with the shape of every leaf, unboxed.

    Returns:
      The tree, every leaf filled; layers stacked on a leading axis.

    Raises:
      ValueError: naming all parameters of the golden without a place, and all places without one.
    """
    wanted = traverse_util.flatten_dict(shapes, sep='/')
    read: dict[str, dict[int, np.ndarray]] = {}
    lost = []
    for name, value in params.items():
        number = re.search(r'layers?\.(\d+)\.', name)
        layer = int(number[1]) if number else 0
        path = _place(re.sub(r'(layers?)\.\d+\.', r'\1.#.', name), table, wanted)
        if path is None or layer in read.setdefault(path, {}):
            lost.append(name)
            continue
        shape = wanted[path].shape[1:] if _STACK in path else wanted[path].shape
        read[path][layer] = our_array(value, shape, path.rpartition('/')[2])
    empty = sorted(set(wanted) - set(read))
    if lost or empty:
        raise ValueError(f'golden parameters without a place: {lost}; not filled: {empty}')
    filled = {
        path: np.stack([layers[i] for i in range(len(layers))]) if _STACK in path else layers[0]
        for path, layers in read.items()
    }
    for path, value in filled.items():
        if value.shape != wanted[path].shape:
            raise ValueError(f'{path}: {value.shape} for {wanted[path].shape}')
    return traverse_util.unflatten_dict(filled, sep='/')


def one_of_ours(name: str, value: np.ndarray, table: Mapping[str, str], tree: Any) -> Any:
    """Our leaf, of the right layer, for a golden's name; and the golden's array in its layout."""
    wanted = traverse_util.flatten_dict(tree, sep='/')
    number = re.search(r'layers?\.(\d+)\.', name)
    path = _place(re.sub(r'(layers?)\.\d+\.', r'\1.#.', name), table, wanted)
    ours = wanted[path][int(number[1])] if _STACK in path else wanted[path]
    return ours, our_array(value, ours.shape, path.rpartition('/')[2])


def _place(name: str, table: Mapping[str, str], wanted: Mapping[str, jax.ShapeDtypeStruct]):
    """Path of our parameter for a golden's name with '#' for the layer; None: there is none."""
    if name in table:
        return table[name] if table[name] in wanted else None
    module, _, leaf = name.rpartition('.')
    if module not in table:
        return None
    leaves = ('bias',) if leaf == 'bias' else ('kernel', 'scale') if leaf == 'weight' else ()
    return next((p for p in (f'{table[module]}/{x}' for x in leaves) if p in wanted), None)
