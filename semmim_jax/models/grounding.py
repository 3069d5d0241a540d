"""Word grounding: which word of its caption each patch resembles (docs/method.md section 4).

A word is the mean of its tokens' embeddings, without context. So a patch can learn the names of
what it shows, and a caption reaches a patch through those names only.
"""

from typing import NamedTuple, NotRequired, TypedDict

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from semmim_jax.models.dense import dot_general
from semmim_jax.models.layers import INIT_STDDEV, LAST_DENSE, dense, param_init
from semmim_jax.models.platform import DenseForm
from semmim_jax.ops.products import HIGHEST
from semmim_jax.ops.unit import unit

WORD_FIELDS = 'words', 'word_tokens', 'rarity'  # of a batch, in the order of `Words`


class Words(NamedTuple):
    """The words of captions, as `data.lexicon.Lexicon` has them."""

    entries: jax.Array  # [b, w] int32, which entry of the lexicon; -1: no word
    tokens: jax.Array  # [b, w, p] int32, its token ids; -1: fewer than p tokens
    rarity: jax.Array  # [b, w] float32, -log of the share of the corpus's captions that have it

    @property
    def valid(self) -> jax.Array:
        """Which are words: [b, w] bool."""
        return self.entries >= 0


class WordChoice(TypedDict):
    """How a patch chooses among the words of its caption: options of `Grounding.attention`."""

    temperature: float
    rarity: float
    null: NotRequired[bool]


class NullWord(nn.Module):
    """The learned word that a patch reads where none of its caption's fits.

    See docs/method.md section 4.
    """

    @nn.compact
    def __call__(self, patches: jax.Array) -> jax.Array:
        """Unit features [..., e] -> cosines [..., 1], float32."""
        normal = nn.initializers.normal(INIT_STDDEV)
        direction = self.param('direction', param_init(normal, None), (patches.shape[-1],))
        return jnp.einsum('...e,e->...', patches, unit(direction), precision=HIGHEST)[..., None]


class Grounding(nn.Module):
    """Compares patches with words, and adds to each patch the words that it resembles.

    Attributes:
      embed_dim: of the space in which they are compared.
      width: of the tokens that words are added to.
      dtype: of that addition.
      dense: form of the product in `presence`, see models/platform.py.
    """

    embed_dim: int
    width: int
    dtype: DTypeLike
    dense: DenseForm = 'xla'

    def setup(self) -> None:
        """Makes the projections."""
        self.patch_projection = dense(self.embed_dim, ('embed', None), **LAST_DENSE)
        self.word_projection = dense(self.embed_dim, ('embed', None), **LAST_DENSE)
        self.injection = dense(self.width, ('embed', None), dtype=self.dtype)
        self.null_word = NullWord()

    def patches(self, patches: jax.Array) -> jax.Array:
        """Patch tokens [..., d] -> unit features [..., e], float32."""
        return unit(self.patch_projection(patches))

    def words(self, vectors: jax.Array) -> jax.Array:
        """Word vectors [..., d] -> unit features [..., e], float32."""
        return unit(self.word_projection(vectors))

    def presence(self, patches: jax.Array, vectors: jax.Array, *, pool: float) -> jax.Array:
        """How much each word is somewhere in an image: log-mean-exp of its cosine over patches.

        See docs/method.md section 4.

        Args:
          patches: [b, n, d] of the image tower.
          vectors: [u, d] of any words.
          pool: temperature; towards 0 the best patch alone counts.

        Returns:
          [b, u] float32.
        """
        features, of_words = self.patches(patches), self.words(vectors)
        if self.dense == 'cpu':  # writes no transpose of the cosines, backwards neither
            cosines = dot_general(features, of_words.T, (((2,), (0,)), ((), ())))
        else:
            cosines = jnp.einsum('bne,ue->bnu', features, of_words, precision=HIGHEST)
        count = cosines.shape[1]
        return pool * (jax.nn.logsumexp(cosines / pool, axis=1) - jnp.log(count))

    def attention(
        self,
        patches: jax.Array,
        vectors: jax.Array,
        words: Words,
        *,
        temperature: float,
        rarity: float,
        null: bool = False,
    ) -> jax.Array:
        """Which words of its caption each patch reads (docs/method.md section 4).

        Args:
          patches: [b, n, d] of the image tower.
          vectors: [b, w, d] of the words.
          words: of the captions.
          temperature: of the softmax over cosines.
          rarity: weight of a word's rarity.
          null: whether a patch may choose a learned word of no caption instead, and read nothing.

        Returns:
          [b, n, w] float32; each patch's weights sum to 1, less what the null word has, or are 0
          where a caption has no word.
        """
        features, of_words = self.patches(patches), self.words(vectors)
        cosines = jnp.einsum('bne,bwe->bnw', features, of_words, precision=HIGHEST)
        logits = cosines / temperature + rarity * words.rarity[:, None]
        valid = words.valid[:, None]  # [b, 1, w]
        logits = jnp.where(valid, logits, -1e9)
        if null:
            logits = jnp.concatenate([logits, self.null_word(features) / temperature], axis=-1)
        return jax.nn.softmax(logits, axis=-1)[..., : valid.shape[-1]] * valid

    def inject(
        self, tokens: jax.Array, attention: jax.Array, vectors: jax.Array, *, scale: float
    ) -> jax.Array:
        """Adds to each patch the words that it reads (docs/method.md section 4).

        Word embeddings are short beside image tokens; brought to the length of a normalised token,
        sqrt(d), times `scale`, they show.

        Args:
          tokens: [b, n, d'] in the fusion encoder's width.
          attention: [b, n, w].
          vectors: [b, w, d].
          scale: of the words beside a patch of unit variance.

        Returns:
          [b, n, d'].
        """
        vectors = unit(vectors) * vectors.shape[-1] ** 0.5
        read = jnp.einsum('bnw,bwd->bnd', attention.astype(self.dtype), self.injection(vectors))
        return tokens + scale * read
