"""`prepare fetch` against servers on this machine: what was interrupted goes on."""

import hashlib
import http.server
import re
import socket
import sys
import threading

import pytest
from fsspec.registry import _registry

from semmim_jax.importers import fetch as fetching
from semmim_jax.importers.fetch import fetch

DATA = bytes(range(256)) * 8192  # 2 MiB
SHA256 = hashlib.sha256(DATA).hexdigest()


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `content`; ends each answer after `most` bytes; knows ranges where `ranges`."""

    content, most, ranges, etag = DATA, len(DATA), True, '"1"'
    asked: list[str | None] = []

    def log_message(self, *args):
        pass

    def do_GET(self):
        if self.path != '/set/file%20one.tar':
            self.send_error(404)
            return
        asked = self.headers.get('Range')
        self.asked.append(asked)
        start = int(re.fullmatch(r'bytes=(\d+)-', asked)[1]) if asked and self.ranges else 0
        self.send_response(206 if start else 200)
        self.send_header('Content-Length', str(len(self.content) - start))
        self.send_header('ETag', self.etag)
        self.end_headers()
        self.wfile.write(self.content[start : start + self.most])


@pytest.fixture
def server():
    kind = type('Kind', (Server,), {'asked': []})
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), kind) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        kind.url = f'http://127.0.0.1:{running.server_port}/set/file%20one.tar'
        yield kind
        running.shutdown()


def test_a_file_is_copied_once_under_its_name(server, tmp_path):
    (path,) = fetch(server.url, str(tmp_path / 'new'), sha256=SHA256.upper())
    assert path == tmp_path / 'new' / 'file one.tar' and path.read_bytes() == DATA
    assert [p.name for p in path.parent.iterdir()] == ['file one.tar']
    asked = len(server.asked)
    fetch(server.url, str(tmp_path / 'new'))
    assert len(server.asked) == asked + 1  # for its size


@pytest.mark.parametrize('ranges', [True, False])
def test_an_interrupted_copy_goes_on(server, tmp_path, ranges):
    server.most, server.ranges = 1_500_000, ranges
    with pytest.raises(OSError, match='ended after 1500000 of 2097152 bytes; the same command'):
        fetch(server.url, str(tmp_path), sha256=SHA256)
    assert not (tmp_path / 'file one.tar').exists()
    server.most = len(DATA)
    (path,) = fetch(server.url, str(tmp_path), sha256=SHA256)
    assert path.read_bytes() == DATA and server.asked[-1] == 'bytes=1500000-'


def test_a_copy_of_what_has_changed_begins_again(server, tmp_path):
    server.most = 1_500_000
    with pytest.raises(OSError, match='goes on'):
        fetch(server.url, str(tmp_path))
    server.content, server.etag, server.most = DATA[::-1], '"2"', len(DATA)
    (path,) = fetch(server.url, str(tmp_path))
    assert path.read_bytes() == DATA[::-1]


def test_another_sha256_keeps_nothing(server, tmp_path):
    with pytest.raises(OSError, match=f'has the SHA-256 {SHA256}, not {"0" * 64}: nothing is'):
        fetch(server.url, str(tmp_path), sha256='0' * 64)
    assert not list(tmp_path.glob('file one.tar*[!n]'))
    (tmp_path / 'file one.tar').write_bytes(DATA[::-1])  # rotten since: it has the right size
    (path,) = fetch(server.url, str(tmp_path), sha256=SHA256)
    assert path.read_bytes() == DATA


@pytest.mark.parametrize(
    ('url', 'said'),
    [
        ('file.tar', 'not an address'),
        ('{}/none', '404|Not Found'),
        ('strange://host/file', 'Protocol not known'),
        ('http://127.0.0.1:9/x', 'refused'),
    ],
)
def test_addresses_that_cannot_be_read_are_refused(server, tmp_path, url, said):
    with pytest.raises(ValueError, match=said) as caught:
        fetch(url.format(server.url), str(tmp_path / 'new'))
    assert '\n' not in str(caught.value) and not (tmp_path / 'new').exists()
    with pytest.raises(ValueError, match='--sha256=12: must be 64 hexadecimal digits'):
        fetch(server.url, str(tmp_path / 'new'), sha256='12')


def test_a_silent_server_is_refused_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, 'SECONDS', 0.5)
    with socket.create_server(('127.0.0.1', 0)) as silent:
        with pytest.raises(ValueError, match='no answer within 0.5 s: is there a network'):
            fetch(f'http://127.0.0.1:{silent.getsockname()[1]}/x', str(tmp_path))


def test_s3_needs_its_client_and_says_which(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 's3fs', None)
    monkeypatch.delitem(_registry, 's3', raising=False)  # where it was asked for
    with pytest.raises(ValueError, match=r'^s3://bucket/set: needs pip install semmim_jax\[s3\]$'):
        fetch('s3://bucket/set', str(tmp_path / 'new'))
    assert not (tmp_path / 'new').exists()
