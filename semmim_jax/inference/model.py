"""A trained model for use: images and texts in, arrays and texts out."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax
import jax
import ml_collections
import numpy as np

from semmim_jax.data.cloud import path_of
from semmim_jax.data.lexicon import Lexicon
from semmim_jax.data.run_files import labels_of_run, lexicon_of_run, tokenizer_of_run
from semmim_jax.data.text import clean_caption
from semmim_jax.data.tokenizer import Tokenizer
from semmim_jax.data.transforms import eval_view
from semmim_jax.inference.explanation import Explanation, word_maps
from semmim_jax.inference.inputs import Images, as_images, as_pixels, as_texts
from semmim_jax.inference.outputs import Fused, Patches, Written, writer
from semmim_jax.inference.predictor import Predictor, to_host
from semmim_jax.inference.videos import Videos, as_frames, as_videos
from semmim_jax.models.grounding import WORD_FIELDS, Words
from semmim_jax.tasks.registry import find_task
from semmim_jax.training.checkpoint import load_params
from semmim_jax.training.sharding import make_mesh, replicated

_NOTHING = 'nothing to do: no images, or no texts'


class _Variables(NamedTuple):
    params: Any


def load(workdir: str | pathlib.Path, *, params: str, batch_size: int) -> 'Model':
    """See `semmim_jax.load`."""
    if params not in ('ema', 'online') or batch_size < 1:
        raise ValueError(f"params={params!r}, batch_size={batch_size}: 'ema' or 'online', from 1")
    workdir = path_of(workdir)
    flat, saved = load_params(workdir, params=params)
    config = ml_collections.FrozenConfigDict(saved.config)
    tokenizer = tokenizer_of_run(saved, workdir=workdir)
    task = find_task(config)(config, tokenizer.special)
    mesh = make_mesh(dict(data=-1, fsdp=1, tensor=1))
    tree = jax.device_put(flax.traverse_util.unflatten_dict(flat, sep='/'), replicated(mesh))
    predict = Predictor(task.predict_fns(), _Variables(tree), mesh)
    labels = labels_of_run(saved, workdir=workdir) if task.needs_labels else ()
    filled = -(-batch_size // mesh.size) * mesh.size
    options = dict(images=task.images, batch_size=filled)
    lexicon = lexicon_of_run(saved, workdir=workdir)
    return Model(config, tokenizer, tuple(labels), predict, lexicon=lexicon, **options)


class Model:
    """What the task of a run can do; the rest raises a ValueError that names the tasks that can.

    Images and texts are what inputs.py says, one or a list of them; for a task of two images a list
    of pairs. They are read and run `batch_size` at a time.

    Scores: of a label its probability; of an answer ranked in a list its log-probability; of a text
    that is written its log-probability over (words + 1) ** task.decoding.length_penalty, of a
    caption of pre-training, which has no such field, over words + 1.

    Attributes:
      config: of the run.
      tokenizer: of the run.
      labels: what the task chooses from; () for others.
      lexicon: of the run's captions; None if it has none.
      batch_size: examples of a call.
    """

    def __init__(
        self,
        config: ml_collections.FrozenConfigDict,
        tokenizer: Tokenizer,
        labels: tuple[str, ...],
        predict: Predictor,
        *,
        images: int,
        batch_size: int,
        lexicon: Lexicon | None = None,
    ):
        self.config = config
        self.tokenizer = tokenizer
        self.labels = labels
        self.batch_size = batch_size
        self.lexicon = lexicon
        self._predict, self._images = predict, images

    def encode_image(self, images: Images) -> np.ndarray:
        """Unit features [i, e], to be compared with those of `encode_text` by their product."""
        self._need('image', tasks='pretrain, retrieval, completion, rank')
        images = as_images(images)
        return self._map('image', len(images), lambda part: (self._pixels(images[part]),))

    def encode_video(self, videos: Videos) -> np.ndarray:
        """Unit features [i, e] of videos, see videos.py, as `encode_image` has them of images.

        Of each as many frames are read as the run reads, from the first to the last.
        """
        self._need('image', tasks='completion')
        videos = as_videos(videos)
        return self._map('image', len(videos), lambda part: (self._clips(videos[part]),))

    def encode_text(self, texts: str | Sequence[str]) -> np.ndarray:
        """Unit features [t, e] of texts that have words."""
        return self.encoded_texts(texts)['feature']

    def match(self, images: Images, texts: str | Sequence[str]) -> np.ndarray:
        """Probability that image i and text t belong together, by the ITM head: [i, t].

        Of a ranking (rank) the sigmoid of its score, which orders the texts of an image and is no
        probability.
        """
        return self._match_all(as_images(images), texts, self._pixels)

    def match_video(self, videos: Videos, texts: str | Sequence[str]) -> np.ndarray:
        """As `match`, of videos."""
        return self._match_all(as_videos(videos), texts, self._clips)

    def classify(
        self,
        images: Images,
        labels: Sequence[str],
        *,
        templates: Sequence[str] = ('{}',),
        rerank: int = 0,
    ) -> np.ndarray:
        """Probability of each label without training for it, [i, c]; see inference/zero_shot.py."""
        from semmim_jax.inference.zero_shot import ZeroShot

        images = as_images(images)
        return ZeroShot(self, labels, templates=templates, rerank=rerank)(images)

    @property
    def temperature(self) -> float:
        """Of ITC, as it was learned."""
        return float(self._predict.variables.params['temperature'])

    @property
    def matches(self) -> bool:
        """Whether the run has an ITM head, for `match`."""
        return 'match' in self._predict

    def encode_patches(self, images: Images, texts: str | Sequence[str] | None = None) -> Patches:
        """Features, values and pattern codes of every patch; text i is read by image i."""
        self._need('encode_patches', tasks='pretrain, retrieval')
        images, ids = as_images(images), None
        if texts is not None:
            texts = self._paired(images, texts)
            ids = self._ids(texts, self.config.data.max_tokens)

        def inputs(part):
            if ids is None:
                return self._pixels(images[part]), None, None
            return self._pixels(images[part]), ids[part], self._words(ids[part])

        outputs = self._map('encode_patches', len(images), inputs)
        return Patches(**dict.fromkeys(Patches._fields) | outputs)

    def relevance(self, images: Images, texts: str | Sequence[str]) -> np.ndarray:
        """Relevance of each patch of image i to text i, by which masks are drawn: float [i, n].

        Zeros where `task.mim.masking` does not look at the text. See docs/method.md section 3.
        """
        self._need('patterns', tasks='pretrain')
        images = as_images(images)
        ids = self._ids(self._paired(images, texts), self.config.data.max_tokens)
        key = jax.random.key(0)  # of a mask that is not looked at
        inputs = lambda part: (self._pixels(images[part]), ids[part], self._words(ids[part]), key)
        return self._map('patterns', len(images), inputs)['relevance']

    def encode_fused(self, images: Images, texts: str | Sequence[str]) -> Fused:
        """Tokens of text i after it has read image i, by the fusion encoder."""
        self._need('fused', tasks='pretrain, retrieval')
        images = as_images(images)
        text = self.encoded_texts(self._paired(images, texts))

        def inputs(part):
            pixels = self._pixels(images[part])
            context = self._predict('context', self._filled(pixels))
            return context, np.arange(len(pixels)), text['tokens'][part], text['mask'][part]

        return Fused(self._map('fused', len(images), inputs), text['mask'])

    def explain(
        self, images: Images, texts: str | Sequence[str], *, layer: int | None = None
    ) -> list[Explanation]:
        """Word maps of image i and text i (docs/method.md section 8.7).

        Args:
          images, texts: one or a list; a text needs words.
          layer: of the fusion encoder; None is the upper one of its lower half, ALBEF's choice.
        """
        self._need('explain', tasks='pretrain, retrieval')
        images, depth = as_images(images), self.config.model.fusion_depth
        texts = self._paired(images, texts)
        layer = (depth - 1) // 2 if layer is None else layer
        if layer not in range(depth):
            raise ValueError(
                f'layer={layer!r}: this fusion encoder has the layers 0 to {depth - 1}'
            )
        ids, length = self._worded_ids(texts), self.config.data.max_tokens
        words = [self.tokenizer.words(text, length) for text in self._cleaned(texts)]
        inputs = lambda part: (self._pixels(images[part]), ids[part])
        outputs = self._map('explain', len(images), inputs)
        pairs = ({name: x[i] for name, x in outputs.items()} for i in range(len(words)))
        return [word_maps(*pair, layer=layer) for pair in zip(words, pairs, strict=True)]

    def caption(self, images: Images, prompt: str = '') -> list[str]:
        """A text about each image; of a task that reads prompts, the one that `prompt` asks for.

        Of pre-training, `prompt` is how the caption begins, and what follows is taken greedily; the
        score is of what follows.
        """
        return [written.text for written in self.scored_captions(images, prompt)]

    def scored_captions(self, images: Images, prompt: str = '') -> list[Written]:
        """The texts of `caption` with their scores."""
        if not isinstance(prompt, str):
            raise ValueError(f'the prompt is a string, not {type(prompt).__name__}')
        images = as_images(images)
        if 'caption' in self._predict:
            start = self._ids([prompt], self.config.data.max_tokens)
            start[start == self.tokenizer.sep_id] = self.tokenizer.pad_id
            inputs = lambda part: (
                pixels := self._pixels(images[part]),
                start.repeat(len(pixels), 0),
            )
            written = self._map('caption', len(images), inputs)
            texts = (f'{prompt} {self.tokenizer.decode(ids)}'.strip() for ids in written.ids)
            return [Written(*pair) for pair in zip(texts, written.scores.tolist(), strict=True)]
        return self._write(images, [prompt] * len(images))

    def answer(self, images: Images, questions: str | Sequence[str]) -> list[str]:
        """The answer to question i about image i: written, ranked, or a label.

        A task whose labels are of the image alone takes '' as question.
        """
        return [written.text for written in self.scored_answers(images, questions)]

    def scored_answers(self, images: Images, questions: str | Sequence[str]) -> list[Written]:
        """The answers of `answer` with their scores."""
        images, questions = as_images(images), as_texts(questions)
        if len(images) != len(questions):
            raise ValueError(f'{len(images)} images, but {len(questions)} questions')
        return self._write(images, questions)

    def _write(self, images: Sequence[Any], prompts: Sequence[str]) -> list[Written]:
        self._need('generate', 'classify', tasks='generate, classify; pretrain writes captions')
        data = self.config.data
        if 'classify' in self._predict:
            name, length = 'ids', data.max_tokens
        else:
            name, length = 'prompt', data.max_prompt_tokens
        ids = self._ids(prompts, length, keep_end=True)

        def inputs(part):
            pixels = self._pixels(images[part])
            return {'images' if pixels.ndim == 5 else 'image': pixels, name: ids[part]}

        target = data.get('max_target_tokens', 0)
        write = writer(self._predict, self.tokenizer, self.labels, max_target_tokens=target)
        outputs = []
        for first in range(0, len(images), self.batch_size):
            part = slice(first, first + self.batch_size)
            outputs += write(jax.tree.map(self._filled, inputs(part)))[: len(images[part])]
        return outputs

    def pair_log_odds(
        self, images: Images, text: dict[str, np.ndarray], row: np.ndarray, column: np.ndarray
    ) -> np.ndarray:
        """Log-odds of a match, [p], of image row[p] and text column[p].

        Args:
          images: at most `batch_size` of them; their keys and values are computed once.
          text: of `encoded_texts`.
          row, column: int [p].
        """
        return self._pair_log_odds(self._pixels(as_images(images)), text, row, column)

    def _match_all(
        self,
        images: Sequence[Any],
        texts: str | Sequence[str],
        pixels_of: Callable[[Sequence[Any]], np.ndarray],
    ) -> np.ndarray:
        self._need('match', tasks='pretrain, retrieval, completion, rank')
        text, starts = self.encoded_texts(texts), range(0, len(images), self.batch_size)
        if not len(images):
            raise ValueError(_NOTHING)
        chunks = (images[start : start + self.batch_size] for start in starts)
        odds = []
        for chunk in chunks:
            shape = len(chunk), len(text['tokens'])
            row, column = (x.ravel() for x in np.indices(shape))
            pairs = self._pair_log_odds(pixels_of(chunk), text, row, column)
            odds.append(pairs.reshape(shape))
        return 1 / (1 + np.exp(-np.concatenate(odds)))

    def _pair_log_odds(
        self, pixels: np.ndarray, text: dict[str, np.ndarray], row: np.ndarray, column: np.ndarray
    ) -> np.ndarray:
        context = self._predict('context', self._filled(pixels))

        def pairs(part):
            at = column[part]
            return context, row[part], text['tokens'][at], text['mask'][at]

        logits = self._map('match', row.size, pairs)  # [p, 2]
        return logits[:, 1] - logits[:, 0]

    def encoded_texts(self, texts: str | Sequence[str]) -> dict[str, np.ndarray]:
        """'feature' [t, e], 'tokens' [t, n, d] and 'mask' [t, n] of texts that have words."""
        self._need('text', tasks='pretrain, retrieval, completion, rank')
        texts = as_texts(texts)
        ids = self._worded_ids(texts)
        return self._map('text', len(texts), lambda part: (ids[part],))

    def _paired(self, images: Sequence[Any], texts: str | Sequence[str]) -> list[str]:
        """The texts, one an image."""
        texts = as_texts(texts)
        if len(images) != len(texts):
            raise ValueError(f'{len(images)} images, but {len(texts)} texts')
        return texts

    def _worded_ids(self, texts: Sequence[str]) -> np.ndarray:
        """`_ids` of texts that have words."""
        ids = self._ids(texts, self.config.data.max_tokens)
        marks = (self.tokenizer.pad_id, self.tokenizer.cls_id, self.tokenizer.sep_id)
        for number in np.flatnonzero(np.isin(ids, marks).all(axis=1)):
            raise ValueError(f'text {number} is {texts[number]!r:.60}, which has no words')
        return ids

    def _ids(self, texts: Sequence[str], length: int, **options) -> np.ndarray:
        if not texts:
            raise ValueError(_NOTHING)
        texts = self._cleaned(texts)
        return np.stack([self.tokenizer.encode(text, length, **options) for text in texts])

    def _words(self, ids: np.ndarray) -> Words | None:
        """Words of token ids [b, t], where the run reads words."""
        if not self.lexicon:
            return None
        fields = self.lexicon.words_of_batch(ids)
        return Words(*(fields[name] for name in WORD_FIELDS))

    def _cleaned(self, texts: Sequence[str]) -> Sequence[str]:
        """The texts as the run reads them, by `data.clean_text`."""
        if not self.config.data.clean_text:
            return texts
        return [clean_caption(text, max_words=None) for text in texts]

    def _pixels(self, images: Sequence[Any]) -> np.ndarray:
        """uint8 [i, s, s, 3], or [i, 2, s, s, 3] for a task of pairs."""
        count = self._images
        if count == 1:
            return np.stack([self._view(image) for image in images])
        for image in images:
            if not isinstance(image, list | tuple | np.ndarray) or len(image) != count:
                raise ValueError(
                    f'this run looks at {count} images at once: give a list of groups of {count}'
                )
        return np.stack([[self._view(image) for image in group] for group in images])

    def _clips(self, videos: Sequence[Any]) -> np.ndarray:
        """uint8 [i, f, s, s, 3], with the frames that the run reads."""
        data = self.config.data
        if 'frames' not in data:
            raise ValueError(f'a run of the task {self.config.task.name!r} reads images, no videos')
        options = dict(count=data.frames, decoder=data.decoder, max_pixels=data.max_pixels)
        return np.stack(
            [[self._view(frame) for frame in as_frames(video, **options)] for video in videos]
        )

    def _view(self, image: Any) -> np.ndarray:
        """uint8 [s, s, 3] of one image."""
        data = self.config.data
        pixels = as_pixels(image, decoder=data.decoder, max_pixels=data.max_pixels)
        return eval_view(pixels, None, size=data.image_size)[0]

    def _map(self, name: str, count: int, inputs_of: Callable[[slice], tuple]) -> Any:
        """Outputs of a predict function for `count` examples; `inputs_of` gives those of some."""
        if not count:
            raise ValueError(_NOTHING)
        parts = []
        for first in range(0, count, self.batch_size):
            inputs = inputs_of(slice(first, first + self.batch_size))
            outputs = to_host(self._predict(name, *jax.tree.map(self._filled, inputs)))
            filled = min(self.batch_size, count - first)
            parts.append(jax.tree.map(lambda x, count=filled: x[:count], outputs))
        return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)

    def _filled(self, x: Any) -> Any:
        """An array filled up to the batch size with its last example: one shape, one program."""
        if not isinstance(x, np.ndarray):
            return x
        return np.concatenate([x, np.repeat(x[-1:], self.batch_size - len(x), axis=0)])

    def _need(self, *names: str, tasks: str) -> None:
        if not any(name in self._predict for name in names):
            raise ValueError(
                f'a run of the task {self.config.task.name!r} cannot do this; tasks that can: '
                f'{tasks}'
            )
