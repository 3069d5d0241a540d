"""Configs of earlier commits: missing fields get the value that keeps the old behaviour."""

from collections.abc import Mapping
from typing import Any

from semmim_jax.cli.config_files import RENAMED

# Field -> value, for runs of commit e475ad3 and before. A field of a section that the experiment
# does not have is left out.
ADDED = {
    'data.vocab_kind': 'words',
    'data.vocab_min_count': 1,
    'data.vocab_limit': 8192,
    'data.strip_accents': False,
    'init.sizes': 'config',
    'train.epochs': 0.0,
    'train.collapse_alarm': 0.0,
    'optim.warmup_share': 0.0,
    'task.alpha_ramp_share': 0.0,
    'task.tau_teacher_share': 0.0,
    'task.decoding.no_repeat_ngram': 0,
    'eval.rerank': 'log_odds',
    'eval.pattern_images': 0,
    'eval.pattern_sets': (),
    'eval.pattern_set_images': 0,
    'eval.retrieval_sets': (),
    'eval.probe_source': '',
    'eval.probe_images': 500,
    'eval.compositions': (),
    'data.match_views': False,
    'data.shards': {'index': 'memory'},
    'data.tars': {'text': 'caption', 'cache': ''},
    'data.tfds': {'image': '', 'text': ''},
    'data.lexicon': {'captions': 0, 'npmi': 0.8, 'min_count': 5, 'max_tokens': 4},
    'task.weights.words': 0.0,
    'task.weights.local': 0.0,
    'task.mim.word_temperature': 0.05,
    'task.mim.word_rarity': 1.0,
    'task.mim.word_scale': 2.0,
    'task.mim.word_pool': 0.1,
    'task.mim.word_logit_scale': 20.0,
    'task.mim.lexicon_size': 0,
    'model.dvae': {'width': 64, 'codes': 8192},
    'task.mim.dvae': '',
    'model.image.registers': 0,
    'model.dense': 'xla',
    'data.clean_text': True,
    'task.model': 'semmim',
    'optim.schedule': 'cosine',
    'task.global_features': 'cls',
    'task.stable_width': 0.1,
    'task.weights.clustering': 1.0,
    'task.weights.gram': 0.0,
    'task.weights.koleo': 0.0,
    'task.mim.tau_assignment': 0.06,
    'task.mim.tau_prototypes': 0.12,
    'task.mim.balance_over': 'masked',
    'task.mim.marginal_power': 0.0,
    'task.mim.assign': 'soft',
    'task.mim.visible_weight': 0.0,
    'task.mim.second_target': 'none',
    'task.mim.second_weight': 1.0,
    'task.mim.centre_injection': False,
    'task.mim.null_word': False,
    'task.mim.start_share': 0.0,
    'task.mim.sample_share': 1.0,
    'task.mim.drop_masked': False,
    'task.shared_towers': False,
    'model.predictor_depth': 1,
    'task.mim.text_share': 1.0,
    'model.image.position_stddev': 0.02,
    'data.false_texts': 0,
    'data.text_buckets': (),
    'log': {'trackers': ('tensorboard',)},
}
_ONLY_OF = {
    **dict.fromkeys(  # SemMIM's losses: SCL's weights are others
        (f'task.weights.{loss}' for loss in ('words', 'local', 'clustering', 'gram', 'koleo')),
        'itc',
    ),
    'model.dvae': 'encoding',
    'task.model': 'classes',  # of classify
    'task.alpha_ramp_share': 'alpha',
    'task.tau_teacher_share': 'tau_student',
    'model.predictor_depth': 'encoding',
    'task.shared_towers': 'tau_student',
    'task.global_features': 'tau_student',
    'task.stable_width': 'tau_student',
    'model.image.position_stddev': 'temporal_stddev',  # of SCL
    'data.false_texts': 'task.false_texts',  # of rank
    'log': 'train',  # of the config itself
}


def upgraded(config: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """A config of any version as one of today's.

    Args:
      config: a plain dict, as a checkpoint holds it.

    Returns:
      The config, and a line that says what was added, '' if nothing was.
    """
    config, added = _copied(config), []
    for old, new in RENAMED.items():
        section, name = _place(config, old)
        if section is not None and name in section:
            value = section.pop(name)
            to, key = _place(config, new)
            if to is not None and not to.get(key):
                to[key] = value
    image, name = _place(config, 'model.image.temporal_init')
    if image is not None and name in image:
        zeros = image.pop(name) == 'zeros'
        image['temporal_stddev'] = 0.0 if zeros else image['width'] ** -0.5
        added.append(f'model.image.temporal_stddev={image["temporal_stddev"]:.3g}')
    for field, value in ADDED.items():
        section, name = _place(config, field)
        if section is None or name in section:
            continue
        needed = _ONLY_OF.get(field, '')
        beside, part = _place(config, needed) if '.' in needed else (section, needed)
        if part and (beside is None or part not in beside):
            continue
        # As JSON has it: ml_collections cannot freeze an empty list beside an empty tuple.
        section[name] = list(value) if isinstance(value, tuple) else value
        added.append(f'{field}={value!r}')
    return config, f'config of an earlier version; added {", ".join(added)}' if added else ''


def _place(config: dict[str, Any], field: str) -> tuple[dict[str, Any] | None, str]:
    """The section that a field is in, None if the config does not have it; and its last name."""
    *path, name = field.split('.')
    section = config
    for part in path:
        section = section.get(part)
        if not isinstance(section, dict):
            return None, name
    return section, name


def _copied(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copied(x) if isinstance(x, Mapping) else x for k, x in tree.items()}
