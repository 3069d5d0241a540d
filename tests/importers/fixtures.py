"""Small data sets in the true layouts of their sources, with every picture made here.

    python -m tests.importers.fixtures FOLDER     # writes all of them

Each function writes one source below a folder and gives what its records must be: key -> texts.
"""

import io
import json
import pathlib
import sys
import tarfile

import numpy as np
import PIL.Image

WORDS = ('red', 'green', 'blue', 'dark', 'light', 'small', 'large', 'round')


def pixels(number: int, *, width: int = 60, height: int = 40) -> np.ndarray:
    """A smooth picture, another one for each number: uint8 [h, w, 3]."""
    y, x = np.mgrid[:height, :width]
    shifted = np.stack([x * 4 + 37 * number, y * 6 + 11 * number, (x + y) * 2], -1)
    return (shifted % 256).astype(np.uint8)


def encoded(picture: np.ndarray | PIL.Image.Image, form: str = 'JPEG', **options) -> bytes:
    """A picture as the bytes of a file."""
    stream = io.BytesIO()
    image = picture if isinstance(picture, PIL.Image.Image) else PIL.Image.fromarray(picture)
    image.save(stream, form, **options)
    return stream.getvalue()


def jpeg(number: int, **size) -> bytes:
    """A JPEG of `pixels`."""
    return encoded(pixels(number, **size), quality=90)


def caption(number: int, which: int = 0) -> str:
    """A caption, another one for each pair of numbers."""
    return f'A {WORDS[number % 8]} picture, number {number}, seen {WORDS[which % 8]}.'


def write(path: pathlib.Path, content: bytes | str | object) -> pathlib.Path:
    """Writes bytes, text or anything else as JSON; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, bytes):
        text = content if isinstance(content, str) else json.dumps(content)
        content = text.encode()
    path.write_bytes(content)
    return path


def lines(entries: list) -> str:
    """JSON lines."""
    return ''.join(json.dumps(entry) + '\n' for entry in entries)


def write_captions(folder: pathlib.Path, count: int = 5) -> dict[str, list[str]]:
    """ALBEF's list: folder/captions.json over folder/images."""
    entries, expected = [], {}
    for n in range(count):
        write(folder / f'images/{n}.jpg', jpeg(n))
        texts = [caption(n, 0), caption(n, 1)]
        entries.append({'image': f'images/{n}.jpg', 'caption': texts if n % 2 else texts[0]})
        expected[f'images/{n}.jpg'] = texts if n % 2 else texts[:1]
    write(folder / 'captions.json', entries)
    return expected


def write_coco(folder: pathlib.Path) -> dict[str, list[str]]:
    """folder/annotations/captions_{train2014,val2017}.json and their image folders."""
    expected = {}
    for subset, name in (('train2014', 'COCO_train2014_{:012d}.jpg'), ('val2017', '{:012d}.jpg')):
        images, annotations = [], []
        for n, image_id in enumerate((9, 25, 30)):
            file = name.format(image_id)
            write(folder / subset / file, jpeg(n))
            images.append(
                {
                    'license': 5,
                    'file_name': file,
                    'coco_url': f'http://images.example/{file}',
                    'height': 40,
                    'width': 60,
                    'date_captured': '2013-11-14 17:02:52',
                    'flickr_url': 'http://farm.example/9.jpg',
                    'id': image_id,
                }
            )
            for k in range(6 if image_id == 25 else 5):  # some images have more than 5 captions
                text = caption(n, k)
                annotations.append({'image_id': image_id, 'id': 100 * n + k, 'caption': text})
                if subset == 'val2017':
                    expected.setdefault(file, []).append(text)
        write(
            folder / f'annotations/captions_{subset}.json',
            {
                'info': {'description': 'COCO', 'version': '1.0', 'year': 2017},
                'images': images,
                'licenses': [{'url': 'http://licence.example', 'id': 5, 'name': 'Attribution'}],
                'annotations': annotations,
            },
        )
    return expected


def write_karpathy(folder: pathlib.Path) -> dict[str, list[str]]:
    """folder/dataset_coco.json over val2014 and train2014; gives the records of 'train'."""
    images, expected = [], {}
    for n, (split, part) in enumerate(
        [('train', 'train2014'), ('restval', 'val2014'), ('val', 'val2014'), ('test', 'val2014')]
    ):
        file = f'COCO_{part}_{n + 40:012d}.jpg'
        write(folder / part / file, jpeg(n))
        texts = [caption(n, k) for k in range(5)]
        sentences = [
            {'tokens': text.lower().split(), 'raw': text, 'imgid': n, 'sentid': 10 * n + k}
            for k, text in enumerate(texts)
        ]
        images.append(
            {
                'filepath': part,
                'sentids': [s['sentid'] for s in sentences],
                'filename': file,
                'imgid': n,
                'split': split,
                'sentences': sentences,
                'cocoid': n + 40,
            }
        )
        if split in ('train', 'restval'):
            expected[f'{part}/{file}'] = texts
    write(folder / 'dataset_coco.json', {'images': images, 'dataset': 'coco'})
    return expected


