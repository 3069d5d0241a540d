"""Caption figures are those of the field's own scorers; our CIDEr-D equals theirs."""

import json
import random
import shutil

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from semmim_jax.evaluators.captions import score_captions, write_coco_results
from semmim_jax.ops.cider import CiderD

WORDS = 'a dog cat bus on red blue background large small owl and of'.split()


def sentences(rng, count, low=1, high=9):
    return [' '.join(rng.choices(WORDS, k=rng.randint(low, high))) for _ in range(count)]


@pytest.fixture(scope='module')
def corpus():
    """Captions and one to five references of 60 images, already split into words."""
    rng = random.Random(0)
    references = {i: sentences(rng, 1 + i % 5) for i in range(60)}
    captions = {}
    for i, group in references.items():
        words = group[0].split()
        captions[i] = ' '.join(words[: max(1, len(words) - i % 3)] + rng.choices(WORDS, k=i % 4))
    return captions, references


def test_cider_d_equals_pycocoevalcap(corpus):
    captions, references = corpus
    _, expected = Cider().compute_score(references, {i: [c] for i, c in captions.items()})
    split = {i: [r.split() for r in group] for i, group in references.items()}
    cider = CiderD(split.values())
    ours = [cider.score(captions[i].split(), split[i]) for i in captions]
    np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-12)
    assert max(ours) > 1


def test_cider_d_on_token_ids_and_empty_captions(corpus):
    captions, references = corpus
    number = {word: n for n, word in enumerate(WORDS)}
    ids = {i: [[number[w] for w in r.split()] for r in group] for i, group in references.items()}
    words = {i: [r.split() for r in group] for i, group in references.items()}
    by_ids, by_words = CiderD(ids.values()), CiderD(words.values())
    for i, caption in captions.items():
        own = [number[w] for w in caption.split()]
        assert by_ids.score(own, ids[i]) == pytest.approx(by_words.score(caption.split(), words[i]))
    assert by_words.score([], words[0]) == 0.0


def test_figures_are_the_scorers(corpus):
    captions, references = corpus
    given = {i: [c] for i, c in captions.items()}
    shouted = {i: [f'{r.capitalize()}!' for r in group] for i, group in references.items()}
    report = score_captions(captions, shouted, java=False)
    bleu = Bleu(4).compute_score(references, given, verbose=0)[0]
    expected = {f'bleu{n}': bleu[n - 1] for n in range(1, 5)}
    expected['rouge_l'] = Rouge().compute_score(references, given)[0]
    expected['cider'] = Cider().compute_score(references, given)[0]
    assert report.figures == pytest.approx(expected, abs=1e-12)
    assert 'not available: meteor, spice' in report.text
    assert report.chance['cider'] < report.figures['cider'] / 3


def test_chinese_captions_are_scored_by_characters(corpus):
    """As the same captions with a space after every character: no sentence is one word."""
    signs = dict(zip(WORDS, '一只猫狗的红蓝大小在上有和'))
    apart = lambda text: ' '.join(signs[word] for word in text.split())
    captions = {i: apart(caption) for i, caption in corpus[0].items()}
    references = {i: [apart(r) for r in group] for i, group in corpus[1].items()}
    joined = {i: caption.replace(' ', '') for i, caption in captions.items()}
    right = {i: [r.replace(' ', '') for r in group] for i, group in references.items()}
    expected = Cider().compute_score(references, {i: [c] for i, c in captions.items()})[0]
    assert score_captions(joined, right, java=False).figures['cider'] == pytest.approx(expected)


def test_perfect_captions_and_captions_of_other_images():
    rng = random.Random(1)
    references = {i: [sentence] for i, sentence in enumerate(sentences(rng, 30, 5, 9))}
    captions = {i: group[0] for i, group in references.items()}
    report = score_captions(captions, references, java=False)
    assert report.figures['bleu4'] == pytest.approx(1.0, abs=1e-6)
    assert report.figures['rouge_l'] == pytest.approx(1.0)
    assert report.figures['cider'] == pytest.approx(10.0)
    assert report.chance['cider'] < 2
    two = {1: ['a red dog runs'], 2: ['one blue cat sleeps']}
    swapped = score_captions({1: two[2][0], 2: two[1][0]}, two, java=False)
    # Chance gives each image another's caption: of two that were swapped, the right ones.
    assert swapped.figures['cider'] == 0.0
    assert swapped.chance['cider'] == pytest.approx(10.0)


def test_images_must_be_the_same():
    references = {1: ['a'], 2: ['b']}
    with pytest.raises(ValueError, match='a caption for the image id 3, which has no references'):
        score_captions({1: 'a', 2: 'b', 3: 'c'}, references, java=False)
    with pytest.raises(ValueError, match='no caption for the image id 2'):
        score_captions({1: 'a'}, references, java=False)
    with pytest.raises(ValueError, match='at least two'):
        score_captions({1: 'a'}, {1: ['a']}, java=False)


@pytest.mark.skipif(not shutil.which('java'), reason='needs Java')
def test_with_java():
    references = {0: ['A dog, running!', 'the dog runs'], 1: ['A cat.'], 2: ["It's an owl"]}
    captions = {0: 'a dog running', 1: '', 2: "it 's an owl"}
    report = score_captions(captions, references)
    assert 'Penn Treebank' in report.text
    assert 0.1 < report.figures['meteor'] < 1
    plain = score_captions(captions, references, java=False).figures
    # The Treebank takes it's apart; without Java it is one word, and no caption holds it.
    assert report.figures['cider'] > plain['cider']


def test_coco_results_file(tmp_path):
    write_coco_results(tmp_path / 'r.json', {np.int32(42): 'a dog', 7: 'a cat'})
    assert json.loads((tmp_path / 'r.json').read_text()) == [
        {'image_id': 42, 'caption': 'a dog'},
        {'image_id': 7, 'caption': 'a cat'},
    ]
