"""Which patches and which tokens are masked. All shapes are static, so everything jits."""

import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from semmim_jax.ops.special_tokens import SpecialTokens


class MaskedTokens(NamedTuple):
    """Input and labels of masked language modelling; m is the fixed number of label slots."""

    ids: jax.Array  # [b, t] int32, with [MASK], random and kept tokens
    positions: jax.Array  # [b, m] int32
    labels: jax.Array  # [b, m] int32, the original ids at `positions`
    weights: jax.Array  # [b, m] float32, 0 for slots not in use


class ReplacedWords(NamedTuple):
    """A caption with inner tokens replaced by [MASK]; m is the number of draws of a longest one."""

    ids: jax.Array  # [b, t] int32
    positions: jax.Array  # [b, m] int32
    weights: jax.Array  # [b, m] float32, 0 for slots not in use and for positions drawn before


class Shift(NamedTuple):
    """Pairs for matching: which row's text each row's image is paired with."""

    rows: jax.Array  # [b] int32
    matches: jax.Array  # [b] bool, whether it is the row's own
    weights: jax.Array  # [b] float32, 0 where another row turned out to have the same image


def patch_count(ratio: float, patches: int) -> int:
    """Number of masked patches: round(ratio * patches), at least one, at least one left.

    See docs/method.md section 3.
    """
    return min(max(round(ratio * patches), 1), patches - 1)


def top_patches(scores: jax.Array, count: int) -> jax.Array:
    """The `count` patches of highest score in each row, ascending: [b, n] -> [b, count] int32."""
    chex.assert_rank(scores, 2)
    _, chosen = jax.lax.top_k(scores, count)
    return jnp.sort(chosen, axis=-1)


def strided_share(count: int, share: float) -> np.ndarray:
    """A share of `count` rows, spread evenly: bool [count], the same at every call.

    Of the first r rows floor(r * share) are chosen, whatever r is.
    """
    chosen = np.floor(np.arange(count + 1) * share + 1e-6)
    return np.asarray(np.diff(chosen) > 0)


def masked_first(patches: jax.Array, count: int) -> jax.Array:
    """All `count` patches of each image, the masked ones before the visible ones, each ascending.

    Args:
      patches: [b, p] int32, the masked ones, ascending.
      count: patches of an image.

    Returns:
      [b, count] int32.
    """
    rows = jnp.arange(len(patches))[:, None]
    visible = jnp.ones((len(patches), count), bool).at[rows, patches].set(False)
    return jnp.argsort(visible, axis=1, stable=True)


def select_patches(
    key: jax.Array, relevance: jax.Array, *, count: int, temperature: float
) -> jax.Array:
    """Masks the `count` patches that win Gumbel-top-k on relevance / temperature.

    A temperature near 0 is a hard top-k on relevance, an infinite one is a uniformly random choice
    (docs/method.md section 3; decision of ours, the paper's form is not known).

    Args:
      key: PRNG key.
      relevance: [b, n], any real numbers.
      count: number of patches to mask, the same in every image.
      temperature: of the choice, > 0 (`math.inf` allowed).

    Returns:
      [b, count] int32 patch indices in ascending order.
    """
    scores = relevance.astype(jnp.float32) / temperature + jax.random.gumbel(key, relevance.shape)
    return top_patches(scores, count)


