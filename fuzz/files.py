"""Fuzzing of what reads data: pictures, lists, records, vocabularies."""

import functools
import io
import json
import os
import pathlib

import numpy as np
import PIL.Image
from hypothesis import strategies as st

from configs.pretrain import get_config
from fuzz.mutations import NUMBERS, json_values, mutated
from semmim_jax.data import transforms
from semmim_jax.data.examples import PretrainExamples
from semmim_jax.data.images import DECODERS, decode_image
from semmim_jax.data.readers.captions import read_captions
from semmim_jax.data.readers.image_texts import ImageTexts
from semmim_jax.data.readers.sources import make_source
from semmim_jax.data.text import clean_caption
from semmim_jax.data.tokenizer import KINDS, ROLES, SPECIAL, make_tokenizer, train_tokenizer
from semmim_jax.data.unreadable import Replacing, UnreadableRecord

MAX_PIXELS = 10_000


@functools.cache
def pictures() -> tuple[bytes, ...]:
    """Small files of every kind that is read."""
    rng = np.random.default_rng(0)
    colour = PIL.Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8))
    deep = PIL.Image.fromarray(rng.integers(0, 2**16, (20, 24), np.uint16))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    kinds = [
        (colour, dict(format='JPEG', exif=exif)),
        (colour, dict(format='JPEG', progressive=True, quality=30)),
        (colour.convert('CMYK'), dict(format='JPEG')),
        (colour, dict(format='PNG')),
        (colour.convert('P'), dict(format='PNG')),
        (colour.convert('RGBA'), dict(format='PNG')),
        (deep, dict(format='PNG')),
        (colour, dict(format='WEBP')),
        (colour, dict(format='WEBP', lossless=True)),
        (colour, dict(format='BMP')),
        (colour.convert('1'), dict(format='BMP')),
    ]
    files = []
    for picture, options in kinds:
        file = io.BytesIO()
        picture.save(file, **options)
        files.append(file.getvalue())
    return tuple(files)


def image(data: st.DataObject, folder: pathlib.Path) -> None:
    raw = mutated(data, data.draw(st.sampled_from(pictures())))
    decoder = data.draw(st.sampled_from(DECODERS))
    pixels = decode_image(raw, decoder=decoder, max_pixels=MAX_PIXELS)
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    assert 0 < pixels.size <= 3 * MAX_PIXELS


NAMES = (
    'a.png',
    'absent.png',
    'folder',
    'pipe',
    'zero',
    '/dev/zero',
    '../list',
    '',
    '\0',
    'a' * 300,
)


@functools.cache
def words():
    """A tokenizer made from two captions."""
    return make_tokenizer('', texts=['a red square', 'the blue bar'], size=100)


def caption_list(data: st.DataObject, folder: pathlib.Path) -> None:
    (folder / 'a.png').write_bytes(pictures()[3])
    (folder / 'folder').mkdir()
    os.mkfifo(folder / 'pipe')
    (folder / 'zero').symlink_to('/dev/zero')
    names = st.sampled_from(NAMES)
    text = st.text(min_size=1, max_size=40)
    captions = st.just('a red square') | text | st.lists(text, min_size=1, max_size=3)
    good = st.fixed_dictionaries({'image': names, 'caption': captions})
    entry = data.draw(st.sampled_from([good, good, good | json_values(names)]))
    entries = data.draw(st.lists(entry, min_size=1, max_size=4))
    if data.draw(st.booleans()):
        text = json.dumps(entries)
    else:
        text = '\n'.join(map(json.dumps, entries))
    raw = text.encode()
    if data.draw(st.booleans()):
        raw = mutated(data, raw)
    (folder / 'list').write_bytes(raw)
    source = ImageTexts(
        read_captions(str(folder / 'list'), image_root=''),
        decoder=data.draw(st.sampled_from(DECODERS)),
        max_pixels=MAX_PIXELS,
    )
    for i in range(len(source)):
        for caption in source.captions(i):
            _check_ids(words().encode(clean_caption(caption, max_words=30), 8))
        try:
            record = source[i]
        except UnreadableRecord as error:
            assert '\n' not in str(error)
        else:
            assert record['captions'] and record['image'].shape == (20, 24, 3)
    _train(data, source.vocabulary_texts())


