"""What a completion config asks for, and the random choices of a step."""

from typing import Any, NamedTuple

import jax

from semmim_jax.models.vit import patches_a_side
from semmim_jax.ops import masking, rows
from semmim_jax.ops.special_tokens import SpecialTokens
from semmim_jax.ops.streams import stream

LOSSES = ('itm', 'mlm', 'contrast', 'completion', 'local')
# Passes that drop elements, each by keys of its own.
TEXTS = ('clean', 'mlm', 'replaced')
FUSIONS = ('image', 'itm', 'mlm', 'replaced', 'kept', 'hidden')


class Plan:
    """A checked `config.task` with what follows from it (docs/method.md section 9).

    Attributes:
      config: `config.task`.
      special: the tokenizer's special ids.
      frames: of an example.
      patches: of a frame.
      hidden_count: patches that the learned vector stands for.
      active: names of the losses whose weight is above 0; the passes of others do not run.
      completes: whether the two passes run that half of the input is missing from.
      shares_first: whether what the first fusion layer makes of an image alone is computed once.
      dropout: the rate.
      slices: in how many slices of its rows a batch goes through the model.

    Raises:
      ValueError: for a number out of range.
    """

    def __init__(self, config: Any, special: SpecialTokens):
        self.config = c = config.task
        self.special = special
        self.frames = config.data.frames
        self.patches = patches_a_side(config.model.image) ** 2
        self.hidden_count = int(c.local_ratio * self.patches)
        self.active = {name for name in LOSSES if c.weights[name] > 0}
        self.completes = bool(self.active & {'completion', 'local'})
        self.shares_first = c.share_first_layer
        self.dropout = config.model.dropout
        self.slices = config.train.accumulate
        self._check(config)

    def draw(self, key: jax.Array, ids: jax.Array, image_id: jax.Array, *, train: bool) -> 'Draws':
        """The random choices of a step for captions [b, t]; nothing is dropped out of training."""
        c, batch = self.config, len(ids)
        places = dict(batch=batch, patches=self.patches)
        masked = masking.mask_tokens(
            stream(key, 'mlm'),
            ids,
            probability=c.mlm_probability,
            max_masked=min(c.max_masked, ids.shape[1]),
            special=self.special,
        )
        dropout = None
        if train and self.dropout:
            names = [*(f'text {name}' for name in TEXTS), *(f'fusion {name}' for name in FUSIONS)]
            dropout = {
                name: jax.random.split(stream(key, f'dropout, {name}'), batch) for name in names
            }
        return Draws(
            valid=ids != self.special.pad,
            masked=masked,
            replaced=masking.replaced_words(
                stream(key, 'words'), ids, ratio=c.text_ratio, special=self.special
            ),
            kept=masking.kept_patches(stream(key, 'patches'), ratio=c.image_ratio, **places),
            hidden=masking.random_patches(stream(key, 'local'), count=self.hidden_count, **places),
            pairs=masking.random_shift(stream(key, 'pairs'), image_id),
            dropout=dropout,
        )

    def group(self, name: str, batch: int) -> int:
        """`task.group` or `task.patch_group` for a batch; an evaluation's may not divide: all."""
        size = self.config[name]
        return size if size and batch % size == 0 else 0

    def _check(self, config: Any) -> None:
        c = self.config
        if not self.active:
            raise ValueError('task.weights: no loss has a weight above 0')
        for name in ('image_ratio', 'text_ratio', 'local_ratio'):
            if not 0 < c[name] < 1:
                raise ValueError(f'task.{name}={c[name]} must be between 0 and 1')
        if not masking.kept_count(c.image_ratio, self.patches):
            raise ValueError(f'task.image_ratio={c.image_ratio} keeps no patch of {self.patches}')
        if 'local' in self.active and not self.hidden_count:
            raise ValueError(f'task.local_ratio={c.local_ratio} hides no patch of {self.patches}')
        for name in ('group', 'patch_group'):
            if c[name] and config.train.batch_size % c[name]:
                raise ValueError(
                    f'task.{name}={c[name]} does not divide '
                    f'train.batch_size={config.train.batch_size}'
                )
        check_frames(config)
        if config.train.collapse_alarm:
            raise ValueError(
                f'train.collapse_alarm={config.train.collapse_alarm}: there are no codes, use 0'
            )
        if config.model.fusion_depth < 2:
            raise ValueError(
                f'model.fusion_depth={config.model.fusion_depth}: completion needs 2 or more, the '
                'first for all texts of an image at once, the last at some positions'
            )


def check_frames(config: Any) -> None:
    """Raises ValueError if an example has more frames than the tower has places in time."""
    frames, places = config.data.frames, config.model.image.frames
    if frames > places:
        raise ValueError(f'data.frames={frames} are more than model.image.frames={places}')


class Draws(NamedTuple):
    """The random choices of a step."""

    valid: jax.Array  # [b, t] bool, tokens that are not padding
    masked: masking.MaskedTokens  # for MLM
    replaced: masking.ReplacedWords  # for completion
    kept: jax.Array  # [b, k] int32, patches that are left of the masked image
    hidden: jax.Array  # [b, p] int32, patches that the learned vector stands for
    pairs: masking.Shift | None
    dropout: dict[str, jax.Array] | None  # name of a pass -> keys [b]

    def keys(self, *passes: str) -> jax.Array | None:
        """Dropout keys of passes whose rows are joined, [b g]; None where nothing is dropped."""
        if self.dropout is None:
            return None
        return rows.join([self.dropout[name] for name in passes])

    def by_row(self) -> 'Draws':
        """Without what refers to other rows: the rest can be cut into slices."""
        return self._replace(pairs=None)
