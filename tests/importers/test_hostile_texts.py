"""Texts and lists that are broken: what is dropped, and what is stored of the others."""

import json

import pytest

from semmim_jax.importers.candidates import DropReason
from semmim_jax.importers.preparation import Failed
from semmim_jax.importers.texts import stored_text
from tests.importers import fixtures
from tests.importers.fixtures import jpeg, write
from tests.importers.sets import dropped, prepared

LONG = 'word ' * 2000


@pytest.fixture
def folder(tmp_path):
    for n in range(6):
        write(tmp_path / f'{n}.jpg', jpeg(n))
    return tmp_path


@pytest.mark.parametrize(
    'captions, reason',
    [
        ([''], 'no caption'),
        ([' .!? ', '...'], 'no caption'),
        ([LONG], 'caption too long'),
        (['\ud83d half'], 'bad text'),
        (['\udfff'], 'bad text'),
    ],
)
def test_an_image_without_any_good_caption_is_dropped(captions, reason, folder):
    entries = [{'image': '0.jpg', 'caption': captions}, {'image': '1.jpg', 'caption': 'good'}]
    write(folder / 'list.json', entries)
    records = prepared(folder / 'out', 'json', folder / 'list.json')
    assert [record.key for record in records] == ['1.jpg']
    assert dropped(folder / 'out') == [('0.jpg', reason)]


def test_a_bad_caption_beside_good_ones_is_left_out_and_counted(folder, capsys):
    captions = ['good', '', LONG, '\ud83d', 'good', 'better']
    write(folder / 'list.json', [{'image': '0.jpg', 'caption': captions}])
    (record,) = prepared(folder / 'out', 'json', folder / 'list.json')
    assert record.captions == ('good', 'better') and not dropped(folder / 'out')
    said = 'texts left out of records: bad text 1, caption too long 1, no caption 1'
    assert capsys.readouterr().out.splitlines()[-1] == said


@pytest.mark.parametrize(
    'text, stored',
    [
        ('a\0b\x07c\x1b', 'a b c'),
        ('  two\n\nlines\t', 'two lines'),
        ('Cafe\u0301, "As It Is"!', 'Caf\u00e9, "As It Is"!'),
        (
            '\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645',
            '\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645',
        ),
        ('\u732b \U0001f408', '\u732b \U0001f408'),
        ('x' * 8192, 'x' * 8192),
    ],
)
def test_a_text_is_stored_as_written(text, stored):
    assert stored_text(text) == stored


@pytest.mark.parametrize(
    'text, reason',
    [('x' * 8193, 'caption too long'), ('\u00e9' * 4097, 'caption too long')],
)
def test_a_text_has_at_most_8192_bytes(text, reason):
    with pytest.raises(DropReason) as error:
        stored_text(text)
    assert error.value.reason == reason


def test_a_caption_that_is_not_utf8(folder):
    lines = [
        b'{"image": "0.jpg", "caption": "caf\xe9"}',
        b'{"image": "1.jpg", "caption": ["caf\xe9", "coffee"]}',
        b'{"image": "2.jpg", "caption": "tea"}',
    ]
    write(folder / 'list.jsonl', b'\n'.join(lines))
    records = prepared(folder / 'out', 'json', folder / 'list.jsonl')
    assert {r.key: r.captions for r in records} == {'1.jpg': ('coffee',), '2.jpg': ('tea',)}
    assert dropped(folder / 'out') == [('0.jpg', 'bad utf-8')]


