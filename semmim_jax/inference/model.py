"""A trained model for use: pictures and texts in, arrays and texts out."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from semmim_jax.data.images import read_image
from semmim_jax.data.json_files import read_json
from semmim_jax.data.text import clean_caption
from semmim_jax.data.tokenizer import Tokenizer, make_tokenizer
from semmim_jax.data.transforms import eval_view
from semmim_jax.ops.masking import SpecialTokens
from semmim_jax.tasks.catalogue import find_task
from semmim_jax.training.checkpoint import load_params
from semmim_jax.training.predictor import Predictor, to_host
from semmim_jax.training.sharding import make_mesh, replicated

Picture = str | pathlib.Path | np.ndarray  # a file, or uint8 [h, w, 3] RGB


class _Variables(NamedTuple):
    params: Any


def load(workdir: str | pathlib.Path, *, params: str, batch_size: int) -> 'Model':
    """See `semmim_jax.load`."""
    workdir = pathlib.Path(workdir)
    flat, config = load_params(workdir, params=params)
    config = ml_collections.FrozenConfigDict(config)
    tokenizer = make_tokenizer(str(workdir), texts=(), size=0, end_token=config.data.end_token)
    special = SpecialTokens(
        pad=tokenizer.pad_id,
        cls=tokenizer.cls_id,
        sep=tokenizer.sep_id,
        mask=tokenizer.mask_id,
        vocab_size=config.model.text.vocab_size,
    )
    task = find_task(config)(config, special)
    mesh = make_mesh(dict(data=-1, fsdp=1, tensor=1))
    tree = jax.device_put(flax.traverse_util.unflatten_dict(flat, sep='/'), replicated(mesh))
    predict = Predictor(task.predict_fns(), _Variables(tree), mesh)
    labels = read_json(workdir / 'labels.json') if task.chooses else ()
    rows = -(-batch_size // mesh.size) * mesh.size
    return Model(config, tokenizer, tuple(labels), predict, batch_size=rows)


class Model:
    """What the task of a run can do; the rest raises a ValueError that names the tasks that can.

    Pictures are paths or uint8 arrays [h, w, 3], for a task of two images pairs of them. They are
    read and run `batch_size` at a time.

    Attributes:
      config: of the run.
      tokenizer: of the run.
      labels: what the task chooses from; () for others.
      batch_size: rows of a call.
    """

    def __init__(
        self,
        config: ml_collections.FrozenConfigDict,
        tokenizer: Tokenizer,
        labels: tuple[str, ...],
        predict: Predictor,
        *,
        batch_size: int,
    ):
        self.config = config
        self.tokenizer = tokenizer
        self.labels = labels
        self.batch_size = batch_size
        self._predict = predict

    def encode_image(self, images: Sequence[Picture]) -> np.ndarray:
        """Unit features [i, e], to be compared with those of `encode_text` by their product."""
        self._need('image', tasks='pretrain, retrieval')
        return self._map('image', len(images), lambda part: (self._pixels(images[part]),))

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        """Unit features [t, e]."""
        return self._encoded(texts)['feature']

    def match(self, images: Sequence[Picture], texts: Sequence[str]) -> np.ndarray:
        """Probability that image i and text t belong together, by the ITM head: [i, t]."""
        self._need('match', tasks='pretrain, retrieval')
        text, starts = self._encoded(texts), range(0, len(images), self.batch_size)
        chunks = (images[start : start + self.batch_size] for start in starts)
        return np.concatenate([self._match(self._pixels(chunk), text) for chunk in chunks])

    def caption(self, images: Sequence[Picture], prompt: str = '') -> list[str]:
        """A text about each image; of a task that reads prompts, the one that `prompt` asks for.

        Of pre-training, `prompt` is how the caption begins, and what follows is taken greedily.
        """
        if 'caption' in self._predict:
            start = self._ids([prompt], self.config.data.max_tokens)
            start[start == self.tokenizer.sep_id] = self.tokenizer.pad_id
            given = lambda part: (
                pixels := self._pixels(images[part]),
                start.repeat(len(pixels), 0),
            )
            ids = self._map('caption', len(images), given)
            return [f'{prompt} {self.tokenizer.decode(row)}'.strip() for row in ids]
        return self._write(images, [prompt] * len(images))

    def answer(self, images: Sequence[Picture], questions: Sequence[str]) -> list[str]:
        """The answer to question i about image i: written, ranked, or a label."""
        if len(images) != len(questions):
            raise ValueError(f'{len(images)} images, but {len(questions)} questions')
        return self._write(images, questions)

    def _write(self, images: Sequence[Picture], prompts: Sequence[str]) -> list[str]:
        self._need('generate', 'classify', tasks='generate, classify; pretrain writes captions')
        data = self.config.data
        if 'classify' in self._predict:
            ids = self._ids(prompts, data.max_tokens, keep_end=True)

            def given(part):
                pixels = self._pixels(images[part])
                return ({'images' if pixels.ndim == 5 else 'image': pixels, 'ids': ids[part]},)

            numbers = self._map('classify', len(images), given).argmax(-1)
            return [self.labels[n] for n in numbers]
        ids = self._ids(prompts, data.max_prompt_tokens, keep_end=True)
        given = lambda part: {'image': self._pixels(images[part]), 'prompt': ids[part]}
        if 'rank' in self._predict:
            words = self._ids(self.labels, data.max_target_tokens, ended=True)[:, 1:]
            choices = jnp.asarray(words)  # on the device, hence passed whole
            found = self._map('rank', len(images), lambda part: (given(part), choices))
            return [self.labels[n] for n in found['index'][:, 0]]
        beams = self._map('generate', len(images), lambda part: (given(part),))
        return [self.tokenizer.decode(ids) for ids in beams.ids[:, 0]]

    def _match(self, pixels: np.ndarray, text: dict[str, np.ndarray]) -> np.ndarray:
        """[i, t] of images that fill at most one batch: their keys and values are computed once."""
        context = self._predict('context', self._filled(pixels))
        shape = len(pixels), len(text['tokens'])
        row, column = (x.ravel() for x in np.indices(shape))

        def pairs(part):
            at = column[part]
            return context, row[part], text['tokens'][at], text['mask'][at]

        logits = self._map('match', row.size, pairs)  # [i * t, 2]
        odds = (logits[:, 1] - logits[:, 0]).reshape(shape)
        return 1 / (1 + np.exp(-odds))

    def _encoded(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        self._need('text', tasks='pretrain, retrieval')
        ids = self._ids(texts, self.config.data.max_tokens)
        return self._map('text', len(texts), lambda part: (ids[part],))

    def _ids(self, texts: Sequence[str], length: int, **options) -> np.ndarray:
        cleaned = (clean_caption(text, max_words=None) for text in texts)
        return np.stack([self.tokenizer.encode(text, length, **options) for text in cleaned])

    def _pixels(self, images: Sequence[Any]) -> np.ndarray:
        """uint8 [i, s, s, 3], or [i, 2, s, s, 3] of pairs."""
        if isinstance(images[0], tuple | list):
            return np.stack([self._pixels(pair) for pair in images])
        data, found = self.config.data, []
        for image in images:
            if not isinstance(image, np.ndarray):
                image = read_image(image, decoder=data.decoder, max_pixels=data.max_pixels)
            found.append(eval_view(image, None, size=data.image_size)[0])
        return np.stack(found)

    def _map(self, name: str, count: int, given: Callable[[slice], tuple]) -> Any:
        """Outputs of a predict function for `count` rows; `given` has the inputs of some."""
        if not count:
            raise ValueError('nothing to do: no images, or no texts')
        found = []
        for first in range(0, count, self.batch_size):
            inputs = given(slice(first, first + self.batch_size))
            outputs = to_host(self._predict(name, *jax.tree.map(self._filled, inputs)))
            rows = min(self.batch_size, count - first)
            found.append(jax.tree.map(lambda x, rows=rows: x[:rows], outputs))
        return jax.tree.map(lambda *parts: np.concatenate(parts), *found)

    def _filled(self, x: Any) -> Any:
        """A numpy array with its last row repeated up to the batch size: one shape, one program."""
        if not isinstance(x, np.ndarray):
            return x
        return np.concatenate([x, np.repeat(x[-1:], self.batch_size - len(x), axis=0)])

    def _need(self, *names: str, tasks: str) -> None:
        if not any(name in self._predict for name in names):
            raise ValueError(
                f'a run of the task {self.config.task.name!r} cannot do this; tasks that can: '
                f'{tasks}'
            )
