"""The official files of SugarCrepe, ARO and Winoground, and own tests on scenes."""

import json

import numpy as np
import PIL.Image
import pytest

from semmim_jax.data.emoji.compositions import KINDS, OPPOSITE
from semmim_jax.data.readers import sources
from semmim_jax.data.readers.compositions import read_aro, read_sugarcrepe, read_winoground
from semmim_jax.data.unreadable import UnreadableRecord
from tests.data.conftest import make_data_config

ARO = {
    'image_path': 'a.png',
    **{'bbox_x': 2, 'bbox_y': 1, 'bbox_w': 3, 'bbox_h': 4},
    **{'true_caption': 'the dog is on the bed', 'false_caption': 'the bed is on the dog'},
    'relation_name': 'on',
}


def written(folder, name, value):
    text = value if isinstance(value, str) else json.dumps(value)
    (folder / name).write_text(text)
    return str(folder / name)


def test_sugarcrepe(tmp_path):
    entry = {'filename': 'x.jpg', 'caption': 'a red dog', 'negative_caption': 'a blue dog'}
    path = written(tmp_path, 'replace_att.json', {'0': entry, '7': entry})
    first, second = read_sugarcrepe(path, image_root='coco')
    assert first.images == ('coco/x.jpg',) and first.captions == ('a red dog',)
    assert first.wrong == ('a blue dog',) and first.question_type == 'replace_att'
    assert second.where == f"{path}, entry '7'"


def test_aro_counts_the_box_alone(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, 3), np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / 'a.png')
    attribution = {**ARO, 'bbox_x': 0, 'attributes': ['red', 'big']}
    path = written(tmp_path, 'vgr.json', [ARO, attribution, {**ARO, 'bbox_x': 9}])
    source = sources.make_source(f'aro:{path}', make_data_config())
    record = source[0]
    np.testing.assert_array_equal(record['image'], pixels[1:5, 2:5])
    assert record['captions'] == ['the dog is on the bed']
    assert record['wrong'] == ['the bed is on the dog'] and record['question_type'] == 'on'
    assert source.entry(1)['question_type'] == 'red_big'
    assert source.image_id(0) != source.image_id(1)  # two parts of an image are two images
    with pytest.raises(UnreadableRecord, match='box is outside'):
        source[2]


def test_winoground(tmp_path):
    entry = {'image_0': 'ex_3_img_0', 'image_1': 'ex_3_img_1', 'caption_0': 'some plants around a'}
    entry |= {'caption_1': 'a around some plants', 'collapsed_tag': 'Relation'}
    path = written(tmp_path, 'examples.jsonl', json.dumps(entry) + '\n')
    (record,) = read_winoground(path, image_root='')
    images = [str(tmp_path / 'images' / f'ex_3_img_{n}.png') for n in (0, 1)]
    assert list(record.images) == images
    assert record.captions == ('some plants around a', 'a around some plants')
    assert record.question_type == 'Relation' and record.wrong == ()


SUGAR = {'filename': 'x.jpg', 'caption': 'a', 'negative_caption': 'b'}


@pytest.mark.parametrize(
    'read, value, message',
    [
        (read_sugarcrepe, {}, 'no entries'),
        (read_sugarcrepe, {'0': {**SUGAR, 'caption': ' '}}, 'entry \'0\': "caption" is empty'),
        (read_sugarcrepe, {'0': {'filename': 'x.jpg', 'caption': 'a'}}, 'negative_caption'),
        (read_sugarcrepe, [SUGAR], 'list'),
        (read_aro, [{**ARO, 'bbox_w': 0}], 'the box is 0 x 4 pixels'),
        (read_aro, [{**ARO, 'bbox_x': 'left'}], 'bbox_x'),
        (read_winoground, [{'image_0': 'a'}], 'image_1'),
    ],
)
def test_what_is_wrong_is_named(read, value, message, tmp_path):
    path = written(tmp_path, 'set.json', value)
    with pytest.raises(ValueError, match=message) as error:
        read(path, image_root='')
    assert path in str(error.value) and '\n' not in str(error.value)


def test_own_tests_are_true_and_false_of_their_scene():
    config = make_data_config()
    config.emoji_scenes.eval_size = 40
    source = sources.make_source('emoji_compositions:val', config)
    for index in range(40):
        (scene,), entry = source.drawn(index)
        (right,), (wrong,) = entry['captions'], entry['wrong']
        names = {thing.name: thing for thing in scene.objects}
        assert entry['question_type'] == KINDS[index % 4] and len(names) == 2
        assert right != wrong and all(name in right for name in names)
        assert right.endswith(f'{scene.background} background')
        if entry['question_type'].startswith('swap'):
            words = lambda text: sorted(w for w in text.split() if w not in ('a', 'an'))
            assert words(right) == words(wrong)
        if entry['question_type'] == 'swap_size':
            for thing in names.values():
                assert f'{thing.size_word} {thing.name}' in right
                assert f'{thing.size_word} {thing.name}' not in wrong
        if entry['question_type'].endswith('relation'):
            relation = next(r for r in OPPOSITE if f' {r} ' in right)
            first, second = sorted(names, key=right.index)
            assert scene.relation(names[first], names[second]) == relation
        if entry['question_type'] == 'replace_object':
            assert sum(name in wrong for name in names) == 1
        assert source[index]['image'].shape == (scene.canvas, scene.canvas, 3)
        assert source.captions(index) == [right]
    assert source.entry(3) == source.entry(3)
