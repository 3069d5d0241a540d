"""What benchmarks/fuzz.py feeds: one function for each reader of the project."""

import functools
import io
import json
import os
import pathlib
import shutil
import sys
import tempfile

import jax
import ml_collections
import numpy as np
import PIL.Image
import safetensors.numpy
from absl import flags
from hypothesis import strategies as st

from benchmarks.fuzz import Target
from configs.pretrain import get_config
from semmim_jax import main  # noqa: F401  defines the flags
from semmim_jax.cli.parser import parse
from semmim_jax.conversion.files import read_tensors
from semmim_jax.conversion.table import ConversionError
from semmim_jax.data import transforms
from semmim_jax.data.captions import read_captions
from semmim_jax.data.image_texts import ImageTexts
from semmim_jax.data.images import DECODERS, decode_image
from semmim_jax.data.replacing import Replacing, TooManyUnreadable, UnreadableRecord
from semmim_jax.data.rows import make_row
from semmim_jax.data.sources import make_source
from semmim_jax.data.text import clean_caption
from semmim_jax.data.tokenizer import ROLES, SPECIAL, make_tokenizer
from semmim_jax.drills.small_state import FINGERPRINT, abstract, one_device, save
from semmim_jax.tasks.catalogue import find_task
from semmim_jax.training.checkpoint import CheckpointError, Checkpoints
from semmim_jax.training.experiment import open_experiment
from semmim_jax.training.metrics import MetricsWriter
from semmim_jax.training.ranges import check_ranges
from semmim_jax.training.step import make_step
from semmim_jax.training.verify import verify_workdir
from semmim_jax.viz.curves import read_metrics

MAX_PIXELS = 10_000
NUMBERS = (0, 1, 2, 255, 65_535, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 10**30)


def mutated(data: st.DataObject, raw: bytes) -> bytes:
    """`raw` after one to four changes, each of a kind that files suffer or that attackers try."""
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, max(len(raw) - 1, 0)))
        end = min(len(raw), place + data.draw(st.integers(1, 16)))
        match data.draw(st.sampled_from(['flip', 'cut', 'drop', 'insert', 'number', 'repeat'])):
            case 'flip' if raw:
                bit = 1 << data.draw(st.integers(0, 7))
                raw = raw[:place] + bytes([raw[place] ^ bit]) + raw[place + 1 :]
            case 'cut':
                raw = raw[:place]
            case 'drop':
                raw = raw[:place] + raw[end:]
            case 'insert':
                raw = raw[:place] + data.draw(st.binary(max_size=16)) + raw[place:]
            case 'number':
                number = data.draw(st.sampled_from(NUMBERS))
                size = data.draw(st.sampled_from([1, 2, 4]))
                packed = (number % 256**size).to_bytes(
                    size, data.draw(st.sampled_from(['big', 'little']))
                )
                raw = raw[:place] + packed + raw[place + size :]
            case 'repeat':
                raw = raw[:place] + raw[place:end] * data.draw(st.sampled_from([2, 100, 10_000]))
    return raw


def json_values(leaves: st.SearchStrategy) -> st.SearchStrategy:
    """Nested JSON values whose leaves are drawn from `leaves` or anything."""
    plain = st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8)
    return st.recursive(
        plain | leaves,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.text(max_size=4) | st.sampled_from(['image', 'caption']), inner, max_size=3
            )
        ),
        max_leaves=8,
    )


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
    make_tokenizer('', texts=source.vocabulary_texts(), size=1000)


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
    for place in ('', 'folder', 'dev', 'val2014'):
        (folder / place).mkdir(exist_ok=True)
        for name in ('a', 'b', 'dev-8-0-img0', 'dev-8-0-img1'):
            (folder / place / f'{name}.png').write_bytes(pictures()[3])
    kind = data.draw(st.sampled_from(['karpathy', 'vqa', 'nlvr2', 'jsonl']))
    parts = ('vqa', 'annotations') if kind == 'vqa' else (kind,)
    hit = data.draw(st.sampled_from(parts))
    for part in parts:
        content = changed(data, LISTS[part]) if part == hit else LISTS[part]
        if kind in ('nlvr2', 'jsonl') and isinstance(content, list):
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
            found = dict(image=pixels, captions=captions, image_id=index)
            if index % 2:
                found['labels'] = rng.integers(0, 5, (height, width), np.int16)
            return found

        def entry(self, index):
            return dict(captions=captions, image_id=index)

    config = get_config('tiny').data
    config.max_tokens = 8
    found = Replacing(Source())[data.draw(st.integers(0, 3))]
    row = make_row('pretrain', Source(), words(), config)(found, rng)
    assert row['image1'].shape == row['image2'].shape == (config.image_size, config.image_size, 3)
    assert row['image1'].dtype == np.uint8
    _check_ids(row['ids'])
    view, _ = transforms.eval_view(found['image'], found.get('labels'), size=config.image_size)
    assert view.shape == row['image1'].shape


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
    found = make_tokenizer(str(path), texts=(), size=0)
    text = data.draw(st.text(max_size=30))
    ids = found.encode(text, 8)
    assert ids.shape == (8,) and ids.min() >= 0
    found.decode(ids)
    (folder / 'again').mkdir()
    found.save(folder / 'again')
    again = make_tokenizer(str(folder / 'again'), texts=(), size=0)
    assert again.tokens() == found.tokens()


