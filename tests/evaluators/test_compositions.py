"""Tests of composition: judged by hand, against a model that knows and one that guesses."""

import json
import types

import numpy as np
import PIL.Image
import pytest

from configs.pretrain import get_config
from semmim_jax.data.readers.sources import make_source
from semmim_jax.data.tokenizer import make_tokenizer
from semmim_jax.evaluators import compositions
from semmim_jax.evaluators.report import EvalData


def test_single_images_by_hand():
    scores = [np.array([[2.0, 1.0]]), np.array([[1.0, 1.0]]), np.array([[3.0, 1.0, 4.0, 0.0]])]
    values, chance = compositions.summary(scores, ['a', 'b', 'a'])
    assert values == {'all': pytest.approx(1 / 3), 'a': 0.5, 'b': 0.0}  # a tie is not passed
    assert chance == {'all': pytest.approx((0.5 + 0.5 + 0.25) / 3), 'a': 0.375, 'b': 0.5}


def test_too_many_kinds_are_one():
    kinds = [f'kind {n}' for n in range(compositions.MAX_KINDS + 1)]
    assert set(compositions.summary([np.eye(1, 2)] * len(kinds), kinds)[0]) == {'all'}


def test_pairs_are_judged_as_winoground_has_it():
    rng = np.random.default_rng(0)
    scores = list(rng.normal(size=(4000, 2, 2)))
    values, chance = compositions.summary(scores, [''] * 4000)
    # Winoground's rules, with c0_i1 the score of caption 0 with image 1; ours are [image, text].
    text = [s[0, 0] > s[0, 1] and s[1, 1] > s[1, 0] for s in scores]
    image = [s[0, 0] > s[1, 0] and s[1, 1] > s[0, 1] for s in scores]
    both = [t and i for t, i in zip(text, image)]
    assert values == {
        'text': np.mean(text),
        'image': np.mean(image),
        'group': np.mean(both),
    }
    assert values == pytest.approx(chance, abs=0.03)  # random scores: 1/4, 1/4, 1/6


class Judge:
    """Reads captions by their ids: features and matches that prefer the `preferred` texts."""

    def __init__(self, tokenizer, preferred, length):
        self.known = {tuple(tokenizer.encode(text, length).tolist()) for text in preferred}

    def __contains__(self, name):
        return name in ('image', 'text', 'context', 'match')

    def __call__(self, name, *inputs):
        if name == 'text':
            good = np.array([tuple(row.tolist()) in self.known for row in inputs[0]], float)
            feature = np.stack([good, 1 - good], axis=1)
            return {'feature': feature, 'tokens': feature[:, None], 'mask': inputs[0] > 0}
        if name == 'image':
            return np.tile([1.0, 0.0], (len(inputs[0]), 1))
        if name == 'context':
            return None
        _, rows, tokens, _ = inputs
        assert len(rows) == 8  # one shape: one program
        return np.stack([tokens[:, 0, 1], tokens[:, 0, 0]], axis=1)


def opened(*specs, image_root=''):
    config = get_config('tiny')
    config.data.emoji_scenes.eval_size = 21
    config.data.captions.image_root = image_root
    config.eval.compositions = specs
    source = make_source('emoji_scenes:val', config.data)
    texts = source.vocabulary_texts()
    tokenizer = make_tokenizer('', texts=texts, size=config.model.text.vocab_size)
    return config, EvalData(source, tokenizer, config.data, config.eval)


def test_own_captions_are_told_apart_by_who_knows_them():
    config, data = opened('emoji_compositions:val')
    compositions.check(config)
    source = make_source('emoji_compositions:val', config.data)
    texts = {key: [source.entry(i)[key][0] for i in range(21)] for key in ('captions', 'wrong')}
    for key, value in (('captions', 1.0), ('wrong', 0.0)):
        judge = Judge(data.tokenizer, texts[key], config.data.max_tokens)
        figures = compositions.evaluate(judge, data).figures
        kinds = ('all', 'swap_size', 'swap_relation', 'replace_relation', 'replace_object')
        expected = {f'emoji_compositions/{k}_{s}': value for k in kinds for s in ('itc', 'itm')}
        assert figures == {'emoji_compositions/tests': 21, **expected}


def write_pictures(folder, *names):
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(exist_ok=True)
        pixels = np.full((8, 10, 3), 20 * number, np.uint8)
        PIL.Image.fromarray(pixels).save(folder / name)


def test_official_files_are_evaluated(tmp_path):
    write_pictures(tmp_path, 'a.png', 'images/ex_0_img_0.png', 'images/ex_0_img_1.png')
    entry = {'filename': 'a.png', 'caption': 'a dog', 'negative_caption': 'a cat'}
    (tmp_path / 'swap_att.json').write_text(json.dumps({'0': entry, '1': entry}))
    pair = {f'image_{n}': f'ex_0_img_{n}' for n in (0, 1)}
    pair |= {'caption_0': 'a dog', 'caption_1': 'a cat', 'collapsed_tag': 'Object'}
    (tmp_path / 'examples.jsonl').write_text(json.dumps(pair) + '\n')
    specs = [f'sugarcrepe:{tmp_path}/swap_att.json', f'winoground:{tmp_path}/examples.jsonl']
    config, data = opened(*specs)
    compositions.check(config)
    judge = Judge(data.tokenizer, ['a dog'], config.data.max_tokens)
    report = compositions.evaluate(judge, data)
    assert report.figures['swap_att/all_itc'] == report.figures['swap_att/swap_att_itm'] == 1
    assert report.chance['examples/group_itm'] == pytest.approx(1 / 6)
    # Both images prefer 'a dog': neither score is won.
    assert [report.figures[f'examples/{x}_itc'] for x in ('text', 'image', 'group')] == [0, 0, 0]


def test_sets_that_cannot_be_are_named_before_a_run_starts(tmp_path):
    (tmp_path / 'a.json').write_text(
        json.dumps({'0': {'filename': 'no.png', 'caption': 'a', 'negative_caption': 'b'}})
    )
    for specs, message in (
        (('emoji_scenes:val',), 'has no captions that are wrong'),
        (('nowhere:x',), 'unknown source'),
        ((0,), '0 is no source'),
        ((f'sugarcrepe:{tmp_path}/a.json',), 'no file .*no.png'),
        ((f'sugarcrepe:{tmp_path}/a.json', 'sugarcrepe:b/a.json'), "named 'a'"),
    ):
        config = types.SimpleNamespace(**dict(opened(*specs)[0].items()))
        with pytest.raises(ValueError, match=f'eval.compositions.*{message}'):
            compositions.check(config)
