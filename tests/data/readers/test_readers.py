"""Readers of the official files: what a record becomes, and one line for each mistake."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from semmim_jax.data.readers import sources


@pytest.fixture
def root(tmp_path, data_config):
    data_config.captions.image_root = str(tmp_path)
    return tmp_path


def picture(path, value=9):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (8, 6), (value, 0, 0)).save(path, format='PNG')


def write(path, content):
    """JSON, or JSON lines for a list."""
    if isinstance(content, list):
        path.write_text(''.join(json.dumps(line) + '\n' for line in content))
    else:
        path.write_text(json.dumps(content))
    return path


def refuses(spec, data_config, message):
    with pytest.raises(ValueError, match=message) as e:
        sources.make_source(spec, data_config)
    assert '\n' not in str(e.value)


def karpathy_image(number, split, **changes):
    image = {
        'filepath': 'val2014',
        'filename': f'{number}.jpg',
        'cocoid': 100 + number,
        'imgid': number,
        'split': split,
        'sentences': [{'raw': f'Picture {number}{letter}.', 'tokens': []} for letter in 'abcde'],
        **changes,
    }
    return {key: value for key, value in image.items() if value is not None}


def test_karpathy_splits(root, data_config):
    splits = ['train', 'restval', 'val', 'test', 'test']
    images = [karpathy_image(n, split) for n, split in enumerate(splits)]
    path = write(root / 'dataset_coco.json', {'images': images})
    ids = {}
    for split in ('train', 'val', 'test'):
        source = sources.make_source(f'karpathy:{path}:{split}', data_config)
        ids[split] = [source.image_id(i) for i in range(len(source))]
    assert ids == {'train': [100, 101], 'val': [102], 'test': [103, 104]}
    picture(root / 'val2014' / '3.jpg', 33)
    record = source[0]
    assert record['captions'] == source.captions(0) == [f'Picture 3{x}.' for x in 'abcde']
    assert record['image'][0, 0].tolist() == [33, 0, 0]
    assert source.entry(0) == {'image_id': 103, 'captions': record['captions']}


def test_flickr_has_no_folder_and_no_cocoid(root, data_config):
    image = karpathy_image(7, 'test', filepath=None, cocoid=None)
    path = write(root / 'f.json', {'images': [image]})
    picture(root / '7.jpg')
    source = sources.make_source(f'karpathy:{path}:test', data_config)
    assert source[0]['image_id'] == 7


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'sentences': [{'raw': ' .'}]}, r"image 0 \(0.jpg\): empty caption ' .'"),
        ({'sentences': []}, 'no captions'),
        ({'sentences': None}, 'needs the key "sentences"'),
        ({'filename': None}, 'image 0: needs the key "filename"'),
        ({'cocoid': 'x'}, '"cocoid" cannot be \'x\''),
    ],
)
def test_karpathy_mistakes(root, data_config, changes, message):
    path = write(root / 'd.json', {'images': [karpathy_image(0, 'test', **changes)]})
    refuses(f'karpathy:{path}:test', data_config, f'd.json.*{message}')


def test_karpathy_split_must_be_known(root, data_config):
    path = root / 'd.json'
    refuses(f'karpathy:{path}:dev', data_config, 'karpathy:FILE:SPLIT')
    refuses(f'karpathy:{path}:val', data_config, 'd.json: No such file')
    write(path, {'images': [karpathy_image(0, 'test')]})
    refuses(f'karpathy:{path}:val', data_config, "d.json: no image of the split 'val'")


def coco(root, **changes):
    """A file of COCO's form with images 7 and 5, three captions of 5 and one of 7."""
    texts = ((5, 'A dog.'), (7, 'A cat'), (5, 'a dog on grass'), (5, 'Dogs'))
    content = {
        'info': {'year': 2017},
        'images': [{'id': n, 'file_name': f'{n:012d}.jpg', 'height': 6} for n in (7, 5)],
        'annotations': [
            {'id': 900 + n, 'image_id': image, 'caption': text}
            for n, (image, text) in enumerate(texts)
        ],
        **changes,
    }
    return f'coco:{write(root / "captions_val2017.json", content)}'


def test_coco_captions_are_grouped_by_image(root, data_config):
    data_config.captions.image_root = str(root / 'val2017')
    picture(root / 'val2017' / '000000000005.jpg', 55)
    source = sources.make_source(coco(root), data_config)
    assert [source.entry(i) for i in range(len(source))] == [
        {'image_id': 7, 'captions': ['A cat']},
        {'image_id': 5, 'captions': ['A dog.', 'a dog on grass', 'Dogs']},
    ]
    assert source[1]['image'][0, 0].tolist() == [55, 0, 0]
    assert [line.split(' (')[0] for line in source.missing_files()[0]] == [
        f'{root}/val2017/000000000007.jpg'
    ]


