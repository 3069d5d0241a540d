"""Workdirs of runs that were never trained: random weights, nothing zero or one."""

import functools
import json
import pathlib
from typing import Any

import flax
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax.core import meta

from configs import caption, completion, finetune, nlvr2, retrieval, vqa
from configs.pretrain import get_config
from semmim_jax.data.lexicon import make_lexicon
from semmim_jax.data.run_files import run_files
from semmim_jax.data.tokenizer import make_tokenizer
from semmim_jax.ops.special_tokens import SpecialTokens
from semmim_jax.tasks.registry import find_task
from semmim_jax.training.checkpoint import Checkpoints
from semmim_jax.training.state import TrainState

TEXTS = ('a big dog and a small cat on blue', 'two boats, red background', 'a naïve café')


def clip_config() -> ml_collections.ConfigDict:
    """CLIP's tower, text injected by cross-attention, one head: the literal form."""
    config = get_config('tiny-literal')
    config.model.scan = True  # the faster to compile
    config.task.mim.injection_layers = 1  # of 2
    return config


def plain_config() -> ml_collections.ConfigDict:
    """What the other is not: plain and distilled tower of another width, RoBERTa's positions,
    ALBEF's tokens, global injection, a head for patches alone; epsilons that show."""
    config = clip_config()
    config.model.image.update(
        variant='plain', epsilon=2e-3, distilled=True, width=48, heads=3, mlp_width=96
    )
    config.model.text.update(position_offset=2, types=1, epsilon=1e-3, depth=2)
    config.data.end_token = False
    config.task.mim.update(target='semantic_separate_head', inject_teacher='global')
    config.task.mim.inject_student = 'global'
    return config


def words_config() -> ml_collections.ConfigDict:
    """As shipped: patches read the words that they resemble; towers of unequal width."""
    config = wide_images(get_config('tiny'))
    config.data.lexicon.update(min_count=2, npmi=0.5)
    return config


