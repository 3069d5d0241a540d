"""What a pre-training config asks for, and the random choices that teacher and student share."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from semmim_jax.models import dvae
from semmim_jax.models.grounding import WORD_FIELDS, Words
from semmim_jax.models.vit import patches_a_side
from semmim_jax.ops import masking, prefix, rows
from semmim_jax.ops.special_tokens import SpecialTokens
from semmim_jax.ops.streams import stream

LOSSES = (
    *('itc', 'itm', 'mlm', 'prefix', 'agreement', 'mim'),
    *('words', 'local', 'clustering', 'gram', 'koleo'),
)
OF_TARGETS = ('mim', 'mim_visible', 'mim_second', 'local')  # losses against patches' targets
CODES = ('semantic', 'semantic_separate_head', 'clustered')  # targets in the encoding space
ONE_VIEW = ('single', 'masked')  # `views` where student and teacher see the same one
INJECTIONS = ('words', 'cross_attention', 'global', 'none')
MASKINGS = ('words', 'similarity', 'cross_attention', 'random', 'block', 'similarity_inverse')
CHOICES = {
    'views': ('crossed', 'same', 'single', 'masked'),
    'balance': ('sinkhorn', 'centring'),
    'itm_negatives': ('global', 'local'),
    'global_features': ('cls', 'stable'),
    'mim.target': (*CODES, 'dvae', 'feature', 'pixel', 'none'),
    'mim.masking': MASKINGS,
    'mim.balance_over': ('masked', 'all', 'position'),
    'mim.assign': ('soft', 'hard'),
    'mim.second_target': ('none', 'feature', 'pixel'),
    'mim.inject_student': INJECTIONS,
    'mim.inject_teacher': INJECTIONS,
}

RANGES = {  # of fields of `task.mim`
    'tau_prototypes': (1e-4, math.inf),
    'tau_assignment': (1e-4, math.inf),
    'marginal_power': (0, 1),
    'visible_weight': (0, math.inf),
    'second_weight': (0, math.inf),
    'start_share': (0, 1),
    'sample_share': (0, 1),
    'text_share': (0, 1),
}


class Plan:
    """A checked `config.task` with what follows from it (docs/method.md section 2).

    Attributes:
      config: `config.task`.
      special: the tokenizer's special ids.
      max_tokens: of a caption.
      grid: patches along one side of the image.
      patch_size: pixels.
      mask_count: patches masked in every image.
      active: names of the losses whose weight is above 0; the passes of others do not run.
      masks: whether patches of view 1 are chosen: for MIM, or for other losses.
      masked_view: whether the student sees view 1 without them.
      drops: whether it then computes the other patches alone, and predicts the masked ones later.
      joins_masked: whether the masked view goes through the tower together with the full ones.
      shared_towers: whether the teacher reads what the student's towers give of view 1.
      has_targets: whether they have targets.
      has_codes: whether these targets are codes of the encoding space.
      has_tokens: whether they are tokens of a discrete VAE.
      visible: whether visible patches have a loss too.
      second: whether masked patches have a second target.
      all_targets: whether visible patches have targets.
      separate_head: whether patches have an encoding head of their own.
      reads_words: whether anything asks for the words of the captions.
      pairs: (number of the teacher's view, student's view by name) of each direction of the
        agreement.
      agrees_masked: whether the student's side of the agreement is the masked view.
      full_view: what the student sees in ITC, ITM, MLM and PrefixLM: 'view1' or 'view2' in full,
        or view 1 'masked'.
      mim_start: step from which on the losses against patches' targets count.
      slices: in how many slices of its rows a batch goes through the model.

    Raises:
      ValueError: for an option that is none of its choices, or a number out of range.
    """

    def __init__(self, config: Any, special: SpecialTokens):
        self.config = c = config.task
        self.special = special
        self.max_tokens = config.data.max_tokens
        self.patch_size = config.model.image.patch_size
        self.grid = patches_a_side(config.model.image)
        self.mask_count = masking.patch_count(c.mim.ratio, self.grid**2)
        self.active = {name for name in LOSSES if c.weights[name] > 0}
        if c.mim.target == 'none':
            self.active -= {'mim', 'local', 'gram'}
        if c.mim.target != 'clustered':
            self.active.discard('clustering')
        self.has_targets = bool(self.active & {'mim', 'local', 'clustering'})
        self.has_codes = self.has_targets and c.mim.target in CODES
        self.has_tokens = 'mim' in self.active and c.mim.target == 'dvae'
        one_view = c.views in ONE_VIEW  # which agrees with itself, masked
        masked_view = c.views == 'masked' or one_view and 'agreement' in self.active
        self.masked_view = masked_view or bool(self.active & {'mim', 'gram'})
        self.masks = self.has_targets or self.masked_view
        self.drops = self.masked_view and c.mim.drop_masked
        self.shared_towers = c.shared_towers
        self.visible = 'mim' in self.active and c.mim.visible_weight > 0
        second = c.mim.second_target != 'none' and c.mim.second_weight > 0
        self.second = 'mim' in self.active and second
        balances_all = self.has_codes and c.mim.balance_over != 'masked'
        self.all_targets = self.visible or balances_all
        self.separate_head = c.mim.target == 'semantic_separate_head'
        kinds = {c.mim.masking, c.mim.inject_student, c.mim.inject_teacher} if self.masks else set()
        self.reads_words = 'words' in self.active or 'words' in kinds
        there, back = (1, 'view2'), (2, 'view1')
        directions = ((1, 'masked'),) if one_view else (there,) if c.views == 'crossed' else (back,)
        directions = (there, back) if c.symmetric else directions
        self.pairs = directions if 'agreement' in self.active else ()
        self.agrees_masked = one_view and bool(self.pairs)
        self.full_view = {'crossed': 'view2', 'masked': 'masked'}.get(c.views, 'view1')
        apart = self.drops or self.shared_towers or c.views == 'masked'
        self.joins_masked = self.masked_view and not apart
        self.mim_start = round(c.mim.start_share * config.train.steps)
        self.slices = config.train.accumulate
        self._check(config)

    def draw(self, key: jax.Array, ids: jax.Array) -> 'Draws':
        """The random choices of a step for captions [b, t].

        They are drawn for captions of `data.max_tokens`, so that those of a batch whose padding was
        cut off (`data.text_buckets`) are the same.
        """
        c, tokens = self.config, ids.shape[1]
        missing = max(self.max_tokens - tokens, 0)
        ids = jnp.pad(ids, ((0, 0), (0, missing)), constant_values=self.special.pad)
        masked = masking.mask_tokens(
            stream(key, 'mlm'),
            ids,
            probability=c.mlm_probability,
            max_masked=min(c.max_masked, ids.shape[1]),
            special=self.special,
        )
        draws = Draws(
            valid=ids != self.special.pad,
            masked=masked,
            split=prefix.split_prefix(stream(key, 'prefix'), ids, special=self.special),
            patch_key=stream(key, 'patches'),
            negatives_key=stream(key, 'negatives'),
            **self._shares(len(ids)),
        )
        return draws.cut(tokens) if missing else draws

    def batch_words(self, places: int) -> int:
        """Most different words in a batch with so many places for words.

        As many as the lexicon has, and one for the places without a word, if that is known.
        """
        known = self.config.mim.lexicon_size
        return min(places, known + 1) if known else places

    def loss_weights(self, step: Any) -> dict[str, Any]:
        """Weight of every loss at a step; MIM's terms have names of their own."""
        weights, mim = dict(self.config.weights), self.config.mim
        weights |= {
            'mim_visible': weights['mim'] * mim.visible_weight,
            'mim_second': weights['mim'] * mim.second_weight,
        }
        if self.mim_start:
            counts = jnp.where(step >= self.mim_start, 1.0, 0.0)
            weights |= {name: counts * weights[name] for name in OF_TARGETS}
        return weights

    def picked_rows(self, batch: int) -> np.ndarray | None:
        """The rows whose masked view is computed, bool [b]: those that count; None: all.

        See docs/method.md section 6.

        Where the devices do not have equally many of them, or where a loss reads the masked views
        of all rows, all are computed, and `Draws.sampled` leaves out the others.
        """
        if not self.masked_view or 'gram' in self.active or batch % rows.shards():
            return None
        chosen = masking.strided_share(batch, self.config.mim.sample_share)
        by_part = chosen.reshape(rows.shards(), -1)
        even = bool((by_part == by_part[0]).all())
        return chosen if even and 0 < chosen.sum() < batch else None

    def _shares(self, batch: int) -> dict[str, jax.Array | None]:
        """Which rows of a batch have MIM's losses, and in which the student reads the caption."""
        mim = self.config.mim
        if not self.masks or mim.sample_share == mim.text_share == 1:
            return {'sampled': None, 'reads_text': None}
        sampled = masking.strided_share(batch, mim.sample_share)
        reads_text = np.ones(batch, bool)
        reads_text[sampled] = masking.strided_share(sampled.sum(), mim.text_share)
        return {'sampled': jnp.asarray(sampled), 'reads_text': jnp.asarray(reads_text)}

    def words(self, batch: Mapping[str, jax.Array]) -> Words | None:
        """The words of a batch's captions, where anything asks for them."""
        if not self.reads_words:
            return None
        return Words(*(batch[name] for name in WORD_FIELDS))

    def _check(self, config: Any):
        if config.train.batch_size > self.config.queue_size:
            raise ValueError(
                f'train.batch_size={config.train.batch_size} does not fit task.queue_size='
                f'{self.config.queue_size}: the queue must hold at least one batch'
            )
        for name, choices in CHOICES.items():
            value = self.config
            for part in name.split('.'):
                value = value[part]
            if value not in choices:
                raise ValueError(f'task.{name}={value!r} is none of {", ".join(choices)}')
        if self.reads_words and not config.data.lexicon.captions:
            raise ValueError(
                'task.weights.words, and the masking and injections by words, need the words of '
                'the captions: data.lexicon.captions above 0'
            )
        injected = 'mim' in self.active and self.config.mim.inject_student == 'words'
        trained = 'words' in self.active or injected
        if self.masks and self.config.mim.masking == 'words' and not trained:
            raise ValueError(
                "task.mim.masking='words': nothing trains which words a patch resembles; use "
                'task.weights.words above 0, or another masking'
            )
        if 'local' in self.active and not config.data.match_views:
            raise ValueError(
                'task.weights.local needs to know what two views share: data.match_views=True'
            )
        if 'local' in self.active and not self.has_codes:
            raise ValueError(
                'task.weights.local compares codes of the encoding space; '
                f'task.mim.target={self.config.mim.target!r} has none: use {", ".join(CODES)}, or '
                'task.weights.local=0'
            )
        one_view = self.config.views in ONE_VIEW
        if one_view and (self.config.symmetric or 'local' in self.active):
            raise ValueError(
                f'task.views={self.config.views!r} has no second view: it needs '
                'task.symmetric=False and task.weights.local=0'
            )
        if self.shared_towers and self.config.views != 'single':
            raise ValueError(
                "task.shared_towers: the student has to see the teacher's view in full, and no "
                "other: task.views='single'"
            )
        if self.second and self.config.mim.second_target == self.config.mim.target:
            raise ValueError(
                f'task.mim.second_target={self.config.mim.target!r} is task.mim.target already'
            )
        kinds = (self.config.mim.inject_student, self.config.mim.inject_teacher)
        if self.config.mim.centre_injection and 'global' in kinds:
            raise ValueError(
                "task.mim.centre_injection takes away all that 'global' injects; use another kind"
            )
        for name, (low, high) in RANGES.items():
            value = self.config.mim[name]
            if not low <= value <= high:
                raise ValueError(f'task.mim.{name}={value} must be between {low} and {high:g}')
        if self.has_tokens:
            dvae.stages(self.patch_size)
        ratio = self.config.mim.ratio
        if not 0 < ratio < 1:
            raise ValueError(f'task.mim.ratio={ratio} must be between 0 and 1')
        layers = self.config.mim.injection_layers
        if not 1 <= layers <= config.model.fusion_depth:
            raise ValueError(
                f'task.mim.injection_layers={layers} must be between 1 and '
                f'model.fusion_depth={config.model.fusion_depth}'
            )
        if not 0 <= self.config.mim.attention_layer < config.model.fusion_depth:
            raise ValueError(
                f'task.mim.attention_layer={self.config.mim.attention_layer} must be below '
                f'model.fusion_depth={config.model.fusion_depth}'
            )


class Draws(NamedTuple):
    """The random choices of a step."""

    valid: jax.Array  # [b, t] bool, tokens that are not padding
    masked: masking.MaskedTokens
    split: prefix.PrefixSplit
    patch_key: jax.Array | None
    negatives_key: jax.Array | None
    sampled: jax.Array | None  # [b] bool, which rows have MIM's losses; None: all
    reads_text: jax.Array | None  # [b] bool, whether the student reads the caption there; None: all

    def cut(self, tokens: int) -> 'Draws':
        """Without the padding from `tokens` on: slots of MLM that were there have no weight."""
        masked, split = self.masked, self.split
        return self._replace(
            valid=self.valid[:, :tokens],
            masked=masked._replace(
                ids=masked.ids[:, :tokens], positions=jnp.minimum(masked.positions, tokens - 1)
            ),
            split=jax.tree.map(lambda x: x[:, :tokens], split),
        )

    def by_row(self) -> 'Draws':
        """Without the keys: what can be cut into rows."""
        return self._replace(patch_key=None, negatives_key=None)