def test_coco_images_without_caption_count_as_empty_captions(root, data_config):
    images = [{'id': n, 'file_name': f'{n}.jpg'} for n in (5, 6, 7)]
    spec = coco(root, images=images)
    data_config.max_replaced = 0.2  # one of five
    source = sources.make_source(spec, data_config)
    assert [source.image_id(i) for i in range(len(source))] == [5, 7]
    data_config.max_replaced = 0.19
    refuses(spec, data_config, r"captions_val2017.json, image id 6 \(6.jpg\): empty caption ''")


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'images': None}, '"images" cannot be None'),
        ({'images': [], 'annotations': []}, 'no images'),
        ({'images': [{'file_name': 'x.jpg'}]}, 'image 0: needs the key "id"'),
        ({'images': [{'id': 5}]}, 'image 0: needs the key "file_name"'),
        ({'images': [{'id': 5, 'file_name': n} for n in 'ab']}, r'image 1 \(b\): the id 5 .*twice'),
        ({'images': [{'id': 5, 'file_name': 'x'}]}, 'annotation 1: no image has the id 7'),
        ({'annotations': [{'image_id': 5}]}, 'annotation 0: needs the key "caption"'),
        ({'annotations': [{'image_id': 5, 'caption': 3}]}, 'annotation 0: "caption" cannot be 3'),
    ],
)
def test_coco_mistakes(root, data_config, changes, message):
    refuses(coco(root, **changes), data_config, f'captions_val2017.json.*{message}')


QUESTIONS = [
    {'question_id': 5000, 'image_id': 5, 'question': 'What is it?'},
    {'question_id': 5001, 'image_id': 5, 'question': 'How many?'},
]


def annotation(question_id, image_id, answers):
    return {
        'question_id': question_id,
        'image_id': image_id,
        'question_type': 'what is',
        'answer_type': 'other',
        'multiple_choice_answer': answers[0],
        'answers': [{'answer': a, 'answer_id': n} for n, a in enumerate(answers)],
    }


ANNOTATIONS = [
    annotation(5001, 5, ['2'] * 6 + ['3'] * 4),
    annotation(5000, 5, ['cat', 'dog', 'dog', ''] + ['a  dog'] * 6),
]


def vqa(root, questions=QUESTIONS, annotations=ANNOTATIONS, subtype='val2014'):
    asked = write(root / 'q.json', {'data_subtype': subtype, 'questions': questions})
    known = write(root / 'a.json', {'annotations': annotations})
    return f'vqa:{asked}', f'vqa:{asked},{known}'


def test_vqa_record(root, data_config):
    _, spec = vqa(root)
    picture(root / 'val2014' / 'COCO_val2014_000000000005.jpg', 55)
    source = sources.make_source(spec, data_config)
    assert [source.entry(i)['question_id'] for i in range(2)] == [5000, 5001]
    record = source[0]
    assert record['image'][0, 0, 0] == 55
    assert record['prompt'] == 'What is it?'
    assert record['targets'] == ['a dog', 'dog', 'cat']  # the empty answer is none
    assert record['weights'] == [0.6, 0.2, 0.1]
    assert record['annotators'] == ['cat', 'dog', 'dog', ''] + ['a  dog'] * 6
    assert (record['question_type'], record['answer_type']) == ('what is', 'other')
    assert source.label_names(min_count=1) == ('2', 'dog')


def test_vqa_test_dev_has_no_annotations_and_the_test_images(root, data_config):
    spec, _ = vqa(root, subtype='test-dev2015')
    picture(root / 'test2015' / 'COCO_test2015_000000000005.jpg')
    record = sources.make_source(spec, data_config)[0]
    assert set(record) == {'image', 'image_id', 'prompt', 'question_id'}


@pytest.mark.parametrize(
    ('annotations', 'message'),
    [
        (ANNOTATIONS[:1], 'q.json, question 5000: .*a.json has no annotation'),
        ([*ANNOTATIONS, annotation(7, 5, ['x'])], 'a.json, question 7: .*q.json has no such'),
        ([*ANNOTATIONS, ANNOTATIONS[0]], 'question 5001: annotated twice'),
        ([ANNOTATIONS[0], annotation(5000, 6, ['x'])], 'image id 5 here, 6 in .*a.json'),
        ([ANNOTATIONS[0], annotation(5000, 5, [' '])], 'question 5000: no answer'),
        ([{}], 'a.json: needs the key "question_id"'),
    ],
)
def test_vqa_mistakes(root, data_config, annotations, message):
    refuses(vqa(root, annotations=annotations)[1], data_config, message)


def nlvr2_line(identifier='dev-8-0-1', **changes):
    line = {'identifier': identifier, 'sentence': 'Two dogs.', 'label': 'True', **changes}
    return {key: value for key, value in line.items() if value is not None}