def write_vqa(folder: pathlib.Path) -> dict[str, list[int]]:
    """VQA v2 of val2014 in folder; gives the question ids of each image."""
    questions, annotations, expected = [], [], {}
    for image_id in (42, 73):
        file = f'COCO_val2014_{image_id:012d}.jpg'
        write(folder / 'val2014' / file, jpeg(image_id))
        for k in range(3):
            number = image_id * 1000 + k
            expected.setdefault(f'val2014/{file}', []).append(number)
            questions.append(
                {'image_id': image_id, 'question': f'What is {k}?', 'question_id': number}
            )
            answers = ['red'] * 6 + ['dark red'] * 3 + ['blue']
            annotations.append(
                {
                    'question_type': 'what is',
                    'multiple_choice_answer': 'red',
                    'answers': [
                        {'answer': a, 'answer_confidence': 'yes', 'answer_id': i + 1}
                        for i, a in enumerate(answers)
                    ],
                    'image_id': image_id,
                    'answer_type': 'other',
                    'question_id': number,
                }
            )
    shared = {'info': {}, 'license': {}, 'data_type': 'mscoco', 'data_subtype': 'val2014'}
    name = 'v2_OpenEnded_mscoco_val2014_questions.json'
    write(
        folder / name,
        {**shared, 'task_type': 'Open-Ended', 'questions': questions[::2] + questions[1::2]},
    )
    write(folder / 'v2_mscoco_val2014_annotations.json', {**shared, 'annotations': annotations})
    return expected


def write_albef(folder: pathlib.Path) -> None:
    """ALBEF's fine-tuning lists: folder/{vqa_train,vg_qa,nlvr_train}.json over folder/images."""
    for n in range(4):
        write(folder / f'images/{n}.jpg', jpeg(n))
    answers = ['no'] * 7 + ['yes'] * 3
    write(
        folder / 'vqa_train.json',
        [
            {
                'question_id': 7,
                'question': 'Is it red?',
                'answer': answers,
                'image': 'images/0.jpg',
                'dataset': 'vqa',
            }
        ],
    )
    write(
        folder / 'vg_qa.json',
        [
            {
                'image': 'images/1.jpg',
                'question': 'What colour?',
                'question_id': 8,
                'answer': 'Black.',
                'dataset': 'vg',
            }
        ],
    )
    pair = ['images/2.jpg', 'images/3.jpg']
    write(
        folder / 'nlvr_train.json',
        [
            {'sentence': 'Both are red.', 'label': 'False', 'images': pair},
            {'sentence': 'One is dark.', 'label': 'True', 'images': pair},
        ],
    )


def write_nlvr2(folder: pathlib.Path) -> dict[str, list[str]]:
    """folder/dev.json and its images, one of which is a JPEG; gives the sentences of each pair."""
    entries, expected = [], {}
    for pair in range(2):
        names = [f'dev-{pair}-0-img{k}.png' for k in (0, 1)]
        write(folder / 'dev' / names[0], encoded(pixels(pair), 'PNG'))
        write(folder / 'dev' / names[1], jpeg(pair + 9))  # not all are PNG
        for k in range(2):
            sentence = f'There are {k} of {pair}.'
            entries.append(
                {
                    'validation': {'1': 'True'},
                    'left_url': 'http://images.example/l.jpg',
                    'label': 'False' if k else 'True',
                    'sentence': sentence,
                    'right_url': 'http://images.example/r.jpg',
                    'synset': 'acorn',
                    'query': 'acorns1',
                    'identifier': f'dev-{pair}-0-{k}',
                    'extra_info': {},
                }
            )
            expected.setdefault(' + '.join(f'dev/{name}' for name in names), []).append(sentence)
    write(folder / 'dev.json', lines(entries))
    return expected