def metrics(data: st.DataObject, folder: pathlib.Path) -> None:
    path = folder / 'metrics.jsonl'
    lines = [json.dumps({'step': i, 'train/loss': 1 / i}) for i in range(1, 6)]
    if data.draw(st.booleans()):
        lines += [json.dumps(data.draw(json_values(st.just('step'))))]
    path.write_bytes(mutated(data, ('\n'.join(lines) + '\n').encode()))
    try:
        read_metrics(path)
    except ValueError as error:
        assert str(path) in str(error), error
    writer = MetricsWriter(folder, first_step=3, active=True)
    writer.scalars(4, 'train', {'loss': 0.5})
    writer.close()
    steps = [json.loads(line)['step'] for line in path.read_text().splitlines()]
    assert steps.pop() == 4 and all(step <= 3 for step in steps)
    read_metrics(path)


@functools.cache
def saved() -> pathlib.Path:
    """A workdir with steps 1 and 2."""
    folder = pathlib.Path(tempfile.mkdtemp())
    checkpoints = Checkpoints(folder, keep=2, async_save=False)
    for step in (1, 2):
        save(checkpoints, one_device(step))
    checkpoints.check_last_save()
    checkpoints.close()
    return folder


def checkpoint(data: st.DataObject, folder: pathlib.Path) -> None:
    shutil.copytree(saved(), folder, dirs_exist_ok=True)
    files = sorted(path for path in (folder / 'checkpoints').rglob('*') if path.is_file())
    for path in data.draw(st.lists(st.sampled_from(files), min_size=1, max_size=3, unique=True)):
        if data.draw(st.integers(0, 9)):
            path.write_bytes(mutated(data, path.read_bytes()))
        elif path.name != 'digests.json':  # without it there is nothing to compare with
            path.unlink()
    intact = verify_workdir(folder)
    checkpoints = Checkpoints(folder, keep=2, async_save=False)
    try:
        found = checkpoints.restore(abstract(one_device(0)), fingerprint=FINGERPRINT)
    finally:
        checkpoints.close()
    expected = one_device(int(found.step))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert found.step == 2 or not intact


NUMBERS_TYPED = '0 -1 1 2 3 5 7 8 0.5 1.5 -0.0 1e-9 1e400 nan inf -inf 2147483648 0x10'.split()
WORDS_TYPED = (
    'None True plain none full float16 int8 fsdp data nowhere random block pixel global same '
    'centring online pillow cudnn emoji_scenes:val emoji_scenes:x captions:/dev/null captions:. '
    '/dev/zero () (1,2) (0.1,0.9) (1,"a",3) [1] {"a":1} __import__("os") \\0 ü'
).split() + ['', '9' * 30, '9' * 5000]


@functools.cache
def fields() -> dict[str, bool]:
    """Every field of the tiny config, dotted, and whether it is a number."""

    def below(config, prefix):
        for name, value in config.items():
            if hasattr(value, 'items'):
                yield from below(value, f'{prefix}{name}.')
            else:
                yield prefix + name, isinstance(value, int | float)

    return dict(below(get_config('tiny'), ''))


def overrides(data: st.DataObject, *, most: int) -> list[str]:
    """One field of the config or more, with values mostly of their kind."""
    names = data.draw(
        st.lists(st.sampled_from(sorted(fields())), min_size=1, max_size=most, unique=True)
    )
    arguments = []
    for name in names:
        numbers = fields()[name] == bool(data.draw(st.integers(0, 9)))
        typed = st.sampled_from(NUMBERS_TYPED if numbers else WORDS_TYPED)
        arguments.append(f'--config.{name}={data.draw(typed | st.text(max_size=5))}')
    return arguments


