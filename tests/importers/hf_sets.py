"""Data sets of Hugging Face in the layouts in which `datasets` and the hub leave them."""

import json
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq

from tests.importers.fixtures import caption, jpeg, write

_FEATURES = {
    'image': {'_type': 'Image'},
    'caption': {'dtype': 'string', '_type': 'Value'},
    'year': {'dtype': 'int64', '_type': 'Value'},
}


def table(numbers) -> pa.Table:
    """A table as `datasets` holds it: what its features are stands in the schema."""
    struct = pa.struct([('bytes', pa.binary()), ('path', pa.string())])
    images = [{'bytes': jpeg(n), 'path': f'{n}.jpg'} for n in numbers]
    columns = {
        'image': pa.array(images, struct),
        'caption': [caption(n) for n in numbers],
        'year': pa.array([2000 + n for n in numbers], pa.int64()),
    }
    metadata = {'huggingface': json.dumps({'info': {'features': _FEATURES}})}
    return pa.table(columns).replace_schema_metadata(metadata)


def write_stream(path: pathlib.Path, rows: pa.Table, *, batch: int = 2) -> pathlib.Path:
    """An Arrow stream in batches of some rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.ipc.new_stream(path, rows.schema) as stream:
        stream.write_table(rows, max_chunksize=batch)
    return path


def write_saved(folder: pathlib.Path, numbers, *, split: str | None, files: int = 1) -> None:
    """What Dataset.save_to_disk writes."""
    names = [f'data-{n:05d}-of-{files:05d}.arrow' for n in range(files)]
    share = -(-len(numbers) // files)
    for n, name in enumerate(names):
        write_stream(folder / name, table(numbers[n * share : (n + 1) * share]))
    info = {'citation': '', 'description': '', 'features': _FEATURES, 'homepage': '', 'license': ''}
    write(folder / 'dataset_info.json', info)
    state = {
        '_data_files': [{'filename': name} for name in names],
        '_fingerprint': 'ac0ff1ce',
        '_format_columns': None,
        '_format_kwargs': {},
        '_format_type': None,
        '_output_all_columns': False,
        '_split': split,
    }
    write(folder / 'state.json', state)


def write_hf(folder: pathlib.Path) -> dict[str, list[str]]:
    """folder/saved, folder/cache and folder/hub; gives the captions of 'train', by number."""
    write(folder / 'saved/dataset_dict.json', {'splits': ['train', 'test']})
    write_saved(folder / 'saved/train', range(5), split='train', files=2)
    write_saved(folder / 'saved/test', range(7, 9), split='test')
    for split, numbers in (('train', range(5)), ('validation', range(7, 9))):
        rows = table(numbers)
        write_stream(folder / f'cache/own_set-{split}.arrow', rows)
        half = -(-len(rows) // 2)
        for n, part in enumerate((rows.slice(0, half), rows.slice(half))):
            path = folder / f'hub/data/{split}-{n:05d}-of-00002-0a1b2c3d.parquet'
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(part, path, row_group_size=2)
    write(folder / 'cache/dataset_info.json', {'features': _FEATURES, 'splits': {}})
    write(folder / 'hub/README.md', '---\nlicense: mit\n---\n')
    return {str(n): [caption(n)] for n in range(5)}
