"""Texts about emoji scenes are true: each is parsed and held against boxes and names."""

import collections
import itertools
import pickle
import re

import numpy as np
import pytest

from semmim_jax.data.emoji import faces, languages
from semmim_jax.data.emoji.scenes import BACKGROUNDS
from semmim_jax.data.readers import sources
from semmim_jax.data.tokenizer import extend_tokenizer, make_tokenizer
from tests.data.conftest import make_data_config

NAMES = ('questions', 'statements', 'asking', 'dialog', 'german', 'french', 'sentiment')
COUNT = 400


def make(data_config, name, split='train', **changes):
    data_config.emoji_scenes.update(changes)
    return sources.make_source(f'emoji_{name}:{split}', data_config)


def drawn(source, count=COUNT):
    return [source.drawn(i) for i in range(count)]


def answers_of(scene, text, thing=None):
    """What a question's answer is, from the boxes; `thing` is what 'it' stands for."""
    text = text.replace(' it', f' the {thing}') if thing else text
    by_name = {o.name: o for o in scene.objects}
    name = re.sub(r'^(and|.*\b(a|an|the|there)) (an? )?', '', text)
    if text == 'what color is the background':
        return [scene.background]
    if text == 'how many objects are there':
        return [str(len(by_name))]
    if text.startswith(('is there', 'and ')):
        return ['yes' if name in by_name else 'no']
    if match := re.fullmatch(r'is the (.*) larger than the (.*)', text):
        one, other = (by_name[n].box for n in match.groups())
        side = lambda box: max(box[2] - box[0], box[3] - box[1])
        assert max(side(one), side(other)) >= 1.25 * min(side(one), side(other))
        return ['yes' if side(one) > side(other) else 'no']
    if text.startswith('what size'):
        return [by_name[name].size_word]
    where = {'left of': (0, -1), 'right of': (0, 1), 'above': (1, -1), 'below': (1, 1)}
    relation = re.match(r'what is (left of|right of|above|below)', text)[1]
    axis, sign = where[relation]
    answers = []
    for other in scene.objects:
        gap = np.subtract(other.centre, by_name[name].centre)
        along, across = sign * gap[axis], abs(gap[1 - axis])
        # On the diagonal left and right go before above and below.
        nearer = along >= across if axis == 0 else along > across
        if along >= 0.15 * scene.canvas and nearer and other.name != name:
            answers.append(other.name)
    return answers


@pytest.mark.parametrize('name', NAMES)
def test_record_is_a_pure_function_of_its_index(data_config, name):
    source = make(data_config, name, 'val')
    again = pickle.loads(pickle.dumps(source))
    for i in (7, 0, len(source) - 1):
        first, second = source[i], again[i]
        assert {**first, 'image': 0, 'images': 0} == {**second, 'image': 0, 'images': 0}
        pixels = [np.stack(r['images']) if 'images' in r else r['image'] for r in (first, second)]
        np.testing.assert_array_equal(*pixels)
        entry = source.entry(i)
        assert entry == {key: first[key] for key in entry}
        assert entry['image_id'] == source.image_id(i)
    with pytest.raises(IndexError):
        source[len(source)]


@pytest.fixture(scope='module')
def pretrained():
    """A vocabulary of captions, as a pre-trained run has it."""
    data_config = make_data_config()
    data_config.emoji_scenes.train_size = 300
    scenes = sources.make_source('emoji_scenes:train', data_config)
    return make_tokenizer('', texts=scenes.vocabulary_texts(), size=320)


@pytest.mark.parametrize('name', NAMES)
def test_vocabulary_has_every_word_of_other_splits(data_config, pretrained, name):
    """The pre-training vocabulary keeps its ids and gains the words."""
    old = pretrained
    source = make(data_config, name, train_size=300)
    tokenizer = extend_tokenizer(old, texts=source.vocabulary_texts(), size=800)
    kept = [(a, b) for a, b in zip(old.tokens(), tokenizer.tokens()) if not a.startswith('[unused')]
    assert all(a == b for a, b in kept)
    other = make(data_config, name, 'val')
    for entry in map(other.entry, range(100)):
        for text in [entry['prompt'], *entry.get('targets', ())]:
            assert tokenizer.length(text) == len(text.split()) + 2
            assert tokenizer.plain(tokenizer.plain(text)) == tokenizer.plain(text)