@pytest.mark.parametrize(
    ('folder', 'line'),
    [
        ('dev', nlvr2_line()),
        ('images/train/37', nlvr2_line('train-8-0-1', directory=37)),
        ('train/37', nlvr2_line('train-8-0-1', directory='37')),
        ('', nlvr2_line('test1-8-0-1')),
    ],
)
def test_nlvr2_layouts(root, data_config, folder, line):
    pair = line['identifier'].rpartition('-')[0]
    for n in (0, 1):
        picture(root / folder / f'{pair}-img{n}.png', 10 + n)
    source = sources.make_source(f'nlvr2:{write(root / "n.json", [line])}', data_config)
    record = source[0]
    assert [int(image[0, 0, 0]) for image in record['images']] == [10, 11]
    assert (record['prompt'], record['label']) == ('Two dogs.', 'True')
    assert record['question_id'] == line['identifier']
    assert source.label_names(min_count=1) == ('True',)


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        (nlvr2_line(label='maybe'), 'line 1: "label" must be True or False'),
        (nlvr2_line('dev'), 'must be SPLIT-SET-PAIR-SENTENCE'),
        (nlvr2_line(sentence=None), 'needs the key "sentence"'),
        (nlvr2_line(), 'n.json: none of .*/images/dev/dev-8-0-img0.png, .* exists'),
    ],
)
def test_nlvr2_mistakes(root, data_config, line, message):
    refuses(f'nlvr2:{write(root / "n.json", [line])}', data_config, message)


def test_json_lines(root, data_config):
    lines = [
        {'image': 'a.png', 'prompt': 'what', 'targets': ['x', 'y'], 'weights': [0.9, 0.3]},
        {'image': ['a.png', 'b.png'], 'targets': ['z', 'w'], 'id': 'q2', 'type': 'kind'},
        {'image': 'b.png', 'label': 'good'},
    ]
    for name, value in (('a', 1), ('b', 2)):
        picture(root / f'{name}.png', value)
    source = sources.make_source(f'jsonl:{write(root / "l.jsonl", lines)}', data_config)
    one, two, three = (source[i] for i in range(3))
    assert (one['targets'], one['weights']) == (['x', 'y'], [0.9, 0.3])
    assert [int(i[0, 0, 0]) for i in two['images']] == [1, 2]
    assert (two['prompt'], two['weights']) == ('', [0.5, 0.5])
    assert (two['question_id'], two['question_type']) == ('q2', 'kind')
    assert set(three) == {'image', 'image_id', 'prompt', 'label'}
    assert len({r['image_id'] for r in (one, two, three)}) == 3
    assert source.vocabulary_texts() == ['x', 'y', 'what', 'z', 'w']


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('{"image": ', 'line 2: not JSON'),
        ('3', 'line 2: an object is needed, not int'),
        ('{"prompt": "x"}', 'line 2: needs the key "image"; has \'prompt\''),
        ('{"image": []}', 'line 2: "image" must be a path or a list of two'),
        ('{"image": "a", "targets": "x"}', '"targets" cannot be \'x\''),
        ('{"image": "a", "targets": [" "]}', "empty target ' '"),
        ('{"image": "a", "targets": ["x", "x"]}', 'a target is there twice'),
        ('{"image": "a", "targets": ["x"], "weights": [0]}', '"weights" must be one number above'),
        ('{"image": "a", "targets": ["x"], "weights": [1, 2]}', '"weights" must be one number'),
        ('{"image": "a", "label": 1}', '"label" cannot be 1'),
    ],
)
def test_json_lines_mistakes(root, data_config, line, message):
    path = root / 'l.jsonl'
    path.write_text('{"image": "a.png", "targets": ["fine"]}\n' + line + '\n')
    refuses(f'jsonl:{path}', data_config, f'{re.escape(str(path))}.*{message}')


def test_joined_lists(root, data_config):
    first = write(root / 'a.json', [{'image': 'x.png', 'caption': 'one'}])
    second = write(root / 'b.json', [{'image': p, 'caption': 'two'} for p in ('y.png', 'x.png')])
    coco = write(root / 'd.json', {'images': [karpathy_image(0, 'val')]})
    spec = f'captions:{first} + karpathy:{coco}:val + captions:{second}'
    source = sources.make_source(spec, data_config)
    assert [source.captions(i)[0] for i in range(4)] == ['one', 'Picture 0a.', 'two', 'two']
    ids = [source.image_id(i) for i in range(4)]
    assert ids[1] == 100  # official numbers stay
    assert ids[0] == ids[3]  # the same file
    assert len(set(ids)) == 3


def test_easy_vqa(data_config):
    source = sources.make_source('easy_vqa:test', data_config)
    assert len(source) == 9673  # the package's README
    entries = [source.entry(i) for i in range(len(source))]
    kinds = {e['question_type'] for e in entries}
    assert kinds == {'color', 'shape', 'is there', 'is there not'}
    answers = {k: {e['targets'][0] for e in entries if e['question_type'] == k} for k in kinds}
    assert answers['is there'] == answers['is there not'] == {'yes', 'no'}
    assert answers['shape'] == {'circle', 'rectangle', 'triangle'}
    assert len(answers['color']) == 8
    assert len(source.label_names(min_count=1)) == 13
    image = source[0]['image']
    assert image.shape == (64, 64, 3)
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 1
    with pytest.raises(ValueError, match='easy_vqa:train or easy_vqa:test'):
        sources.make_source('easy_vqa:val', data_config)