def test_a_line_that_is_broken_or_lacks_a_key_is_dropped_with_its_number(folder):
    lines = [
        '{"image": "0.jpg", "caption": "good"}',
        '{"image": "1.jpg", "capt',
        '',
        '{"image": "2.jpg"}',
        '{"caption": "no image"}',
        '[1, 2]',
        '{"image": "3.jpg", "caption": 7}',
        '{"image": "4.jpg", "caption": "\\ud83d"}',
        '{"image": "5.jpg", "caption": "good"}',
    ]
    write(folder / 'list.jsonl', '\n'.join(lines))
    records = prepared(folder / 'out', 'json', folder / 'list.jsonl')
    assert [record.key for record in records] == ['0.jpg', '5.jpg']
    found = dropped(folder / 'out')
    assert found == [('', 'malformed entry')] * 5 + [('4.jpg', 'bad text')]
    where = [json.loads(x)['where'] for x in (folder / 'out/dropped.jsonl').open()]
    for number, line in zip((2, 4, 5, 6, 7), where, strict=False):
        assert line.startswith(f'{folder}/list.jsonl, line {number}: '), line


def test_entries_of_other_lists_that_are_malformed_are_dropped(folder):
    fixtures.write_coco(folder / 'coco')
    path = folder / 'coco/annotations/captions_val2017.json'
    value = json.loads(path.read_text())
    value['images'].append(value['images'][0])
    value['annotations'] += [{'image_id': 777, 'caption': 'a'}, {'image_id': 9, 'caption': None}]
    write(path, value)
    records = prepared(folder / 'out', 'coco', path, images=str(folder / 'coco/val2017'))
    assert len(records) == 3
    reasons = [reason for _, reason in dropped(folder / 'out')]
    assert reasons == ['duplicate', 'malformed entry', 'malformed entry']


def test_questions_that_are_malformed_are_dropped(folder):
    fixtures.write_vqa(folder / 'coco')
    names = ('v2_OpenEnded_mscoco_val2014_questions', 'v2_mscoco_val2014_annotations')
    questions, annotations = (folder / f'coco/{name}.json' for name in names)
    value = json.loads(questions.read_text())
    value['questions'][0]['question'] = 5
    value['questions'].append({'image_id': 42, 'question': 'Not annotated?', 'question_id': 1})
    write(questions, value)
    records = prepared(folder / 'out', 'vqa', f'{questions},{annotations}')
    assert sum(len(record.entries) for record in records) == 5
    assert [reason for _, reason in dropped(folder / 'out')] == ['malformed entry'] * 2


@pytest.mark.parametrize(
    'kind, name', [('vg', 'region_descriptions'), ('vgqa', 'question_answers')]
)
def test_images_of_visual_genome_that_are_malformed_are_dropped(kind, name, folder):
    fixtures.write_visual_genome(folder / 'vg')
    path = folder / f'vg/{name}.json'
    images = json.loads(path.read_text())
    write(path, [7, *images, {'id': 'one'}])
    assert len(prepared(folder / 'out', kind, path)) == len(images)
    assert dropped(folder / 'out') == [('', 'malformed entry')] * 2
    where = [json.loads(x)['where'] for x in (folder / 'out/dropped.jsonl').open()]
    assert where[0].startswith(f'{path}, image 0: ')


def test_an_id_that_no_integer_of_64_bits_holds_is_dropped(folder):
    question = {'question': 'a?', 'answer': 'b', 'image': '0.jpg'}
    ids = (1, 2**63, -(10**30), 2**63 - 1)
    write(folder / 'list.json', [{**question, 'question_id': n} for n in ids])
    (record,) = prepared(folder / 'out', 'json', folder / 'list.json')
    assert [entry['question_id'] for entry in record.entries] == [1, 2**63 - 1]
    assert dropped(folder / 'out') == [('0.jpg', 'malformed entry')] * 2


@pytest.mark.parametrize(
    'content, said',
    [
        ('[{"image": "0.jpg", "caption": "a"}', 'line 1: not JSON'),
        ('', 'no entries'),
        ('{"image": 1}\n{"caption": 2}', 'nothing to prepare|nothing is left'),
    ],
)
def test_a_list_that_cannot_be_read_is_refused(content, said, folder):
    write(folder / 'list.json', content)
    with pytest.raises((ValueError, Failed), match=said):
        prepared(folder / 'out', 'json', folder / 'list.json')
    assert not (folder / 'out/manifest.json').exists()