def block_scores(key: jax.Array, *, batch: int, grid: int, count: int, min_area: int) -> jax.Array:
    """Scores whose top `count` patches form rectangular blocks (BEiT, iBOT).

    See docs/method.md section 3.

    Blocks of at least `min_area` patches with a log-uniform aspect in (0.3, 1 / 0.3) are drawn
    until the count is reached, as in BEiT. What is left over after a fixed number of tries is
    filled with patches in random order, so that every image has the same count (ours: shapes stay
    static).

    Args:
      key: PRNG key.
      batch, grid: number of images, and of patches along one side.
      count: patches to mask.
      min_area: smallest block, in patches, before its sides are rounded.

    Returns:
      [batch, grid * grid] float32, larger is masked first; for `top_patches`.
    """
    tries = 40
    log_aspect = math.log(1 / 0.3)
    rows = jnp.arange(grid)[:, None]  # [g, 1]
    columns = jnp.arange(grid)[None, :]  # [1, g]

    def add_block(mask: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
        area_key, aspect_key, top_key, left_key = jax.random.split(key, 4)
        remaining = count - mask.sum()
        largest = jnp.maximum(min_area, remaining)
        area = jax.random.uniform(area_key, minval=min_area, maxval=largest)
        aspect = jnp.exp(jax.random.uniform(aspect_key, minval=-log_aspect, maxval=log_aspect))
        height = jnp.round(jnp.sqrt(area * aspect)).astype(int)
        width = jnp.round(jnp.sqrt(area / aspect)).astype(int)
        top = jax.random.randint(top_key, (), 0, jnp.maximum(grid - height + 1, 1))
        left = jax.random.randint(left_key, (), 0, jnp.maximum(grid - width + 1, 1))
        block = (rows >= top) & (rows < top + height) & (columns >= left) & (columns < left + width)
        added = (block & ~mask).sum()
        fits = (height < grid) & (width < grid) & (added > 0) & (added <= remaining)
        return jnp.where(fits, mask | block, mask), None

    def one_image(key: jax.Array) -> jax.Array:
        blocks_key, fill_key = jax.random.split(key)
        empty = jnp.zeros((grid, grid), bool)
        mask, _ = jax.lax.scan(add_block, empty, jax.random.split(blocks_key, tries))
        return mask.astype(jnp.float32) + jax.random.uniform(fill_key, (grid, grid))

    return jax.vmap(one_image)(jax.random.split(key, batch)).reshape(batch, grid * grid)


def mask_tokens(
    key: jax.Array,
    ids: jax.Array,
    *,
    probability: float,
    max_masked: int,
    special: SpecialTokens,
) -> MaskedTokens:
    """BERT's token masking with a fixed number of label slots (docs/method.md section 5).

    Each token but [PAD] and [CLS] is chosen with `probability`; at least one and at most
    `max_masked` in a row, the surplus being dropped at random. Of the chosen, 80% become [MASK],
    10% a random id, 10% stay.

    Args:
      key: PRNG key.
      ids: [b, t] int32.
      probability: of a token being chosen.
      max_masked: label slots m.
      special: of the tokenizer.

    Returns:
      `MaskedTokens`.
    """
    choice_key, kind_key, random_key = jax.random.split(key, 3)
    allowed = (ids != special.pad) & (ids != special.cls)  # [b, t]
    draw = jnp.where(allowed, jax.random.uniform(choice_key, ids.shape), jnp.inf)
    # A smaller draw is a more certain choice: the order serves the cap, the least one the minimum.
    negative, positions = jax.lax.top_k(-draw, max_masked)  # [b, m]
    used = (-negative < probability) | (jnp.arange(max_masked) == 0)
    used &= jnp.isfinite(negative)
    labels = jnp.take_along_axis(ids, positions, axis=1)  # [b, m]
    kind = jax.random.uniform(kind_key, positions.shape)
    random_ids = jax.random.randint(random_key, positions.shape, 0, special.vocab_size, ids.dtype)
    replaced = jnp.where(kind < 0.8, special.mask, jnp.where(kind < 0.9, random_ids, labels))
    rows = jnp.arange(ids.shape[0])[:, None]
    masked = ids.at[rows, positions].set(jnp.where(used, replaced, labels))
    return MaskedTokens(masked, positions, labels, used.astype(jnp.float32))


def hard_negatives(
    key: jax.Array, similarity: jax.Array, ids: jax.Array, *, parts: int = 1
) -> tuple[jax.Array, jax.Array]:
    """Draws one hard negative a row from softmax(similarity), never the pair itself.

    See docs/method.md section 5.

    Sampling is by Gumbel-max on the logits, hence in log space: no temperature overflows.

    Args:
      key: PRNG key.
      similarity: [b, b] logits, rows against candidates (cosine / temperature).
      ids: [b] image ids; candidates with the row's own id are excluded (duplicates included).
      parts: the batch is this many parts of equal length, and a row's candidates are its own part.

    Returns:
      index [b] int32 of the drawn candidate, valid [b] bool: whether the row had any candidate.
    """
    part = jnp.arange(len(ids)) // (len(ids) // parts)
    allowed = (ids[:, None] != ids[None, :]) & (part[:, None] == part[None, :])  # [b, b]
    logits = jnp.where(allowed, similarity.astype(jnp.float32), -jnp.inf)
    best = logits.max(axis=1, keepdims=True)
    logits -= jnp.where(jnp.isfinite(best), best, 0.0)  # a row without candidates is all -inf
    noise = jax.random.gumbel(key, similarity.shape)
    return jnp.argmax(logits + noise, axis=1), allowed.any(axis=1)


def kept_count(ratio: float, patches: int) -> int:
    """Number of patches that are left of a masked image: int(patches * (1 - ratio)).

    In floating point, as SCL has it: of 100 patches at 0.8 19 are left (docs/method.md section 9).
    """
    return int(patches * (1 - ratio))


def kept_patches(key: jax.Array, *, batch: int, patches: int, ratio: float) -> jax.Array:
    """Patches of each image that stay when a share `ratio`, drawn at random, is dropped.

    Returns:
      [batch, kept_count(ratio, patches)] int32 in ascending order.
    """
    return random_patches(key, batch=batch, patches=patches, count=kept_count(ratio, patches))


def random_patches(key: jax.Array, *, batch: int, patches: int, count: int) -> jax.Array:
    """`count` patches of each image, drawn uniformly: [batch, count] int32, ascending."""
    return top_patches(jax.random.uniform(key, (batch, patches)), count)


def replaced_words(
    key: jax.Array, ids: jax.Array, *, ratio: float, special: SpecialTokens
) -> ReplacedWords:
    """Replaces int(ratio * inner tokens) + 1 draws of inner tokens, with replacement, by [MASK].

    Inner are those between the first and the last token of a caption; one that has none stays as it
    is (SCL; docs/method.md section 9).

    Args:
      key: PRNG key.
      ids: [b, t] int32, `[CLS] words [SEP] [PAD]...`.
      ratio: draws as a share of the inner tokens.
      special: of the tokenizer.
    """
    inner = jnp.maximum((ids != special.pad).sum(axis=1) - 2, 0)  # [b]
    draws = [0] + [int(count * ratio) + 1 for count in range(1, ids.shape[1] - 1)]
    used = jnp.arange(max(draws)) < jnp.array(draws)[inner][:, None]  # [b, m]
    positions = jax.random.randint(key, used.shape, 1, jnp.maximum(inner, 1)[:, None] + 1)
    same = (positions[:, :, None] == positions[:, None]) & used[:, None]  # [b, m, m]
    drawn_before = jnp.tril(same, -1).any(axis=2)
    rows = jnp.arange(len(ids))[:, None]
    masked = jnp.zeros(ids.shape, bool).at[rows, positions].max(used)
    weights = (used & ~drawn_before).astype(jnp.float32)
    return ReplacedWords(jnp.where(masked, special.mask, ids), positions, weights)


def random_shift(key: jax.Array, ids: jax.Array) -> Shift:
    """Half of the rows (rounded down), at random, keep their pair; the others get another row's.

    That row stands a random number of places further, the same for all, in a circle
    (docs/method.md section 9).

    Args:
      key: PRNG key.
      ids: [b] image ids; a pair with a row of the same image has no weight.
    """
    shift_key, half_key = jax.random.split(key)
    batch, rows = len(ids), jnp.arange(len(ids))
    others = (rows + jax.random.randint(shift_key, (), 1, max(batch, 2))) % batch
    matches = jax.random.permutation(half_key, rows) < batch // 2
    weights = matches | (ids != ids[others])
    return Shift(jnp.where(matches, rows, others), matches, weights.astype(jnp.float32))