def _train(data: st.DataObject, texts: list[str]) -> None:
    kind, size = data.draw(st.sampled_from(KINDS)), data.draw(st.sampled_from([10, 600, 5000]))
    options = dict(size=size, min_count=data.draw(st.integers(1, 3)), fill=data.draw(st.booleans()))
    tokenizer = train_tokenizer(texts, kind=kind, strip_accents=data.draw(st.booleans()), **options)
    assert tokenizer.vocab_size == size if options['fill'] else tokenizer.vocab_size <= size
    for text in (*texts, data.draw(st.text(max_size=40))):
        ids = tokenizer.encode(clean_caption(text, max_words=None), 20)
        tokenizer.decode(ids)
        assert ids.min() >= 0 and ids.max() < size
        assert kind != 'bpe' or tokenizer.unk_id not in ids


LISTS = {
    'karpathy': {
        'images': [
            {
                'filepath': 'folder',
                'filename': 'a.png',
                'cocoid': 7,
                'split': split,
                'sentences': [{'raw': 'a red square'}, {'raw': 'the blue bar'}],
            }
            for split in ('train', 'restval')
        ]
    },
    'vqa': {
        'data_subtype': 'val2014',
        'questions': [
            {'question_id': 10 + n, 'image_id': n, 'question': 'How many?'} for n in (0, 1)
        ],
    },
    'annotations': {
        'annotations': [
            {
                'question_id': 10 + n,
                'image_id': n,
                'question_type': 'how many',
                'answer_type': 'number',
                'answers': [{'answer': '2'}, {'answer': 'two'}],
            }
            for n in (0, 1)
        ]
    },
    'nlvr2': [
        {'identifier': f'dev-8-0-{n}', 'sentence': 'One is red.', 'label': 'True'} for n in (0, 1)
    ],
    'sugarcrepe': {
        str(n): {'filename': 'a.png', 'caption': 'a red bar', 'negative_caption': 'a blue bar'}
        for n in (0, 1)
    },
    'aro': [
        {
            'image_path': 'a.png',
            **{f'bbox_{side}': 4 for side in 'xywh'},
            'true_caption': 'the bar left of the square',
            'false_caption': 'the square left of the bar',
            'relation_name': 'left of',
        }
    ],
    'winoground': [
        {
            'image_0': 'a',
            'image_1': 'b',
            'caption_0': 'a bar in a square',
            'caption_1': 'a square in a bar',
            'collapsed_tag': 'Object',
        }
    ],
    'jsonl': [
        {'image': 'a.png', 'prompt': 'What?', 'targets': ['a bar', 'bar'], 'weights': [0.6, 0.3]},
        {'image': ['a.png', 'b.png'], 'prompt': 'Same?', 'label': 'yes', 'id': 3, 'type': 'pair'},
    ],
}


def changed(data: st.DataObject, value: object) -> object:
    """A JSON value with one part of it, at any depth, replaced, dropped or doubled."""
    inner = (
        list(value) if isinstance(value, dict) else range(len(value) if type(value) is list else 0)
    )
    if not inner or not data.draw(st.integers(0, 3)):
        odd = st.sampled_from([*NAMES, *NUMBERS, -1, 1e400, '\ud800', 'a\nb', ' ', None, [], {}])
        return data.draw(odd | json_values(odd))
    key = data.draw(st.sampled_from(inner))
    copied = value.copy()
    match data.draw(st.sampled_from(['inside', 'inside', 'inside', 'drop', 'double'])):
        case 'inside':
            copied[key] = changed(data, copied[key])
        case 'drop':
            del copied[key]
        case 'double' if isinstance(copied, list):
            copied.append(copied[key])
    return copied