def test_questions_are_answered_by_the_scene(data_config):
    kinds = collections.Counter()
    for (scene,), entry in drawn(make(data_config, 'questions')):
        assert answers_of(scene, entry['prompt']) == entry['targets']
        kinds[entry['question_type'], entry['targets'][0]] += 1
    totals = collections.Counter()
    for (kind, _), n in kinds.items():
        totals[kind] += n
    assert set(totals) == {'background', 'count', 'exists', 'relation', 'compare'}
    for kind in ('exists', 'compare'):
        share = kinds[kind, 'yes'] / totals[kind]
        assert abs(share - 0.5) < 3 * 0.5 / totals[kind] ** 0.5
    source = make(data_config, 'questions')
    names = set(source.label_names(min_count=1))
    assert names >= {a for (_, entry) in drawn(source) for a in entry['targets']}


def test_asking_names_an_answer_of_every_target(data_config):
    for (scene,), entry in drawn(make(data_config, 'asking')):
        answer = entry['prompt'].removeprefix('question with answer ')
        assert sum(entry['weights']) == pytest.approx(1)
        for question in entry['targets']:
            assert answers_of(scene, question) == [answer]


def test_dialogs_are_true_and_need_their_history(data_config):
    source = make(data_config, 'dialog')
    with_it = 0
    for start in range(0, COUNT, 3):
        turns = [source.drawn(start + k) for k in range(3)]
        history, thing = '', None
        for (scene,), entry in turns:
            assert entry['prompt'].startswith(history)
            text = entry['prompt'][len(history) :]
            with_it += ' it' in text
            assert answers_of(scene, text, thing) == entry['targets']
            if text.startswith(('is there', 'and ')) and entry['targets'] == ['yes']:
                thing = re.sub(r'^(and|is there) (an? )?', '', text)
            history = f'{entry["prompt"]} {entry["targets"][0]} '
        assert len({scenes[0] for scenes, _ in turns}) == 1
        assert len({entry['image_id'] for _, entry in turns}) == 1
    assert with_it > 20


@pytest.fixture(scope='module')
def statements():
    return drawn(make(make_data_config(), 'statements'), 900)


def holds(scenes, text):
    """Whether a statement about two scenes is true."""
    shown = [{o.name for o in scene.objects} for scene in scenes]
    name = re.sub(r'^.* (a|an|shows?) ', '', text)
    if text.startswith('exactly one'):
        return sum(name in s for s in shown) == 1
    if 'same background' in text:
        return scenes[0].background == scenes[1].background
    if 'same number' in text:
        return len(shown[0]) == len(shown[1])
    if text.startswith('both'):
        return all(name in s for s in shown)
    if text.startswith('there are more'):
        sides = re.findall('left|right', text)
        one, other = (shown[side == 'right'] for side in sides)
        return len(one) > len(other)
    side, colour = re.fullmatch(r'the (left|right) image has an? (\w+) background', text).groups()
    return scenes[side == 'right'].background == colour


def test_statements_are_true_or_false_as_labelled(statements):
    truths = collections.defaultdict(list)
    for scenes, entry in statements:
        assert str(holds(scenes, entry['prompt'])) == entry['label']
        truths[entry['question_type']].append(entry['label'] == 'True')
    assert len(truths) == 6
    for values in truths.values():
        assert abs(np.mean(values) - 0.5) < 3 * 0.5 / len(values) ** 0.5


def test_one_image_and_the_statement_do_not_tell_the_truth(statements):
    """The best guess from the text and what one image shows of its matter, counted."""
    counts = collections.defaultdict(lambda: np.zeros(2, int))
    for scenes, entry in statements:
        text, kind = entry['prompt'], entry['question_type']
        left = scenes[0]
        appearance = {
            'exactly one': text.rsplit(' ', 1)[-1] in {o.name for o in left.objects},
            'both': text.rsplit(' ', 1)[-1] in {o.name for o in left.objects},
            'same background': left.background,
            'one background': left.background in text,
            'same number': len(left.objects),
            'more': len(left.objects),
        }[kind]
        side = re.findall('left|right', text)[:1]
        counts[kind, str(side), appearance][entry['label'] == 'True'] += 1
    best, total = collections.Counter(), collections.Counter()
    for (kind, _, _), by_answer in counts.items():
        best[kind] += by_answer.max()
        total[kind] += by_answer.sum()
    share = {kind: best[kind] / total[kind] for kind in total}
    # 1/2, 3/4 or 5/6 for ever more statements; few give the best guess by hindsight some more.
    assert max(share[k] for k in ('exactly one', 'same background', 'same number')) < 0.66
    assert max(share[k] for k in ('both', 'one background')) < 0.83
    assert share['more'] < 0.92
    assert sum(best.values()) / sum(total.values()) < 0.73


