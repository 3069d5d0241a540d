"""Word grounding in PyTorch: which word of a text each patch resembles.

The words are those of the run's captions, in lexicon.json: single tokens, and names of several.
Letters in shapes as in the module that imports this one; w words, p tokens of a word.
"""

import json
import math
import pathlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional


class Lexicon:
    """Cuts the ids of a text into words, and knows how rare each is."""

    def __init__(self, path: str | pathlib.Path):
        value = json.loads(pathlib.Path(path).read_text('utf-8'))
        self.skipped, self.captions = set(value['skipped']), value['captions']
        self.places, self.max_tokens = value['places'], value['max_tokens']
        self.counts: dict[tuple[int, ...], int]
        self.counts = {(token,): count for token, count in enumerate(value['counts'])}
        self.counts |= {tuple(name['tokens']): name['captions'] for name in value['names']}
        self.names = sorted((n for n in self.counts if len(n) > 1), key=lambda n: (-len(n), n))

    def words(self, ids: list[int]) -> Iterator[tuple[int, ...]]:
        """The token ids of each word, from the left; of two names that fit the longer."""
        at = 0
        while at < len(ids):
            fits = (name for name in self.names if tuple(ids[at : at + len(name)]) == name)
            word = next(fits, (ids[at],))
            at += len(word)
            if ids[at - len(word)] not in self.skipped:
                yield word

    def __call__(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids of the words of ids [b, t], [b, w, p], -1 for none; and rarity [b, w]."""
        tokens = torch.full((len(ids), self.places, self.max_tokens), -1)
        rarity = torch.zeros(len(ids), self.places)
        for text, row in enumerate(ids.tolist()):
            for place, word in enumerate(self.words(row)):
                tokens[text, place, : len(word)] = torch.tensor(word)
                share = (self.counts[word] + 1) / (self.captions + 1)
                rarity[text, place] = -math.log(share)
        return tokens.to(ids.device), rarity.to(ids.device)


class Grounding(nn.Module):
    """Adds to each patch the words that it resembles."""

    def __init__(self, image_width: int, width: int, embed_dim: int):
        super().__init__()
        self.patch_projection = nn.Linear(image_width, embed_dim)
        self.word_projection = nn.Linear(width, embed_dim)
        self.injection = nn.Linear(width, width)

    def attention(
        self,
        patches: Tensor,
        vectors: Tensor,
        valid: Tensor,
        rarity: Tensor,
        *,
        temperature: float,
        rarity_weight: float,
    ) -> Tensor:
        """How much each patch reads of each word: [b, n, d], [b, w, d], [b, w] -> [b, n, w]."""
        patches = functional.normalize(self.patch_projection(patches).float(), dim=-1)
        words = functional.normalize(self.word_projection(vectors).float(), dim=-1)
        logits = patches @ words.mT / temperature + rarity_weight * rarity[:, None]
        logits = logits.masked_fill(~valid[:, None], -1e9)
        return logits.softmax(-1) * valid[:, None]

    def forward(self, tokens: Tensor, attention: Tensor, vectors: Tensor, scale: float) -> Tensor:
        """Tokens [b, n, d] with the words [b, w, d] that they read added to them."""
        vectors = functional.normalize(vectors, dim=-1) * vectors.shape[-1] ** 0.5
        words: Tensor = attention.to(tokens.dtype) @ self.injection(vectors)
        return tokens + scale * words


def word_vectors(embeddings: Tensor, tokens: Tensor) -> Tensor:
    """Mean embedding of each word's tokens: [v, d] and ids [b, w, p] -> [b, w, d]."""
    valid = (tokens >= 0)[..., None]
    total = (embeddings[tokens.clamp(min=0)] * valid).sum(-2)
    return total / valid.sum(-2).clamp(min=1)