def write_visual_genome(folder: pathlib.Path) -> dict[str, list[str]]:
    """Visual Genome's three files in folder; gives the phrases of each image, repeats dropped."""
    regions, questions, data, expected = [], [], [], {}
    for n, image_id in enumerate((1, 2, 61)):
        part = 'VG_100K_2' if n == 1 else 'VG_100K'
        write(folder / part / f'{image_id}.jpg', jpeg(image_id))
        phrases = [f'the {word} thing {n}' for word in WORDS[:4]] + [f'the red thing {n}']
        expected[f'{part}/{image_id}.jpg'] = phrases[:4]
        key = 'id' if n == 2 else 'region_id'  # both occur
        regions.append(
            {
                'id': image_id,
                'regions': [
                    {
                        key: 1000 * n + k,
                        'width': 20,
                        'height': 10,
                        'image_id': image_id,
                        'phrase': phrase,
                        'x': k,
                        'y': 3,
                    }
                    for k, phrase in enumerate(phrases)
                ],
            }
        )
        questions.append(
            {
                'id': image_id,
                'qas': [
                    {
                        'a_objects': [],
                        'question': f'What is {k}?',
                        'image_id': image_id,
                        'qa_id': 9000 + 10 * n + k,
                        'answer': 'Black.',
                        'q_objects': [],
                    }
                    for k in range(2)
                ],
            }
        )
        data.append(
            {
                'width': 60,
                'url': f'https://images.example/VG_100K/{image_id}.jpg',
                'height': 40,
                'image_id': image_id,
                'coco_id': 43 if n == 0 else None,  # a test image of write_karpathy
                'flickr_id': 98 if n == 1 else None,
            }
        )
    write(folder / 'region_descriptions.json', regions)
    write(folder / 'question_answers.json', questions)
    write(folder / 'image_data.json', data)
    return expected


def add(tar: tarfile.TarFile, name: str, content: bytes, **fields) -> None:
    """Adds a member, whatever its name."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(content) if member.isreg() else None)


def write_tars(folder: pathlib.Path, shards: int = 2, samples: int = 4) -> dict[str, list[str]]:
    """What img2dataset writes: folder/00000.tar, its parquet and stats; failures are absent."""
    expected, rows = {}, []
    for shard in range(shards):
        folder.mkdir(parents=True, exist_ok=True)
        order = [(3 * k + 1) % samples for k in range(samples)] if samples % 3 else range(samples)
        with tarfile.open(folder / f'{shard:05d}.tar', 'w') as tar:
            for n in order:  # as they were fetched
                key = f'{shard:05d}{n:04d}'
                text = caption(shard * samples + n)
                fields = {
                    'caption': text,
                    'url': f'http://images.example/{key}.jpg',
                    'similarity': 0.31,
                    'key': key,
                    'status': 'success',
                    'error_message': None,
                    'width': 60,
                    'height': 40,
                    'original_width': 120,
                    'original_height': 80,
                    'exif': '{}',
                    'sha256': '0' * 64,
                }
                add(tar, f'{key}.jpg', jpeg(shard * samples + n))
                add(tar, f'{key}.json', json.dumps(fields).encode())
                add(tar, f'{key}.txt', text.encode())
                expected[key] = [text]
                rows.append(fields)
        write(folder / f'{shard:05d}_stats.json', {'count': samples + 1, 'successes': samples})
    return expected


def write_parquets(folder: pathlib.Path, rows: int = 5) -> dict[str, list[str]]:
    """Hugging Face's parquet files, both orders of fields, and img2dataset's plain binary one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    expected = {}
    features = {'image': {'_type': 'Image'}, 'caption': {'dtype': 'string', '_type': 'Value'}}
    metadata = {'huggingface': json.dumps({'info': {'features': features}})}
    for number, order in enumerate((('bytes', 'path'), ('path', 'bytes'))):
        kinds = {'bytes': pa.binary(), 'path': pa.string()}
        struct = pa.struct([(name, kinds[name]) for name in order])
        base = number * rows
        images = [{'bytes': jpeg(base + n), 'path': f'{n}.jpg'} for n in range(rows)]
        texts = [caption(base + n) for n in range(rows)]
        table = pa.table({'image': pa.array(images, struct), 'caption': texts})
        name = f'train-{number:05d}-of-00002'
        table = table.replace_schema_metadata(metadata)
        pq.write_table(table, folder / f'{name}.parquet', row_group_size=2)
        expected |= {f'{name}:{n}': [texts[n]] for n in range(rows)}
    binary = pa.table({'jpg': [jpeg(90)], 'txt': [caption(90)], 'url': ['http://a.example']})
    pq.write_table(binary, folder / 'plain.parquet')
    return expected


def write_folders(folder: pathlib.Path) -> None:
    """folder/classes/CLASS/*.jpg, and folder/bare with a text beside each picture."""
    for n in range(6):
        write(folder / f'classes/{WORDS[n % 3]}/{n}.jpg', jpeg(n))
        write(folder / f'bare/{n}.jpg', jpeg(n))
        write(folder / f'bare/{n}.txt', caption(n) + '\n')


# In points, as some are, which need a resolution; its left half is red, the rest transparent.
DRAWING = """<?xml version="1.0" encoding="UTF-8"?>
<svg width="128pt" height="64pt" viewBox="0 0 128 64" xmlns="http://www.w3.org/2000/svg">
<rect width="64" height="64" fill="#ff0000"/></svg>
"""


