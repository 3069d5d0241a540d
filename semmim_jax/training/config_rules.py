"""The allowed values of a config: a mistake is named before anything is built.

Rules go by the last part of a key, in every experiment: a width is a width wherever it stands.
"""

import itertools
import math
from typing import Any

from jax.sharding import Mesh

from semmim_jax.training.sharding import check_batch_sizes


def _whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _numbers(value: Any, count: int) -> bool:
    return len(value) == count and all(map(math.isfinite, value))


MOST = 2**31 - 1
# What a value must be in words, the same as a function, the keys that it goes for.
TABLE = (
    (
        'a whole number from 1 to 2**31 - 1',
        lambda x: _whole(x, 1, MOST),
        'image_size patch_size canvas width heads mlp_width max_positions embed_dim hidden '
        'bottleneck codes queue_size batch_size accumulate k_test log_every save_every keep '
        'frames max_words max_pixels max_masked block_min_patches min_answer_count images beams '
        'max_length max_skipped_in_a_row samples vocab_min_count probe_images',
    ),
    (
        'a whole number from 0 to 2**31 - 1',
        lambda x: _whole(x, 0, MOST),
        'steps warmup_steps alpha_ramp_steps tau_teacher_steps images_every every workers prefetch '
        'ops rank rollbacks references no_repeat_ngram pattern_images pattern_set_images '
        'group patch_group false_texts',
    ),
    ('a whole number from -1 to 2**31 - 1', lambda x: _whole(x, -1, MOST), 'min_length'),
    # What is unrolled.
    ('from 1 to 100', lambda x: _whole(x, 1, 100), 'sinkhorn_iterations'),
    (
        'from 1 to 1000',
        lambda x: _whole(x, 1, 1000),
        'depth fusion_depth decoder_depth predictor_depth',
    ),
    ('from 1 to 10**7', lambda x: _whole(x, 1, 10**7), 'vocab_size vocab_limit'),
    (
        'at least 3, for [CLS], a word and [SEP]',
        lambda x: _whole(x, 3, MOST),
        'max_tokens max_target_tokens',
    ),
    ('at least 2, for [CLS] and [SEP]', lambda x: _whole(x, 2, MOST), 'max_prompt_tokens'),
    ('at least 2', lambda x: _whole(x, 2, MOST), 'classes corpus'),
    ('from 0 to 2**32 - 1', lambda x: _whole(x, 0, 2**32 - 1), 'seed'),
    ('a whole number from 0 to 255', lambda x: _whole(x, 0, 255), 'fill'),
    ('from 0 to 10', lambda x: 0 <= x <= 10, 'level'),
    (
        'from 0 to 1',
        lambda x: 0 <= x <= 1,
        'alpha mlm_probability prob centre_momentum ema ema_end max_replaced held_out_pairs '
        'max_overlap min_cover collapse_alarm alpha_ramp_share tau_teacher_share warmup_share '
        'tau_share kl_share',
    ),
    ('at least 0 and below 1', lambda x: 0 <= x < 1, 'b1 b2 smoothing dropout'),
    (
        'at least 0, and finite',
        lambda x: 0 <= x < math.inf,
        'lr text_lr image_lr fusion_lr temperature_lr end_lr weight_decay clip_norm '
        'itc itm mlm prefix agreement mim contrast completion ranking length_penalty epochs '
        'kl_weight position_stddev temporal_stddev',
    ),
    (
        'above 0, and finite',
        lambda x: 0 < x < math.inf,
        'temperature tau_student tau_teacher_start tau_teacher_end eps fusion_epsilon seconds '
        'factor phase_seconds tau_start tau_end',
    ),
    ('above 0', lambda x: x > 0, 'mask_temperature'),  # inf masks at random
    ('cosine or linear', lambda x: x in ('cosine', 'linear'), 'schedule'),
    ('log_odds or match_logit', lambda x: x in ('log_odds', 'match_logit'), 'rerank'),
    ('memory or disk', lambda x: x in ('memory', 'disk'), 'index'),
    (
        'two shares, the smaller first',
        lambda x: _numbers(x, 2) and 0 < x[0] <= x[1] <= 1,
        'crop_scale small medium large',
    ),
    ('three numbers', lambda x: _numbers(x, 3), 'pixel_mean'),
    ('three numbers above 0', lambda x: _numbers(x, 3) and min(x) > 0, 'pixel_std'),
)
RULES = {name: (words, holds) for words, holds, names in TABLE for name in names.split()}


def check_config(config: Any, mesh: Mesh) -> None:
    """Refuses a resolved config that cannot be trained; see assembly.py.

    What a task wants of its own fields, it checks when it is made.

    Args:
      config: the experiment.
      mesh: of the devices that it is for.

    Raises:
      ValueError: naming the key.
    """
    check_ranges(config)
    text = config.model.text
    if config.data.max_tokens + text.position_offset > text.max_positions:
        raise ValueError(
            f'data.max_tokens={config.data.max_tokens} from row model.text.position_offset='
            f'{text.position_offset} on do not fit model.text.max_positions={text.max_positions}'
        )
    _check_text_buckets(config.data)
    if config.eval.params not in ('ema', 'online'):
        raise ValueError(f'eval.params={config.eval.params!r} is none of ema, online')
    check_batch_sizes(config, mesh)


def _check_text_buckets(data: Any) -> None:
    lengths = (2, *data.text_buckets, data.max_tokens)
    whole = all(_whole(length, 2, MOST) for length in lengths)
    if not whole or any(a >= b for a, b in itertools.pairwise(lengths)):
        raise ValueError(
            f'data.text_buckets={tuple(data.text_buckets)}: must be ascending numbers of tokens, '
            f'from 3 to below data.max_tokens={data.max_tokens}, or ()'
        )


def check_ranges(config: Any, prefix: str = '') -> None:
    """Raises ValueError that names the first key of a config whose value breaks its rule."""
    for name, value in config.items():
        if name == 'sharding':  # names of axes, some of which are names of sizes too
            continue
        if hasattr(value, 'items'):
            check_ranges(value, f'{prefix}{name}.')
        elif name in RULES and not _holds(name, value):
            raise ValueError(f'{prefix}{name}={value!r:.100}: must be {RULES[name][0]}')


def _holds(name: str, value: Any) -> bool:
    try:
        return RULES[name][1](value)
    except (TypeError, ValueError):  # a string, one number for two; too long an integer
        return False
