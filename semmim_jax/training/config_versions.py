"""Configs of earlier commits: missing fields get the value that keeps the old behaviour."""

from collections.abc import Mapping
from typing import Any

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
}
_ONLY_OF = {'task.alpha_ramp_share': 'alpha', 'task.tau_teacher_share': 'tau_student'}
# Fields with another name now.
RENAMED = {
    'data.image_root': 'data.captions.image_root',
    'train.microbatches': 'train.accumulate',
    'init.weights': 'init_from',
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
    for field, value in ADDED.items():
        section, name = _place(config, field)
        needed = _ONLY_OF.get(field)
        if section is None or name in section or needed and needed not in section:
            continue
        section[name] = value
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