@pytest.mark.parametrize(
    ('language', 'first', 'second'),
    [
        # From the CLDR's charts.
        (languages.GERMAN, {'dog': 'hund', 'owl': 'eule', 'bear': 'bär'}, 'links'),
        (languages.FRENCH, {'dog': 'chien', 'owl': 'chouette', 'bear': 'ours'}, 'à gauche'),
    ],
)
def test_names_in_other_languages(data_config, language, first, second):
    table = make(data_config, 'questions').scenes.concept_table
    by_name = {c.name: languages.name_of(c.emoji, language.code) for c in table}
    assert {name: by_name[name] for name in first} == first
    assert len(set(by_name.values())) == len(by_name)
    assert language.sides['left of'][0] == f'{{}} {second}'
    assert set(language.colours) == set(BACKGROUNDS)


@pytest.mark.parametrize('name', ['german', 'french'])
def test_captions_in_other_languages_are_true(data_config, name):
    source = make(data_config, name)
    language = source.language
    placed = 0
    for (scene,), entry in drawn(source, 200):
        names = {languages.name_of(o.emoji, language.code): o for o in scene.objects}
        names = {n.replace('-', ' '): o for n, o in names.items()}
        assert 3 <= len(entry['targets']) <= 4
        for caption in entry['targets']:
            for word, thing in names.items():
                assert re.search(rf'\b{word}\b', caption)
                for size, form in language.sizes.items():
                    if size and re.search(rf'\b{form.format(word)}\b', caption):
                        assert thing.size_word == size
            colours = [
                c for c, w in language.colours.items() if caption.endswith(f' {w} hintergrund')
            ]
            colours += [c for c, w in language.colours.items() if caption.endswith(f' fond {w}')]
            assert colours == [scene.background] or caption == entry['targets'][0]
        for (a, one), (b, other) in itertools.permutations(names.items(), 2):
            for axis, (near, far) in ((0, ('left of', 'right of')), (1, ('above', 'below'))):
                form = language.sides[near]
                text = entry['targets'][-1]
                if form[0].format(a) in text and form[1].format(b) in text:
                    placed += 1
                    assert one.centre[axis] < other.centre[axis]
                    assert scene.relation(one, other) == near
                    assert scene.relation(other, one) == far
    assert placed > 100


def test_sentiment_is_that_of_the_face_named(data_config):
    by_face = {n: s for s, names in faces.SENTIMENTS.items() for n in names}
    labels = collections.Counter()
    for (scene,), entry in drawn(make(data_config, 'sentiment')):
        place = re.fullmatch('how does the (left|right|upper|lower) face feel', entry['prompt'])[1]
        shown_faces = [o for o in scene.objects if o.name in by_face]
        assert len(shown_faces) == 2
        axis, sign = {'left': (0, 1), 'right': (0, -1), 'upper': (1, 1), 'lower': (1, -1)}[place]
        meant, other = sorted(shown_faces, key=lambda o: sign * o.centre[axis])
        gaps = np.abs(np.subtract(meant.centre, other.centre))
        assert gaps[axis] >= gaps[1 - axis]
        assert gaps[axis] >= 0.15 * scene.canvas
        assert by_face[meant.name] == entry['label'] != by_face[other.name]
        labels[entry['label']] += 1
    assert set(labels) == set(faces.SENTIMENTS)
    assert max(labels.values()) / COUNT < 1 / 3 + 3 * (2 / 9 / COUNT) ** 0.5


def test_faces_are_no_concepts_of_other_scenes(data_config):
    drawn_faces = {c.emoji for c in faces.face_concepts()}
    scenes = make(data_config, 'sentiment').scenes
    assert drawn_faces == {c.emoji for c in scenes.concept_table[165:]}
    assert not drawn_faces & {c.emoji for c in make(data_config, 'questions').scenes.concept_table}


def test_held_out_splits(data_config):
    assert make(data_config, 'questions', 'held_out_concepts').entry(0)
    for name in ('statements', 'sentiment'):
        with pytest.raises(ValueError, match=f'emoji_{name}:held_out_style: .*train, val, test'):
            make(data_config, name, 'held_out_style')


def test_a_fixed_number_of_objects_leaves_out_statements_of_numbers(data_config):
    source = make(data_config, 'statements', min_objects=3, max_objects=3)
    kinds = {source.entry(i)['question_type'] for i in range(100)}
    assert kinds == {'exactly one', 'both', 'same background', 'one background'}
