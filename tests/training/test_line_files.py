"""Files of JSON lines after kills and on a full disk."""

import errno
import json
import os

from hypothesis import given, settings
from hypothesis import strategies as st

from semmim_jax.training import line_files

entries = st.lists(
    st.fixed_dictionaries({'step': st.integers(0, 9), 'x': st.floats(), 'text': st.text()}),
    max_size=8,
)


def texts(entries):
    return [json.dumps(entry) for entry in entries]  # NaN is not equal to itself


@given(entries, st.integers(0, 400), entries)
@settings(deadline=None, max_examples=60)
def test_what_was_whole_before_a_cut_stays_and_what_follows_is_whole(tmp_path_factory, a, cut, b):
    path = tmp_path_factory.mktemp('lines') / 'lines.jsonl'
    for part in a, b:
        file = line_files.LineFile(path)
        for entry in part:
            file.write(entry)
        file.close()
        if part is a:
            path.write_bytes(path.read_bytes()[:cut])
            whole = [json.loads(line) for line in path.read_text().split('\n') if complete(line)]
    assert texts(line_files.read_lines(path)) == texts(whole + b)
    line_files.keep_lines(path, lambda entry: entry['step'] < 5)
    assert texts(line_files.read_lines(path)) == texts([e for e in whole + b if e['step'] < 5])


def complete(line: str) -> bool:
    return line.endswith('}') and line.startswith('{')


def test_lines_wait_while_the_disk_is_full(tmp_path, monkeypatch, capfd):
    path, write, full = tmp_path / 'lines.jsonl', os.write, []

    def write_some(fd, data):
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(fd, data[:5])

    monkeypatch.setattr(os, 'write', write_some)
    file = line_files.LineFile(path)
    file.write({'step': 1})
    full.append(1)
    file.write({'step': 2})
    file.write({'step': 3})
    assert [entry['step'] for entry in line_files.read_lines(path)] == [1]
    full.clear()
    file.write({'step': 4})
    file.close()
    assert [entry['step'] for entry in line_files.read_lines(path)] == [1, 2, 3, 4]
    assert capfd.readouterr().err.count('No space left on device') == 1