def parsed(arguments: list[str]) -> ml_collections.ConfigDict:
    """The config that a command line gives, as main.py parses it."""
    for name in [name for name in flags.FLAGS if name.startswith('config.')]:
        delattr(flags.FLAGS, name)  # of the example before
    sys.argv = ['main', '--config=configs/pretrain.py:tiny', *arguments]
    try:
        parse(sys.argv)
        flags.FLAGS.config.items()
    except SystemExit as ended:
        raise ValueError(ended.code) from None
    except OSError as error:  # of a config file; main.py makes it one line
        raise ValueError(' '.join(str(error).split())) from None
    return flags.FLAGS.config


def command_line(data: st.DataObject, folder: pathlib.Path) -> None:
    arguments = overrides(data, most=3)
    if data.draw(st.booleans()):
        arguments += data.draw(st.lists(st.text(max_size=12) | st.sampled_from(['--', '--mode=x'])))
    if data.draw(st.booleans()):
        text = mutated(data, arguments[0].encode('utf-8', 'surrogatepass'))
        arguments[0] = text.decode('utf-8', 'replace').replace('--flagfile', '')
    if {'--help', '--helpshort', '--helpfull', '--helpxml'} & set(arguments):
        return
    check_ranges(parsed(arguments))


def experiment(data: st.DataObject, folder: pathlib.Path) -> None:
    config = parsed(overrides(data, most=1))
    run = open_experiment(config, str(folder), find_task(config))
    run.checkpoints.close()
    assert json.loads((folder / 'config.json').read_text())
    rows, c = run.config.train.batch_size, run.config.data
    view = jax.ShapeDtypeStruct((rows, c.image_size, c.image_size, 3), np.uint8)
    numbers = lambda *shape: jax.ShapeDtypeStruct((rows, *shape), np.int32)
    batch = dict(image1=view, image2=view, ids=numbers(c.max_tokens), image_id=numbers())
    batch['labels1'] = numbers((c.image_size // c.patch_size) ** 2)
    jax.eval_shape(make_step(run.task, run.tx, run.config), run.abstract, batch)


@functools.cache
def weights_file() -> bytes:
    """A safetensors file of three types."""
    kinds = {'a': np.float32, 'b': np.float16, 'c': np.int64}
    tensors = {name: np.arange(6, dtype=kind).reshape(2, 3) for name, kind in kinds.items()}
    return safetensors.numpy.save(tensors, {'format': 'pt'})


def weights(data: st.DataObject, folder: pathlib.Path) -> None:
    raw = weights_file()
    if data.draw(st.booleans()):  # another header of the right length
        size = int.from_bytes(raw[:8], 'little')
        header = json.loads(raw[8 : 8 + size])
        name = data.draw(st.sampled_from(sorted(header)))
        numbers = st.sampled_from([-1, *NUMBERS]) | st.integers(0, 100)
        kinds = ['F32', 'F64', 'BF16', 'F8_E4M3', 'BOOL', 'U8', 'I64', 'X', '']
        header[name] = data.draw(
            json_values(st.just('x'))
            | st.fixed_dictionaries(
                {
                    'dtype': st.sampled_from(kinds),
                    'shape': st.lists(numbers, max_size=3),
                    'data_offsets': st.lists(numbers, min_size=2, max_size=2),
                }
            )
        )
        text = json.dumps(header).encode()
        raw = len(text).to_bytes(8, 'little') + text + raw[8 + size :]
    else:
        raw = mutated(data, raw)
    if data.draw(st.booleans()):
        (folder / 'model.safetensors').write_bytes(raw)
    else:
        (folder / 'one.safetensors').write_bytes(raw)
        places = data.draw(
            st.just({name: 'one.safetensors' for name in 'abc'}) | json_values(st.just('../one'))
        )
        index = json.dumps({'weight_map': places}).encode()
        if data.draw(st.booleans()):
            index = mutated(data, index)
        (folder / 'model.safetensors.index.json').write_bytes(index)
    for array in read_tensors(folder).values():
        assert array.dtype == np.float32 or array.dtype.kind in 'biu'
        assert array.nbytes <= 100_000


# Shares: what strangers send first; building an experiment costs a thousand times a picture.
TARGETS = {
    'image': Target(image, (UnreadableRecord,), 0.3),
    'caption_list': Target(caption_list, (ValueError,), 0.2),
    'dataset': Target(dataset, (ValueError, OSError), 0.1),
    'record': Target(record, (TooManyUnreadable,), 0.07),
    'vocabulary': Target(vocabulary, (ValueError,), 0.08),
    'weights': Target(weights, (ConversionError,), 0.1),
    'metrics': Target(metrics, (), 0.1),
    'command_line': Target(command_line, (ValueError,), 0.105),
    'experiment': Target(experiment, (ValueError, OSError), 0.005),
    'checkpoint': Target(checkpoint, (CheckpointError,), 0.05, saved),
}