def dataset(data: st.DataObject, folder: pathlib.Path) -> None:
    for place in ('', 'folder', 'dev', 'val2014', 'images'):
        (folder / place).mkdir(exist_ok=True)
        for name in ('a', 'b', 'dev-8-0-img0', 'dev-8-0-img1'):
            (folder / place / f'{name}.png').write_bytes(pictures()[3])
    kind = data.draw(st.sampled_from(sorted(LISTS.keys() - {'annotations'})))
    parts = ('vqa', 'annotations') if kind == 'vqa' else (kind,)
    hit = data.draw(st.sampled_from(parts))
    for part in parts:
        content = changed(data, LISTS[part]) if part == hit else LISTS[part]
        if kind in ('nlvr2', 'jsonl', 'winoground') and isinstance(content, list):
            raw = '\n'.join(map(json.dumps, content)).encode()
        else:
            raw = json.dumps(content).encode()
        if part == hit and not data.draw(st.integers(0, 3)):
            raw = mutated(data, raw)
        (folder / part).write_bytes(raw)
    tail = {'karpathy': ':train', 'vqa': f',{folder / "annotations"}'}.get(kind, '')
    source = make_source(f'{kind}:{folder / kind}{tail}', get_config('tiny').data)
    for i in range(len(source)):
        entry = source.entry(i)
        assert -(2**31) <= entry['image_id'] < 2**31
        for text in (
            *entry.get('captions', ()),
            *entry.get('wrong', ()),
            entry.get('prompt', ''),
            *entry.get('targets', ()),
        ):
            _check_ids(words().encode(clean_caption(text, max_words=30), 8))
        try:
            source[i]
        except UnreadableRecord as error:
            assert '\n' not in str(error)
    for targets, where in source.truths():
        assert all(isinstance(target, str) for target in targets) and '\n' not in where
    source.label_names(min_count=1)


def _check_ids(ids: np.ndarray) -> None:
    assert ids.shape == (8,) and ids.dtype == np.int32
    assert ids.min() >= 0 and ids.max() < words().vocab_size


def record(data: st.DataObject, folder: pathlib.Path) -> None:
    side = st.integers(1, 70) | st.sampled_from([1, 2, 3000])
    height, width = data.draw(side), data.draw(side)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    unreadable = data.draw(st.sets(st.integers(0, 3)))
    captions = data.draw(st.lists(st.text(max_size=60), min_size=1, max_size=3))

    class Source:
        def __len__(self):
            return 4

        def __getitem__(self, index):
            if index in unreadable:
                raise UnreadableRecord('made up')
            pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
            entry = dict(image=pixels, captions=captions, image_id=index)
            if index % 2:
                entry['labels'] = rng.integers(0, 5, (height, width), np.int16)
            return entry

        def entry(self, index):
            return dict(captions=captions, image_id=index)

    config = get_config('tiny').data
    config.max_tokens = 8
    replaced = Replacing(Source())[data.draw(st.integers(0, 3))]
    example = PretrainExamples.of(words(), config)(replaced, rng)
    square = (config.image_size, config.image_size, 3)
    assert example['image1'].shape == example['image2'].shape == square
    assert example['image1'].dtype == np.uint8
    _check_ids(example['ids'])
    labels = replaced.get('labels')
    view, _ = transforms.eval_view(replaced['image'], labels, size=config.image_size)
    assert view.shape == example['image1'].shape


@functools.cache
def tokenizer_json() -> str:
    """Of a small WordPiece, as transformers writes it."""
    return words()._backend.to_str()


def vocabulary(data: st.DataObject, folder: pathlib.Path) -> None:
    listed = '\n'.join([*SPECIAL, 'a', 'b', '##a', '##b', 'red', 'bär', '[unused0]']) + '\n'
    path = folder / 'vocab.txt'
    if data.draw(st.booleans()):
        path.write_bytes(mutated(data, listed.encode()))
    else:
        path = folder / 'tokenizer'
        path.mkdir()
        files = {
            'tokenizer.json': tokenizer_json(),
            'tokenizer_config.json': json.dumps(
                {
                    'tokenizer_class': data.draw(
                        st.sampled_from(['PreTrainedTokenizerFast', 'BertTokenizerFast'])
                    ),
                    **{f'{role}_token': token for role, token in zip(ROLES, SPECIAL)},
                }
            ),
        }
        hit = data.draw(st.sampled_from(sorted(files)))
        for name, text in files.items():
            raw = text.encode()
            (path / name).write_bytes(mutated(data, raw) if name == hit else raw)
    tokenizer = make_tokenizer(str(path), texts=(), size=0)
    text = data.draw(st.text(max_size=30))
    ids = tokenizer.encode(text, 8)
    assert ids.shape == (8,) and ids.min() >= 0
    tokenizer.decode(ids)
    (folder / 'again').mkdir()
    tokenizer.save(folder / 'again')
    again = make_tokenizer(str(folder / 'again'), texts=(), size=0)
    assert again.tokens() == tokenizer.tokens()