def write_stamps(folder: pathlib.Path, *, lacking: bool = True) -> None:
    """Tux Paint's stamps as tuxpaint-stamps-default has them; four more that lack something."""
    animals = folder / 'animals'
    picture = PIL.Image.fromarray(pixels(0)).convert('RGBA')
    picture.paste((0, 0, 0, 0), (0, 0, 20, 20))
    write(animals / 'dog.png', encoded(picture, 'PNG'))
    write(animals / 'dog.dat', 'nomirror\n')
    write(animals / 'cat.svg', DRAWING)
    sentences = 'A dog.\nde.utf8=Ein Hund.\nen_GB.utf8=A dog.\nfr.utf8=Un chien.\nja.utf8=犬。\n'
    write(animals / 'dog.txt', sentences)
    write(animals / 'cat.txt', 'A cat.\nde.utf8=Eine Katze.\n')
    if not lacking:
        return
    for name in ('cat_mirror', 'mute'):
        write(animals / f'{name}.png', encoded(picture, 'PNG'))
    write(animals / 'torn.svg', DRAWING[:100])
    write(animals / 'gift.txt', 'A gift.\n')
    write(animals / 'mute.txt', '\nde.utf8=\n')
    write(animals / 'torn.txt', 'A map.\n')


def clipart_svg(*, title: str = '', description: str = '', keywords: tuple[str, ...] = ()) -> str:
    """An SVG as Open Clip Art has them: titles of people, and empty keywords, are in them too."""
    words = ''.join(f'<rdf:li>{word}</rdf:li>' for word in (*keywords, ''))
    return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.0//EN"
  "http://www.w3.org/TR/2001/REC-SVG-20010904/DTD/svg10.dtd">
<svg xmlns="http://www.w3.org/2000/svg" xmlns:cc="http://web.resource.org/cc/"
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" width="60" height="40">
  <metadata><rdf:RDF><cc:Work rdf:about="">
    <dc:title>{title}</dc:title>
    <dc:description>{description}</dc:description>
    <dc:subject><rdf:Bag>{words}</rdf:Bag></dc:subject>
    <dc:creator><cc:Agent><dc:title>A. Person</dc:title></cc:Agent></dc:creator>
  </cc:Work></rdf:RDF></metadata>
  <title>Layer 1</title><rect width="60" height="40"/>
</svg>
"""


def write_openclipart(folder: pathlib.Path, *, lacking: bool = True) -> None:
    """Open Clip Art as openclipart-svg and -png have it; more that lack something, if asked for."""
    apple = clipart_svg(title='An  Apple', keywords=('hash', 'fruit'))
    frogs = clipart_svg(title='2 dead frogs', description='2 dead frogs...\nnothing more')
    drawings = {'food/fruit/apple_01': apple, 'animals/frogs': frogs}
    if lacking:
        drawings |= {
            f'icons/{i}': clipart_svg(title='Icon set', keywords=('icon',)) for i in range(11)
        }
        drawings['icons/3'] = clipart_svg(title='Icon set', keywords=('icon', 'bomb'))
        drawings['office/poster'] = clipart_svg()
        drawings['office/torn'] = apple[:400]
        drawings['office/flower'] = apple.replace('svg10.dtd">', 'svg10.dtd" [<!ENTITY a "b">]>')
        write(folder / 'png/office/mute.png', encoded(pixels(1), 'PNG'))
        write(folder / 'svg/office/unseen.svg', apple)
    for name, svg in drawings.items():
        write(folder / f'svg/{name}.svg', svg)
        write(folder / f'png/{name}.png', encoded(pixels(len(name)), 'PNG'))


def write_all(folder: pathlib.Path) -> None:
    """Every source, in a folder of its own."""
    write_captions(folder / 'own')
    write_albef(folder / 'albef')
    write_coco(folder / 'coco')
    write_karpathy(folder / 'coco')
    write_vqa(folder / 'coco')
    write_visual_genome(folder / 'vg')
    write_nlvr2(folder / 'nlvr2')
    write_tars(folder / 'fetched')
    write_parquets(folder / 'parquet')
    write_folders(folder / 'folders')
    write_stamps(folder / 'tuxpaint/usr/share/tuxpaint/stamps', lacking=False)
    write_openclipart(folder / 'clipart/usr/share/openclipart', lacking=False)


def write_packages(folder: pathlib.Path) -> None:
    """What the packages datasets and tensorflow-datasets write; the latter has to be installed."""
    from tests.data import tfds_sets
    from tests.importers import hf_sets

    hf_sets.write_hf(folder / 'hf')
    tfds_sets.write(folder / 'tfds')


if __name__ == '__main__':
    write_all(pathlib.Path(sys.argv[1]))
    write_packages(pathlib.Path(sys.argv[1]))
