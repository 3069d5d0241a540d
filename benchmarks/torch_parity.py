"""The PyTorch module against JAX: a run's weights, its evaluation set, every output.

    python -m benchmarks.torch_parity --workdir=runs/demo [--images=500] [--params=online]

Prints how many tensors come back from PyTorch bit for bit. Then, of pre-training and retrieval, the
largest difference of each output, from the module in float32 and in float64 (what is left is JAX's
own rounding), beside its largest value, how many greedy captions are the same, and some of them; of
other tasks how many texts, answers or labels are the same, and the largest difference of their
scores. Needs torch.
"""

import argparse
import copy
import pathlib
import tempfile
import types
from collections.abc import Callable
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import torch

from semmim_jax.conversion.from_torch import from_torch
from semmim_jax.conversion.to_torch import to_torch
from semmim_jax.conversion.torch_model import SemMIM
from semmim_jax.data.lexicon import Lexicon
from semmim_jax.data.readers.sources import make_source
from semmim_jax.data.run_files import lexicon_of_run, tokenizer_of_run
from semmim_jax.data.tokenizer import Tokenizer
from semmim_jax.data.transforms import eval_view
from semmim_jax.evaluators.report import EvalData
from semmim_jax.inference.model import load
from semmim_jax.models.grounding import WORD_FIELDS, Words
from semmim_jax.tasks.pretrain.patches import all_patches, inject_text
from semmim_jax.tasks.registry import find_task
from semmim_jax.training.checkpoint import load_params

Answers = dict[str, np.ndarray]


def jax_answers(task: Any, params: Any) -> Callable[..., Answers]:
    """(images [b, s, s, 3], ids [b, t], their `Words` or None) -> every output by name, jitted."""
    plan, mim = task.plan, task.plan.config.mim
    patterned, has_words = 'encoding_head' in params, 'mlm_head' in params  # else: retrieval
    separate = mim.target == 'semantic_separate_head'

    def answers(model, images, ids, words=None):
        valid = ids != plan.special.pad
        tokens, text = model.encode_image(images), model.encode_text(ids, valid)
        fused = model.fuse(text, valid, model.image_context(tokens))
        caption = dict(text=text, valid=valid, words=words)
        inject = lambda kind: inject_text(
            model, mim, kind, tokens, **caption, positions=all_patches(tokens)
        )
        patches = lambda kind: model.encode_patches(inject(kind), separate=separate)
        share = lambda cosines: jax.nn.softmax(cosines / plan.config.tau_student)
        outputs = {
            'image features': model.project_image(tokens[:, 0]),
            'text features': model.project_text(text[:, 0]),
            'ITM logits': model.match(fused[:, 0]),
        }
        if has_words:
            outputs['MLM logits'] = model.predict_words(fused)
        if patterned:
            outputs['patterns of CLS'] = share(model.encoding_head(model.to_fusion(tokens[:, 0])))
            outputs['patterns with text'] = share(patches(mim.inject_teacher))
            outputs['patterns without text'] = share(patches('none'))
        return outputs

    jitted = jax.jit(lambda *inputs: nn.apply(answers, task.model)({'params': params}, *inputs))
    return lambda *inputs: {name: np.asarray(x) for name, x in jitted(*inputs).items()}


def words_of(lexicon: Lexicon | None, ids: np.ndarray) -> Words | None:
    """The words of captions [b, t]; None where the run has no lexicon."""
    if lexicon is None:
        return None
    fields = lexicon.words_of_batch(ids)
    return Words(*(fields[name] for name in WORD_FIELDS))


def jax_captions(
    task: Any, params: Any, tokenizer: Tokenizer, *, max_tokens: int
) -> Callable[..., list[str]]:
    """(images, prompt) -> greedy captions that go on from the prompt."""
    caption = task.predict_fns()['caption']
    jitted = jax.jit(lambda *inputs: caption(types.SimpleNamespace(params=params), *inputs))

    def captions(images, prompt=''):
        words = tokenizer.encode(prompt, max_tokens)  # [t]
        words[words == tokenizer.sep_id] = tokenizer.pad_id
        rows = jitted(images, np.tile(words, (len(images), 1))).ids
        return [tokenizer.decode([*words, *row]) for row in np.asarray(rows)]

    return captions


@torch.no_grad()
def torch_answers(model: SemMIM, images: np.ndarray, texts: list[str]) -> Answers:
    """The same outputs of the PyTorch module, which cuts the texts itself."""
    image, text = model.encode_image(torch.from_numpy(images)), model.encode_text(texts)
    outputs = {
        'image features': image.feature,
        'text features': text.feature,
        'ITM logits': model.match(image, text),
    }
    if 'text_encoder.cls' in model.parts:
        outputs['MLM logits'] = model.predict_words(image, model.tokenizer(texts))
    if model.config['patterns'] is not None:
        outputs['patterns of CLS'], outputs['patterns with text'] = model.patterns(image, text)
        outputs['patterns without text'] = model.patterns(image)[1]
    return {name: x.numpy() for name, x in outputs.items()}