def wide_images(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """With an image tower wider than the text side, hence with a bridge; fast to compile."""
    config.model.image.update(width=48, heads=3, mlp_width=96)
    config.model.scan = True
    return config


def caption_config() -> ml_collections.ConfigDict:
    """Captioning: no text tower; a limit on repeated words."""
    config = wide_images(caption.get_config('tiny'))
    config.task.decoding.no_repeat_ngram = 1
    return config


def self_critical_config() -> ml_collections.ConfigDict:
    """Captioning trained on its measure."""
    config = wide_images(caption.get_config('tiny_scst'))
    config.task.decoding.no_repeat_ngram = 1
    return config


def generate_config() -> ml_collections.ConfigDict:
    """VQA that writes answers about image and question, with ALBEF's tokens."""
    config = vqa.get_config('tiny')
    config.model.scan = True
    config.data.update(end_token=False, max_prompt_tokens=6)
    config.task.decoding.update(max_length=5, beams=3, length_penalty=0.8)
    return config


def rank_config() -> ml_collections.ConfigDict:
    """VQA in ALBEF's form: the decoder reads the question alone and ranks three answers."""
    config = wide_images(vqa.get_config('tiny'))
    config.task.update(context='prompt', rank=3)
    return config


def classifier_config() -> ml_collections.ConfigDict:
    """VQA as a choice of one of LABELS, which may be right in part."""
    config = vqa.get_config('tiny')
    config.model.scan = True
    finetune.classify(config, classes=len(LABELS), images=1, evaluators=('answers',))
    config.task.loss = 'sigmoid'
    return config


def nlvr2_config() -> ml_collections.ConfigDict:
    """A statement about two images."""
    config = wide_images(nlvr2.get_config('tiny'))
    config.task.classes = len(LABELS)
    return config


LABELS = ('a dog', 'blue boats', 'a cat', 'two boats', 'red dog', 'big cat', 'small cat')
CONFIGS = {'clip': clip_config, 'plain': plain_config, 'words': words_config}  # of pre-training
DOWNSTREAM = {
    'retrieval': lambda: retrieval.get_config('tiny'),
    'caption': caption_config,
    'self_critical': self_critical_config,
    'generate': generate_config,
    'rank': rank_config,
    'classifier': classifier_config,
    'nlvr2': nlvr2_config,
}
ALL = CONFIGS | DOWNSTREAM


def of_scl(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """RoBERTa's positions; a table of places in time; every part that the losses have."""
    config.model.scan = True
    config.model.text.update(position_offset=2, types=1)
    if 'classes' in config.task:
        config.task.classes = len(LABELS)
    if config.task.name == 'completion':
        config.task.weights.local = 0.2
    return config


SCL = {
    'completion': lambda: of_scl(completion.get_config('tiny')),
    'scl_rank': lambda: of_scl(retrieval.get_config('scl_tiny')),
    'scl_vqa': lambda: of_scl(vqa.get_config('scl_tiny')),
    'scl_nlvr2': lambda: of_scl(nlvr2.get_config('scl_tiny')),
}
KNOWN = ALL | SCL
END_BIAS = {'clip': 3.5, 'plain': 2.8, 'words': 3.5, 'generate': 1.0}  # [SEP] sooner or later


@functools.cache
def task_of(name: str) -> Any:
    """The task of a config of this file."""
    config = ml_collections.FrozenConfigDict(KNOWN[name]())
    special = SpecialTokens(0, 2, 3, 4, config.model.text.vocab_size)
    return find_task(config)(config, special)


@functools.cache
def random_params(name: str, seed: int) -> dict[str, np.ndarray]:
    """Path -> values of the size that training gives them."""
    shapes = meta.unbox(jax.eval_shape(task_of(name).init, jax.random.key(0)))
    rng = np.random.default_rng(seed)
    params = {}
    for path, x in flax.traverse_util.flatten_dict(shapes, sep='/').items():
        value = 0.2 * rng.standard_normal(x.shape) + path.endswith('scale')
        params[path] = np.asarray(value, np.float32)
    if name in DOWNSTREAM and 'decoder_head/bias' in params:
        params['decoder_head/bias'][4] = 2.5  # [MASK], which is never written
    if name in END_BIAS:
        params['decoder_head/bias'][3] = END_BIAS[name]
    return params | {'temperature': np.float32(0.06)}


def tree(name: str, seed: int) -> Any:
    """`random_params` as the model takes them."""
    params = random_params(name, seed).items()
    return flax.traverse_util.unflatten_dict({k: jnp.asarray(x) for k, x in params}, sep='/')


def save_run(workdir: pathlib.Path, name: str) -> pathlib.Path:
    """A workdir with one checkpoint: online weights of seed 0, EMA of seed 1."""
    config = KNOWN[name]()
    params, ema_params = tree(name, 0), tree(name, 1)
    counts = jnp.int32([7, 0, 0])
    state = TrainState(*counts, params, ema_params, opt_state={}, extra={})
    checkpoints = Checkpoints(workdir, keep=1, async_save=False)
    tokenizer = make_tokenizer('', texts=TEXTS, size=config.model.text.vocab_size)
    lexicon = make_lexicon(Captions(), tokenizer, data_config=config.data)
    files = run_files(tokenizer, LABELS, lexicon) if config.data.lexicon.captions else {}
    checkpoints.save(state, config=config, fingerprint={}, files=files)
    checkpoints.close()
    tokenizer.save(workdir)
    (workdir / 'labels.json').write_text(json.dumps(LABELS))
    return workdir


class Captions:
    """A source of TEXTS, each twice: 'a big dog' and 'red background' are names then."""

    def __len__(self) -> int:
        return 2 * len(TEXTS)

    def entry(self, index: int) -> dict[str, Any]:
        return {'captions': [TEXTS[index % len(TEXTS)]]}


def random_images(name: str) -> np.ndarray:
    """An image for each of TEXTS, uint8 [b, s, s, 3]."""
    size = KNOWN[name]().data.image_size
    return np.random.default_rng(2).integers(0, 256, (len(TEXTS), size, size, 3), np.uint8)
