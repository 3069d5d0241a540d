"""SemMIM in PyTorch. Copy this file, `semmim_torch_towers.py` (image tower, BERT),
`semmim_torch_inputs.py` (tokeniser, images) and `semmim_torch_words.py`; they need torch alone.

    model = SemMIM.load('folder')                        # of `semmim_jax.convert to-torch`
    images = ['dog.jpg', 'cat.jpg']                      # or PIL images, uint8 [h, w, 3], ...

    model.encode_image(images).feature @ model.encode_text('a dog').feature.T
    model.match(images, ['a dog', 'a cat']).softmax(-1)[:, 1]  # how well each pair fits
    model.patterns(images)[1].argmax(-1)                 # code of each patch
    model.caption(images)
    model.answer(images, ['what is it?', 'is it a cat?'])
    model.classify(images, ['what is it?', 'is it a cat?'])  # label -> probability, of each

A run has what its task trains; a call that it cannot answer is a ValueError that names the tasks
that can. Texts are written by beam search with the settings of the run, captions of pre-training
greedily.

Modules and parameters have ALBEF's names (arXiv 2107.07651); what ALBEF lacks has names of its own.
Letters in shapes: b batch, n patches, t tokens, s tokens of a context, d width, e embedding,
k encodings, v vocabulary, c classes, i images of a group.
"""

import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from semmim_jax.conversion.torch_inputs import (
    WordPiece,
    as_groups,
    as_images,
    as_pixels,
    as_texts,
    ids_of,
    pixels_of,
    read_safetensors,
    resize,
)
from semmim_jax.conversion.torch_towers import Bert, EncodingHead, VisionTransformer, unit
from semmim_jax.conversion.torch_words import Grounding, Lexicon, word_vectors

FILES = ('config.json', 'preprocessor_config.json', 'vocab.txt')


class Encoded(NamedTuple):
    """An image or a text after its tower."""

    feature: Tensor  # [b, e], unit length: for similarity
    tokens: Tensor  # [b, n + 1, d] or [b, t, d], CLS first, as the fusion encoder reads them
    mask: Tensor | None = None  # [b, t] bool, False at padding; None for images
    source: Tensor | None = None  # ids [b, t] of a text; an image's tokens in its tower's width


