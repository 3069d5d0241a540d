"""Visual Genome's files and ALBEF's lists, read directly."""

import json

import pytest

from configs.pretrain import get_config
from semmim_jax.data.answers import normalise_answer
from semmim_jax.data.readers.albef import read_albef
from semmim_jax.data.readers.sources import make_source
from semmim_jax.data.readers.visual_genome import read_vg, read_vgqa
from tests.importers import fixtures


@pytest.fixture
def folder(tmp_path):
    fixtures.write_visual_genome(tmp_path)
    fixtures.write_albef(tmp_path)
    return tmp_path


def test_regions_are_captions_and_images_lie_in_either_folder(folder):
    source = make_source(f'vg:{folder}/region_descriptions.json', get_config('tiny').data)
    assert [source.image_id(n) for n in range(3)] == [1, 2, 61]
    assert source.captions(1)[0] == 'the red thing 1' and len(source.captions(1)) == 5
    assert source.files(1) == (f'{folder}/VG_100K_2/2.jpg',)
    assert source[1]['image'].shape == (40, 60, 3)


def test_questions_have_one_answer_at_half_a_weight(folder):
    source = make_source(f'vgqa:{folder}/question_answers.json', get_config('tiny').data)
    assert len(source) == 6
    entry = source.entry(5)
    assert entry['image_id'] == 61 and entry['question_id'] == 9021
    assert entry['targets'] == ['Black.'] and entry['weights'] == [0.5]  # ALBEF's
    assert normalise_answer(entry['targets'][0]) == 'black'


def test_albefs_lists_by_their_keys(folder):
    data = get_config('tiny').data
    question = make_source(f'albef:{folder}/vqa_train.json', data).entry(0)
    assert question['targets'] == ['no', 'yes'] and question['weights'] == [0.7, 0.3]
    assert len(question['annotators']) == 10
    statements = make_source(f'albef:{folder}/nlvr_train.json', data)
    assert len(statements[0]['images']) == 2 and statements.entry(1)['label'] == 'True'
    fixtures.write_captions(folder / 'own')
    captions = make_source(f'albef:{folder}/own/captions.json', data)
    assert captions.captions(1) == [fixtures.caption(1, 0), fixtures.caption(1, 1)]


@pytest.mark.parametrize(
    'read, content, said',
    [
        (read_vg, {}, 'a list of images is needed'),
        (read_vg, [{'id': 1}], 'image id 1: needs the key "regions"'),
        (read_vg, [{'id': 1, 'regions': [{'phrase': 3}]}], '"phrase" cannot be 3'),
        (read_vgqa, [{'id': 1, 'qas': []}], 'no questions'),
        (read_vgqa, [{'id': 1, 'qas': [{'qa_id': 4}]}], 'question 4: needs the key "question"'),
        (read_albef, [{'image': 'a', 'question': 'b'}], 'needs the key "question_id"'),
        (
            read_albef,
            [{'image': 'a', 'question': 'b', 'question_id': 1, 'answer': ['c', ' ']}],
            'entry 0: "answer" must be',
        ),
        (read_albef, [{'images': ['a'], 'sentence': 'b', 'label': 'True'}], 'must be two paths'),
        (
            read_albef,
            [{'images': ['a', 'b'], 'sentence': 'c', 'label': 'yes'}],
            '"label" must be True or False',
        ),
        (read_albef, [{'picture': 'a'}], 'needs the key "image"'),
    ],
)
def test_an_error_names_file_and_entry(read, content, said, tmp_path):
    path = tmp_path / 'list.json'
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f'^{path}.*{said}') as error:
        read(str(path), image_root='')
    assert '\n' not in str(error.value)


def test_with_skip_the_other_entries_are_read(tmp_path):
    content = [
        {'id': 1, 'regions': [{'phrase': 'good'}]},
        {'id': 2, 'regions': 'none'},
        {'id': 3, 'regions': [{'phrase': 'better'}]},
    ]
    path = tmp_path / 'list.json'
    path.write_text(json.dumps(content))
    errors = []
    records = read_vg(str(path), image_root='', skip=errors.append)
    assert [record.image_id for record in records] == [1, 3]
    assert [str(error) for error in errors] == [
        f'{path}, image id 2: "regions" cannot be \'none\'',
    ]
