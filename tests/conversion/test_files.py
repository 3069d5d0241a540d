"""Weight files: exact where they are whole, one line where they are not, no code run."""

import json
import os
import pickle
import struct

import ml_dtypes
import numpy as np
import pytest

from semmim_jax.conversion.files import new_folder, read_json, read_tensors, write_tensors
from semmim_jax.conversion.table import ConversionError

TENSORS = {
    'a.weight': np.arange(6, dtype=np.float32).reshape(2, 3).T,  # not contiguous
    'b': np.float32(-0.0),
    'ids': np.arange(4),
}


def refused(path) -> str:
    """The message, one line that names the file."""
    with pytest.raises(ConversionError) as error:
        read_tensors(path)
    said = str(error.value)
    assert str(path) in said and '\n' not in said
    return said


def handmade(path, header, data: bytes, *, length: int | None = None):
    """A safetensors file by its definition: length of the header, header, data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack('<Q', len(text) if length is None else length) + text + data)
    return path


def tensor(begin, end, *, shape=(2,), dtype='F32'):
    return {'dtype': dtype, 'shape': list(shape), 'data_offsets': [begin, end]}


def test_what_is_written_is_read(tmp_path):
    write_tensors(tmp_path / 'model.safetensors', TENSORS)
    for path in tmp_path, tmp_path / 'model.safetensors':
        tensors = read_tensors(path)
        assert tensors.keys() == TENSORS.keys()
        for name, value in TENSORS.items():
            assert tensors[name].dtype == value.dtype and tensors[name].shape == value.shape
            assert tensors[name].tobytes() == value.tobytes()


@pytest.mark.parametrize('dtype', [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_floats_become_float32_with_the_same_values(dtype, tmp_path):
    values = np.array([0.1, -3.0, 2.0**-14, 1e4], np.float32).astype(dtype)
    write_tensors(tmp_path / 'x.safetensors', {'x': values})
    actual = read_tensors(tmp_path / 'x.safetensors')['x']
    assert actual.dtype == np.float32
    np.testing.assert_array_equal(actual, [float(v) for v in values.astype(np.float32)])


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / 'model.safetensors'
    write_tensors(path, TENSORS)
    whole = path.read_bytes()
    for end in 0, 4, 8, 40, len(whole) - 1:
        path.write_bytes(whole[:end])
        refused(path)
    path.write_bytes(whole + b'\0')
    refused(path)
    data, good = bytes(16), {'x': tensor(0, 8), 'y': tensor(8, 16)}
    assert len(read_tensors(handmade(path, good, data))) == 2
    for wrong in (
        good | {'y': tensor(4, 12)},  # overlaps
        good | {'y': tensor(-8, 0)},
        good | {'y': tensor(16, 8)},
        good | {'y': tensor(8, 24)},  # beyond the end
        good | {'y': tensor(8, 16, shape=(3,))},
        good | {'y': tensor(8, 16, shape=(2**62, 2**62))},
        good | {'y': tensor(8, 16, dtype='F31')},
        b'{"x": ',
        b'[]',
    ):
        refused(handmade(path, wrong, data))
    for length in -1, 0, 2**40, len(json.dumps(good)) + 1:
        refused(handmade(path, good, data, length=length % 2**64))
    refused(handmade(path, {'x': tensor(0, 8, shape=(8,), dtype='F8_E4M3')}, bytes(8)))


def test_shards_make_a_whole(tmp_path):
    index = tmp_path / 'model.safetensors.index.json'
    write_tensors(tmp_path / '1.safetensors', {'x': np.float32(1)})
    write_tensors(tmp_path / '2.safetensors', {'y': np.float32(2), 'z': np.float32(3)})
    places = {'x': '1.safetensors', 'y': '2.safetensors', 'z': '2.safetensors'}
    index.write_text(json.dumps({'weight_map': places}))
    assert read_tensors(tmp_path) == {'x': 1, 'y': 2, 'z': 3}
    for change, said in (
        ({'w': '1.safetensors'}, 'w is not in 1.safetensors'),
        ({'z': '1.safetensors'}, 'z of 2.safetensors is not listed'),
        ({'w': '../../etc/3.safetensors'}, 'outside'),
    ):
        index.write_text(json.dumps({'weight_map': places | change}))
        assert said in refused(index)
    index.write_text(json.dumps({'weight_map': places | {'w': '3.safetensors'}}))
    with pytest.raises(ConversionError, match='3.safetensors'):
        read_tensors(index)


def test_files_that_are_not_there(tmp_path):
    assert 'no such' in refused(tmp_path / 'absent')
    assert 'neither' in refused(tmp_path)
    (tmp_path / 'weights.h5').write_bytes(b'')
    assert 'are read from' in refused(tmp_path / 'weights.h5')
    for text in '{', '[]', '"x"':
        (tmp_path / 'config.json').write_text(text)
        with pytest.raises(ConversionError, match=r'config\.json: not'):
            read_json(tmp_path / 'config.json')


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_torch_files(tmp_path):
    torch = pytest.importorskip('torch')
    path = tmp_path / 'pytorch_model.bin'
    state = {name: torch.from_numpy(np.array(value)) for name, value in TENSORS.items()}
    state['half'] = torch.tensor([0.1], dtype=torch.bfloat16)
    for content in state, {'model': state, 'epoch': 3}, {'state_dict': state, 'step': 1}:
        torch.save(content, path)
        tensors = read_tensors(tmp_path)
        assert tensors['half'].dtype == np.float32
        assert tensors['half'][0] == np.float32(ml_dtypes.bfloat16(0.1))
        assert all(np.array_equal(tensors[name], value) for name, value in TENSORS.items())
    for content in {'model': state | {'epoch': 3}}, [1, 2], {}:
        torch.save(content, path)
        refused(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(path)
    marker = tmp_path / 'payload_has_run'
    torch.save({'x': Payload(marker)}, path)
    refused(path)
    path.write_bytes(pickle.dumps({'x': Payload(marker)}))
    refused(path)
    assert not marker.exists()
    pickle.loads(path.read_bytes())  # the payload would have run
    assert marker.exists()


def test_a_folder_comes_whole_or_not_at_all(tmp_path):
    with new_folder(tmp_path / 'out') as folder:
        (folder / 'file').write_text('x')
        assert not (tmp_path / 'out').exists()
    assert [p.name for p in tmp_path.rglob('*')] == ['out', 'file']
    for error in OSError, KeyboardInterrupt:
        with pytest.raises(error), new_folder(tmp_path / 'other') as folder:
            (folder / 'file').write_text('x')
            raise error
    with pytest.raises(ConversionError, match='exists already'), new_folder(tmp_path / 'out'):
        pass
    assert [p.name for p in tmp_path.rglob('*')] == ['out', 'file']