def torch_texts(model: SemMIM, images: list[Any], prompts: list[str]) -> list[tuple[str, float]]:
    """What the module writes or chooses, with its score, as `scored_answers` of the JAX model."""
    if 'cls_head' in model.parts:
        shares = model.classify(images, prompts)
        return [max(share.items(), key=lambda item: item[1]) for share in shares]
    if model.task['rank']:
        index, scores = model.rank(images, prompts)
        best = zip(index[:, 0].tolist(), scores[:, 0].tolist(), strict=True)
        return [(model.task['labels'][number], score) for number, score in best]
    return model.generate(images, prompts)


def main() -> None:
    """Runs the comparison and prints it."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--workdir', required=True)
    parser.add_argument('--images', type=int, default=500)
    parser.add_argument('--params', default='ema', choices=['ema', 'online'])
    flags = parser.parse_args()
    flat, saved = load_params(flags.workdir, params=flags.params)
    config = ml_collections.ConfigDict(saved.config)
    config.model.dtype = 'float32'
    t = tokenizer_of_run(saved, workdir=flags.workdir)
    special = t.special
    task = find_task(config)(ml_collections.FrozenConfigDict(config), special)
    with tempfile.TemporaryDirectory() as parent:
        out = pathlib.Path(parent, 'out')
        to_torch(flags.workdir, out, params=flags.params)
        shapes = {path: x.shape for path, x in flat.items()}
        back = from_torch(out, model=config.model, shapes=shapes).params
        model = SemMIM.load(out)
    same = sum(np.array_equal(back[path], x) for path, x in flat.items())
    print(f'{flags.workdir}, {flags.params} weights')
    print(f'back from PyTorch bit for bit: {same} of {len(flat)} tensors')
    source = make_source(config.data.eval or config.data.train, config.data)
    if 'text_projection/kernel' not in flat:
        ours = load(flags.workdir, params=flags.params, batch_size=32)
        compare_texts(ours, model, source, records=min(flags.images, len(source)))
        return

    arrays = {path: jnp.asarray(x) for path, x in flat.items()}
    params = flax.traverse_util.unflatten_dict(arrays, sep='/')
    compare(
        jax_answers(task, params),
        jax_captions(task, params, t, max_tokens=config.data.max_tokens)
        if 'caption' in task.predict_fns()
        else None,
        model,
        EvalData(source, t, config.data, config.eval),
        lexicon_of_run(saved, workdir=flags.workdir),
        images=flags.images,
    )


def compare(
    answer: Any,
    write: Any,
    model: SemMIM,
    data: EvalData,
    lexicon: Lexicon | None,
    *,
    images: int,
) -> None:
    """Prints the table; `answer` and `write` are JAX's, the latter None if nothing is written."""
    errors_of, equal, done, shown = {}, {'': 0, 'a': 0} if write else {}, 0, []
    exact = copy.deepcopy(model).double()
    for batch, texts in data.pair_batches():
        count = min(len(texts), images - done)
        if not count:
            break
        pixels, ids, texts = batch['image'][:count], batch['ids'][:count], texts[:count]
        answers = [torch_answers(m, pixels, texts) for m in (model, exact)]
        for name, expected in answer(pixels, ids, words_of(lexicon, ids)).items():
            errors = [np.abs(values[name] - expected).max() for values in answers]
            errors_of[name] = np.maximum(errors_of.get(name, 0), [*errors, np.abs(expected).max()])
        for prompt in equal:
            ours = write(pixels, prompt)
            theirs = model.caption(torch.from_numpy(pixels), prompt)
            equal[prompt] += sum(a == b for a, b in zip(ours, theirs, strict=True))
            shown += [(texts[0], prompt, theirs[0])] * (len(shown) < 6)
        done += count
    print(f'\n{done} images with a caption each\n')
    print(f'{"difference from the module":24} {"in float32":>12} {"float64":>10} {"largest":>10}')
    for name, (error, rounding, size) in errors_of.items():
        print(f'{name:26} {error:12.1e} {rounding:10.1e} {size:10.3f}')
    for prompt, number in equal.items():
        print(f'greedy captions from {prompt!r}: {number} of {done} the same')
    for text, prompt, written in shown:
        print(f'  said: {text}; written from {prompt!r}: {written}')


def compare_texts(ours: Any, theirs: SemMIM, source: Any, *, records: int) -> None:
    """Prints how often JAX and the module give the same text; JAX in the run's `model.dtype`."""
    equal, largest, shown = 0, 0.0, []
    view = lambda image: eval_view(image, None, size=ours.config.data.image_size)[0]
    for first in range(0, records, ours.batch_size):
        some = [source[i] for i in range(first, min(first + ours.batch_size, records))]
        images = [
            [view(image) for image in record['images']]
            if 'images' in record
            else view(record['image'])
            for record in some
        ]
        prompts = [record.get('prompt', '') for record in some]
        pairs = zip(ours.scored_answers(images, prompts), torch_texts(theirs, images, prompts))
        for prompt, (expected, (text, score)) in zip(prompts, pairs, strict=True):
            equal += text == expected.text
            largest = max(largest, abs(score - expected.score))
            shown += [(prompt, text, score)] * (len(shown) < 6)
    print(f'{equal} of {records} texts the same; largest difference of a score {largest:.1e}')
    for prompt, text, score in shown:
        print(f'  {prompt!r}: {text} ({score:.3f})')


if __name__ == '__main__':
    main()