class SemMIM(nn.Module):
    """The model; `config` is that of config.json. Use `SemMIM.load`."""

    def __init__(self, config: dict[str, Any], tokenizer: WordPiece):
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.task = config['task']
        self.parts = config['parts']  # names of the modules below that the run has
        image, text = config['image'], config['text']
        image_width, width, embed_dim = image['width'], text['width'], config['embed_dim']

        self.visual_encoder = VisionTransformer(image)
        if 'text_encoder' in self.parts:  # the text encoder's layers, then the fusion encoder's
            layers = text['depth'] + config['fusion_depth']
            head = 'text_encoder.cls' in self.parts
            self.text_encoder = Bert(text, layers, text['depth'], head)
        if 'text_decoder' in self.parts:
            self.text_decoder = Bert(text, config['decoder_depth'], 0, True)
        if 'vision_proj' in self.parts:
            self.vision_proj = nn.Linear(image_width, embed_dim)
        if 'text_proj' in self.parts:
            self.text_proj = nn.Linear(width, embed_dim)
        if 'itm_head' in self.parts:
            self.itm_head = nn.Linear(width, 2)
        if 'cls_head' in self.parts:
            self.cls_head = nn.Sequential(
                nn.Linear(self.task['images'] * width, self.task['hidden']),
                nn.LayerNorm(self.task['hidden'], text['epsilon']),
                nn.GELU(),
                nn.Linear(self.task['hidden'], len(self.task['labels'])),
            )
        # What ALBEF lacks.
        if 'image_ids' in self.parts:  # added to the tokens of the first image, of the second, ...
            self.image_ids = nn.Parameter(torch.zeros(self.task['images'], image_width))
        if 'bridge' in self.parts:  # where the towers have different widths
            self.bridge = nn.Linear(image_width, width)
            self.bridge_norm = nn.LayerNorm(width, 1e-12)
        if 'encoding_head' in self.parts:
            self.encoding_head = EncodingHead(width, **config['encoding'])
        if 'patch_encoding_head' in self.parts:
            self.patch_encoding_head = EncodingHead(width, **config['encoding'])
        if 'text_injection' in self.parts:
            self.text_injection = nn.Linear(width, width)
        if 'grounding' in self.parts:
            self.grounding = Grounding(image_width, width, embed_dim)
        if 'pixel_head' in self.parts:
            self.pixel_head = nn.Linear(width, 3 * image['patch_size'] ** 2)
        if 'feature_head' in self.parts:
            self.feature_head = nn.Linear(width, image_width)
        self.mask_token = nn.Parameter(torch.zeros(image_width))  # for masked patches, in training
        self.temp = nn.Parameter(torch.zeros(()))
        self.lexicon: Lexicon | None = None  # of `load`, where patches read words

    @classmethod
    def load(cls, folder: str | pathlib.Path) -> 'SemMIM':
        """The model of a folder, for evaluation; ValueError or RuntimeError if anything misfits."""
        texts = [pathlib.Path(folder, name).read_text('utf-8') for name in FILES]
        config, preprocessor = json.loads(texts[0]), json.loads(texts[1])
        vocab = texts[2].split('\n')[:-1]  # the last line ends with a line break
        config['pixel_mean'] = preprocessor['image_mean']
        config['pixel_std'] = preprocessor['image_std']
        if len(vocab) != config['text']['vocab_size']:
            raise ValueError(f'{folder}/vocab.txt: {len(vocab)} tokens, not those of the model')
        with torch.device('meta'):  # shapes only: the weights come from the file
            model = cls(config, WordPiece(vocab, **config['tokens']))
        model.load_state_dict(read_safetensors(f'{folder}/model.safetensors'), assign=True)
        if 'words' in (config['patterns'] or {}):
            model.lexicon = Lexicon(pathlib.Path(folder, 'lexicon.json'))
        return model.train(False)

    # Images and texts, apart.

    def preprocess(self, image: Any) -> Tensor:
        """Resizes an image to uint8 [s, s, 3]: averages to shrink, bicubic to grow."""
        return resize(as_pixels(image), self.config['image']['image_size'])

    def pixels(self, images: Any) -> Tensor:
        """Normalised pixels [b, 3, s, s] of an image or several, as `visual_encoder` takes them."""
        return pixels_of(images, self.config, self.temp)

    def encode_image(self, images: Any) -> Encoded:
        """Encodes an image, several, or what is encoded."""
        self._need('vision_proj' in self.parts, tasks='pretrain, retrieval')
        if isinstance(images, Encoded):
            return images
        tokens = self.visual_encoder(self.pixels(images))
        feature = unit(self.vision_proj(tokens[:, 0]))
        return Encoded(feature, self._in_text_width(tokens), source=tokens)

    def encode_text(self, texts: str | list[str] | Tensor | Encoded) -> Encoded:
        """Encodes a text, several, or their ids [b, t]; a text needs words."""
        self._need('text_proj' in self.parts, tasks='pretrain, retrieval')
        if isinstance(texts, Encoded):
            return texts
        ids = texts if isinstance(texts, Tensor) else ids_of(texts, self.tokenizer)
        tokens, mask = self._read(ids)
        return Encoded(unit(self.text_proj(tokens[:, 0])), tokens, mask, ids)

    def _in_text_width(self, image_tokens: Tensor) -> Tensor:
        """Image tokens [b, n + 1, d] in the width of the text side."""
        if 'bridge' in self.parts:
            return self.bridge_norm(self.bridge(image_tokens))
        return image_tokens

    def _read(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Ids [b, t] -> tokens of the text encoder [b, t, d], and mask [b, t]."""
        ids = ids.to(self.temp.device)
        mask = ids != self.tokenizer.pad
        embedded = self.text_encoder.bert.embeddings(ids)
        depth = self.config['text']['depth']
        return self.text_encoder.bert.encoder(embedded, mask=mask, stop=depth), mask

    def _fuse(self, text_tokens: Tensor, mask: Tensor | None, image_tokens: Tensor) -> Tensor:
        """Text tokens [b, t, d] after the fusion encoder, where they read the image's."""
        depth = self.config['text']['depth']
        return self.text_encoder.bert.encoder(
            text_tokens, mask=mask, context=image_tokens, start=depth
        )

    # Images and texts together: pre-training and retrieval.

    def fuse(self, images: Any, texts: str | list[str] | Tensor | Encoded) -> Tensor:
        """The texts' tokens [b, t, d] after they have read the images; takes what is encoded."""
        self._need(self.config['fusion_depth'] > 0, tasks='pretrain, retrieval')
        image, text = self.encode_image(images), self.encode_text(texts)
        return self._fuse(text.tokens, text.mask, image.tokens)

    def match(self, images: Any, texts: str | list[str] | Tensor | Encoded) -> Tensor:
        """ITM logits [b, 2] of pairs; class 1 is a match."""
        self._need('itm_head' in self.parts, tasks='pretrain, retrieval')
        return self.itm_head(self.fuse(images, texts)[:, 0])

    def predict_words(self, images: Any, ids: Tensor) -> Tensor:
        """MLM logits [b, t, v] at all of ids [b, t], some of them [MASK]."""
        self._need('text_encoder.cls' in self.parts, tasks='pretrain')
        return self.text_encoder.predict(self.fuse(images, ids))

    def patterns(
        self, images: Any, texts: str | list[str] | Tensor | Encoded | None = None
    ) -> tuple[Tensor, Tensor]:
        """Distributions over the encoding space: of CLS [b, k], and of patches [b, n, k], which
        have read the texts, if there are any, as they did in training."""
        settings = self.config['patterns']
        self._need(settings is not None, tasks='pretrain')
        image = self.encode_image(images)
        tokens = image.tokens
        inject = settings['inject']
        if texts is not None and inject == 'cross_attention':
            # The first fusion layers; the image reads the text.
            text, depth = self.encode_text(texts), self.config['text']['depth']
            patches = self.text_encoder.bert.encoder(
                tokens,
                context=text.tokens,
                context_mask=text.mask,
                start=depth,
                stop=depth + settings['layers'],
            )
        elif texts is not None and inject == 'global':
            patches = tokens + self.text_injection(self.encode_text(texts).tokens[:, :1])
        elif texts is not None and inject == 'words':
            patches = self._with_words(image, self.encode_text(texts))
        else:
            patches = tokens
        patch_head = getattr(self, settings['head'])
        cls_cosines, patch_cosines = self.encoding_head(tokens[:, 0]), patch_head(patches[:, 1:])
        temperature = settings['temperature']
        return (cls_cosines / temperature).softmax(-1), (patch_cosines / temperature).softmax(-1)

    def _with_words(self, image: Encoded, text: Encoded) -> Tensor:
        """Tokens of images with the words of the texts in those patches that resemble them."""
        settings = self.config['patterns']['words']
        if self.lexicon is None or image.source is None or text.source is None:
            raise ValueError('patches read words by the lexicon of `SemMIM.load`')
        tokens, rarity = self.lexicon(text.source)
        vectors = word_vectors(self.text_encoder.bert.embeddings.word_embeddings.weight, tokens)
        attention = self.grounding.attention(
            image.source,
            vectors,
            tokens[..., 0] >= 0,
            rarity,
            temperature=settings['temperature'],
            rarity_weight=settings['rarity'],
        )
        return self.grounding(image.tokens, attention, vectors, settings['scale'])

    # Texts about images: captions and answers.

    @torch.no_grad()
    def caption(self, images: Any, prompt: str = '') -> list[str]:
        """A text about each image; of a task that reads prompts, the one that `prompt` asks for.

        Of pre-training, `prompt` is how the caption begins, and what follows is taken greedily.
        There a caption's beginning is read and its rest written; '' is a beginning of no words.
        """
        self._need('text_decoder' in self.parts, tasks='pretrain, generate, self_critical')
        if not isinstance(prompt, str):
            raise ValueError(f'the prompt is a string, not {type(prompt).__name__}')
        if 'decoding' not in self.task:
            return self._continue(images, prompt)
        images = as_images(images)
        return self.answer(images, [prompt] * len(images))

    @torch.no_grad()
    def answer(self, images: Any, questions: str | list[str]) -> list[str]:
        """The answer to question i about image i, as the run's task says: written, the likeliest of
        its list of answers, or the likeliest label."""
        if 'cls_head' in self.parts:
            shares = self.classify(images, questions)
            return [max(labels, key=labels.__getitem__) for labels in shares]
        self._need('decoding' in self.task, tasks='generate, self_critical, classify')
        if self.task['rank']:
            index, _ = self.rank(images, questions)
            return [self.task['labels'][best] for best in index[:, 0].tolist()]
        return [text for text, _ in self.generate(images, questions)]

    @torch.no_grad()
    def generate(self, images: Any, prompts: str | list[str]) -> list[tuple[str, float]]:
        """The text of the best beam for image i and prompt i, and its score (see `beam_search`)."""
        contexts, masks = self._decoder_context(images, prompts)
        tokenizer, texts = self.tokenizer, []
        for context, mask in zip(contexts.split(1), masks.split(1), strict=True):
            words, score = beam_search(
                functools.partial(self._next_logits, context=context, mask=mask),
                start=tokenizer.cls,
                end=tokenizer.sep,
                never=[tokenizer.pad, tokenizer.cls, tokenizer.mask],
                **self.task['decoding'],
            )
            texts.append((tokenizer.decode(words), score))
        return texts

    @torch.no_grad()
    def rank(self, images: Any, questions: str | list[str]) -> tuple[Tensor, Tensor]:
        """The k likeliest answers of the run's list for image i and question i, the best first.

        As in ALBEF, the k answers of the likeliest first token are compared; here by their whole
        log-likelihood, [SEP] included.

        Returns:
          Numbers of the answers [b, k], and their log-likelihoods [b, k].
        """
        self._need(self.task.get('rank', 0) > 0, tasks='generate with task.rank')
        contexts, masks = self._decoder_context(images, questions)
        tokenizer, device = self.tokenizer, self.temp.device
        answers = tokenizer.answers(self.task['labels'], self.task['max_target_tokens'] - 1)
        answers = answers.to(device)  # [a, t]: words, [SEP], padding
        start = torch.full((len(answers), 1), tokenizer.cls, device=device)
        numbers, scores = [], []
        for context, mask in zip(contexts.split(1), masks.split(1), strict=True):
            first = self._decode(start[:1], context, mask)[0, 0].log_softmax(-1)  # [v]
            by_first = first[answers[:, 0]].sort(descending=True, stable=True).indices
            chosen = by_first[: self.task['rank']]  # [k]
            labels = answers[chosen]  # [k, t]
            inputs = torch.cat([start[: len(labels)], labels[:, :-1]], 1)
            log_p = self._decode(inputs, context, mask).float().log_softmax(-1)  # [k, t, v]
            log_p = log_p.gather(-1, labels[..., None])[..., 0]
            log_p = log_p.masked_fill(labels == tokenizer.pad, 0).sum(-1)  # [k]
            best = log_p.sort(descending=True, stable=True)
            numbers.append(chosen[best.indices])
            scores.append(best.values)
        return torch.stack(numbers), torch.stack(scores)

    def _decoder_context(self, images: Any, prompts: str | list[str]) -> tuple[Tensor, Tensor]:
        """What the decoder attends to: tokens [b, s, d], and mask [b, s]."""
        self._need('decoding' in self.task, tasks='generate, self_critical')
        images, prompts = as_images(images), as_texts(prompts)
        if len(images) != len(prompts):
            raise ValueError(f'{len(images)} images, but {len(prompts)} questions')
        image = self._in_text_width(self.visual_encoder(self.pixels(images)))
        image_mask = torch.ones(image.shape[:2], dtype=torch.bool, device=image.device)
        if self.task['context'] == 'image':
            return image, image_mask
        ids = self.tokenizer.prompts(prompts, self.task['max_prompt_tokens'])
        text, text_mask = self._read(ids)
        fused = self._fuse(text, text_mask, image)
        if self.task['context'] == 'prompt':
            return fused, text_mask
        return torch.cat([image, fused], 1), torch.cat([image_mask, text_mask], 1)

    def _decode(self, ids: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        """Logits of the next token [b, t, v] after each of ids [b, t]."""
        decoder = self.text_decoder
        x = decoder.bert.encoder(
            decoder.bert.embeddings(ids), context=context, context_mask=mask, causal=True
        )
        return decoder.predict(x)

    def _next_logits(self, prefixes: Tensor, *, context: Tensor, mask: Tensor) -> Tensor:
        """Logits [k, v] of what follows prefixes [k, t] about one context [1, s, d]; on the CPU."""
        return self._decode(prefixes.to(context.device), context, mask)[:, -1].cpu()

    def _continue(self, images: Any, prompt: str) -> list[str]:
        """Captions of pre-training that begin with the prompt: the likeliest word after each."""
        tokenizer, image = self.tokenizer, self.encode_image(images)
        words = tokenizer.encode(prompt)[: tokenizer.max_tokens - 2]
        prefix = torch.tensor([[tokenizer.cls, *words]] * len(image.tokens))
        context = torch.cat([image.tokens, self.fuse(image, prefix)], 1)
        ids = prefix[:, :1].to(context.device)
        ended = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        while ids.shape[1] <= tokenizer.max_tokens and not ended.all():
            word = self._decode(ids, context, None)[:, -1].argmax(-1)
            word = word.masked_fill(ended, tokenizer.pad)
            ids = torch.cat([ids, word[:, None]], 1)
            ended = ended | (word == tokenizer.sep)
        return [tokenizer.decode([*words, *written]) for written in ids.tolist()]

    # Labels of images and texts.

    @torch.no_grad()
    def classify(self, images: Any, texts: str | list[str]) -> list[dict[str, float]]:
        """Probability of each label of the run for image i, or group of images, and text i."""
        logits = self.label_logits(images, texts).float()
        shares = logits.sigmoid() if self.task['loss'] == 'sigmoid' else logits.softmax(-1)
        return [dict(zip(self.task['labels'], values, strict=True)) for values in shares.tolist()]

    def label_logits(self, images: Any, texts: str | list[str]) -> Tensor:
        """Logits [b, c] of the run's labels; `images` are groups where the task looks at several.

        As in SCL's form for NLVR2, the text meets each image of a group in a pass of its own.
        """
        self._need('cls_head' in self.parts, tasks='classify')
        images, texts, count = as_images(images), as_texts(texts), self.task['images']
        if len(images) != len(texts):
            raise ValueError(f'{len(images)} images, but {len(texts)} questions')
        images = as_groups(images, count)
        tokens = self.visual_encoder(self.pixels(images))  # [b * i, n + 1, d]
        if count > 1:
            tokens = tokens + self.image_ids.repeat(len(texts), 1)[:, None]
        ids = self.tokenizer.prompts(texts, self.tokenizer.max_tokens)
        text, mask = self._read(ids)
        text, mask = text.repeat_interleave(count, 0), mask.repeat_interleave(count, 0)
        fused = self._fuse(text, mask, self._in_text_width(tokens))
        return self.cls_head(fused[:, 0].reshape(len(texts), -1))

    def _need(self, available: bool, *, tasks: str) -> None:
        """Raises ValueError if something is not available; `tasks` are those that have it."""
        if not available:
            raise ValueError(
                f'a run of the task {self.task["name"]!r} cannot do this; tasks that can: {tasks}'
            )


def beam_search(
    next_logits: Callable[[Tensor], Tensor],
    *,
    start: int,
    end: int,
    never: list[int],
    beams: int,
    min_length: int,
    max_length: int,
    length_penalty: float,
    no_repeat_ngram: int = 0,
) -> tuple[list[int], float]:
    """The best text: score = log p(words, end) / (words + 1) ** length_penalty.

    After each word the `beams` likeliest prefixes stay, and each of them may end there.

    Args:
      next_logits: prefixes [k, 1 + words], `start` first -> logits of the next token [k, v].
      start, end, never: ids of the first token, of the last, and of those that are not written.
      min_length, max_length: in words.
      no_repeat_ngram: length of the sequences of words that no text has twice; 0: it may.

    Returns:
      The words, and the score.
    """
    prefixes = torch.tensor([[start]])
    scores = torch.zeros(1)  # log-likelihoods of the prefixes
    best_words, best_score = [], -float('inf')
    for words in range(max_length + 1):
        total = scores[:, None] + next_logits(prefixes).float().log_softmax(-1)  # [k, v]
        if words >= min_length:
            score, beam = (total[:, end] / (words + 1) ** length_penalty).max(0)
            if score > best_score:
                best_words, best_score = prefixes[beam, 1:].tolist(), score.item()
        total[:, [end, *never]] = -float('inf')
        if no_repeat_ngram:
            for beam, prefix in enumerate(prefixes[:, 1:].tolist()):
                total[beam, repeats(prefix, no_repeat_ngram)] = -float('inf')
        scores, chosen = total.flatten().topk(min(beams, total.numel()))
        beam, word = chosen // total.shape[1], chosen % total.shape[1]
        prefixes = torch.cat([prefixes[beam], word[:, None]], 1)
        # Log-likelihoods only fall, and no text has more tokens to divide by than the longest.
        if scores[0] / (max_length + 1) ** length_penalty <= best_score:
            break
    return best_words, best_score


def repeats(words: list[int], n: int) -> list[int]:
    """Words that would end a sequence of n words which the text has already."""
    last = words[len(words) - n + 1 :]
    starts = range(len(words) - n + 1)
    return [words[at + n - 1] for at in starts if words[at : at + n - 1] == last]
