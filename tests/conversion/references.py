"""Small models of transformers with random weights, and the configs of ours that fit them."""

import functools
import json

import jax
import ml_collections
import numpy as np
import pytest
from flax import traverse_util
from flax.core import meta

from configs.pretrain import get_config
from semmim_jax.models.semmim import SemMIM

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

WORDS = 60
WIDTH = dict(hidden_size=32, num_attention_heads=4, intermediate_size=48)
VISION = dict(**WIDTH, num_hidden_layers=2, image_size=32, patch_size=8)
TEXT = dict(**WIDTH, num_hidden_layers=3, vocab_size=WORDS, max_position_embeddings=20)


def randomised(model):
    """Every weight random: a fresh model's biases are all alike, and so are its norms."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        noise = 0.2 * torch.randn(parameter.shape, generator=generator)
        norm = 'norm' in name.lower() and name.endswith('weight')
        parameter.data.copy_(noise + 1 if norm else noise)
    model.tie_weights()
    return model.eval()


@functools.cache
def reference(kind: str):
    """A model of transformers by the name of its class, less 'Model' for the bare ones."""
    t = transformers
    clip = dict(vision_config=VISION, text_config=WIDTH | dict(num_hidden_layers=1, vocab_size=9))
    # The epsilons are unusual ones that cannot be met by chance; so is RoBERTa's table of 1 type.
    vit, deit = (c(**VISION, layer_norm_eps=1e-3) for c in (t.ViTConfig, t.DeiTConfig))
    bert = t.BertConfig(**TEXT)
    roberta = t.RobertaConfig(**TEXT, layer_norm_eps=1e-5, type_vocab_size=1)
    makers = {
        'CLIPVision': lambda: t.CLIPVisionModel(t.CLIPVisionConfig(**VISION)),
        'CLIP': lambda: t.CLIPModel(t.CLIPConfig(**clip)),
        'ViT': lambda: t.ViTModel(vit),
        'ViTForImageClassification': lambda: t.ViTForImageClassification(vit),
        'DeiT': lambda: t.DeiTModel(deit),
        'Bert': lambda: t.BertModel(bert),
        'BertForPreTraining': lambda: t.BertForPreTraining(bert),
        'Roberta': lambda: t.RobertaModel(roberta),
        'RobertaForMaskedLM': lambda: t.RobertaForMaskedLM(roberta),
    }
    return randomised(makers[kind]())


def saved(kind: str, folder, **settings):
    """Folder of `save_pretrained`, with settings of its config.json replaced."""
    reference(kind).save_pretrained(folder)
    if settings:
        path = folder / 'config.json'
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


def config_for(kind: str) -> ml_collections.ConfigDict:
    """configs/pretrain.py:tiny with the sizes of a reference."""
    config = get_config('tiny')
    same = dict(width=32, heads=4, mlp_width=48)
    config.data.update(image_size=32, patch_size=8)
    config.model.image.update(depth=2, **same)
    config.model.text.update(depth=1, vocab_size=WORDS, max_positions=20, **same)
    config.model.update(fusion_depth=2, decoder_depth=2)
    if kind.startswith(('ViT', 'DeiT')):
        distilled = kind.startswith('DeiT')
        config.model.image.update(variant='plain', epsilon=1e-3, distilled=distilled)
    if kind.startswith('Roberta'):
        config.model.text.update(epsilon=1e-5, position_offset=2, types=1)
    return config


def model_of(config) -> SemMIM:
    return SemMIM(ml_collections.FrozenConfigDict(config.model))


def shapes_of(config) -> dict[str, tuple[int, ...]]:
    """Path -> shape of both towers, fusion, decoder and the vocabulary heads."""
    return _shapes_of(config.model.to_json())


@functools.cache
def _shapes_of(model: str) -> dict[str, tuple[int, ...]]:
    module = SemMIM(ml_collections.FrozenConfigDict(json.loads(model)))
    size = module.config.image.image_size
    ids = np.zeros((1, 4), np.int32)

    def every_part(model):
        image = model.encode_image(np.zeros((1, size, size, 3), np.uint8))
        text = model.encode_text(ids, ids == 0)
        model.predict_words(model.fuse(text, ids == 0, model.image_context(image)))
        model.decode(ids, text, ids == 0)

    init = functools.partial(module.init, method=every_part)
    params = meta.unbox(jax.eval_shape(init, jax.random.key(0)))['params']
    return {path: x.shape for path, x in traverse_util.flatten_dict(params, sep='/').items()}


def nested(params):
    """The tree of flat parameters; ours always have the [MASK] vector and the temperature."""
    always = {'mask_token': np.zeros(32, np.float32), 'temperature': np.float32(0.07)}
    return traverse_util.unflatten_dict(dict(params) | always, sep='/')
