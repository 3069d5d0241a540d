"""A Cloud Storage server on this machine: what gcsfs, TensorStore, Orbax and ArrayRecord ask of it.

The part of the JSON API (cloud.google.com/storage/docs/json_api) that these clients use: list, get
with ranges and generations, uploads by media, multipart and resumable, copy, compose, delete, and
batches of deletes. An object appears whole or not at all, and nothing can be appended or renamed,
as there. Every bucket exists. Objects are kept in memory.

    with CloudStorage() as storage:
        subprocess.run(command, env={**os.environ, **storage.env})
"""

import base64
import collections
import email
import http.server
import json
import re
import struct
import sys
import threading
import urllib.parse
from collections.abc import Callable
from typing import Any, NamedTuple

_OBJECT = r'(?:/download)?/storage/v1/b/(?P<bucket>[^/]+)/o/(?P<name>[^/]+)'
_PLACE = r'(?:/b/(?P<to_bucket>[^/]+))?/o/(?P<to_name>[^/]+)'


class Object(NamedTuple):
    """Content of an object, and its number, which grows with every write of any object."""

    data: bytes
    generation: int


class Failed(Exception):
    """An answer other than a good one, by its status."""


class CloudStorage:
    """The server, while entered.

    Attributes:
      objects: 'BUCKET/NAME' -> Object.
      requests: 'METHOD BUCKET/NAME' and how often it was asked.
      refuse: status for 'METHOD BUCKET/NAME', 0 to answer; may block, as a slow network does.
      env: variables that point the clients here.
    """

    def __init__(self):
        self.objects: dict[str, Object] = {}
        self.requests: collections.Counter[str] = collections.Counter()
        self.refuse: Callable[[str], int] = lambda request: 0
        self.uploads: dict[str, tuple[str, bytearray]] = {}  # under way, by their id
        self.lock, self.generation = threading.RLock(), 0

    def __enter__(self):
        handler = type('Handler', (_Handler,), {'storage': self})
        self._server = _Server(('127.0.0.1', 0), handler)
        self.url = f'http://127.0.0.1:{self._server.server_port}'
        self.env = {
            'STORAGE_EMULATOR_HOST': self.url,  # gcsfs and google-cloud-storage
            'TENSORSTORE_GCS_HTTP_URL': self.url,
            'GOOGLE_AUTH_TOKEN_FOR_TESTING': 'none',  # else TensorStore asks for a real one
            'CLOUD_STORAGE_EMULATOR_ENDPOINT': self.url,  # google-cloud-cpp, in ArrayRecord
            # Without it gcsfs asks by gRPC, which this server does not speak, for a bucket's kind.
            'GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT': 'false',
        }
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self._server.shutdown()
        self._server.server_close()

    def put(self, key: str, data: bytes) -> Object:
        """Writes the object 'BUCKET/NAME'."""
        with self.lock:
            self.generation += 1
            self.objects[key] = Object(bytes(data), self.generation)
            return self.objects[key]

    def names(self, under: str = '') -> set[str]:
        """'BUCKET/NAME' of the objects whose name begins so."""
        with self.lock:
            return {key for key in self.objects if key.startswith(under)}

    def snapshot(self, under: str = '') -> dict[str, bytes]:
        """Content of the objects whose name begins so."""
        with self.lock:
            return {k: x.data for k, x in self.objects.items() if k.startswith(under)}


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):  # a client that was killed
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    storage: CloudStorage
    protocol_version = 'HTTP/1.1'
    wbufsize = -1  # one packet an answer: two would each wait for the other's receipt

    def log_message(self, *args):
        pass

    def handle_any(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        size = int(self.headers.get('Content-Length') or 0)
        body = self.rfile.read(size)
        if 'chunked' in self.headers.get('Transfer-Encoding', ''):
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        try:
            status, headers, answer = self.answer(url.path, query, body)
        except Failed as e:
            (status,), headers = e.args, {}
            answer = {'error': {'code': status, 'message': f'{self.command} {url.path}: {status}'}}
        if not isinstance(answer, bytes):
            answer = json.dumps(answer).encode()
            headers = {'Content-Type': 'application/json; charset=UTF-8', **headers}
        self.send_response(status)
        for name, value in {**headers, 'Content-Length': len(answer)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(answer)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

    def answer(self, path: str, query: dict[str, str], body: bytes) -> tuple[int, dict, Any]:
        """Status, headers and body; raises Failed."""
        storage = self.storage
        for pattern, method in (
            (r'/storage/v1/b/(?P<bucket>[^/]+)', self.bucket),
            (r'/storage/v1/b/(?P<bucket>[^/]+)/o', self.list),
            (r'/upload/storage/v1/b/(?P<bucket>[^/]+)/o', self.upload),
            (_OBJECT, self.one),
            (rf'{_OBJECT}/(?:rewriteTo|copyTo|moveTo){_PLACE}', self.copy),
            (rf'{_OBJECT}/compose', self.compose),
            (r'/batch/storage/v1', self.batch),
            (r'/(?P<bucket>[^/]+)/(?P<name>.+)', self.one),  # as the XML API names an object
        ):
            if match := re.fullmatch(pattern, path):
                place = {k: urllib.parse.unquote(x) for k, x in match.groupdict().items() if x}
                name = place.get('name', query.get('name', ''))
                request = f'{self.command} {place.get("bucket", "")}/{name}'
                with storage.lock:
                    storage.requests[request] += 1
                if status := storage.refuse(request):
                    raise Failed(status)
                with storage.lock:
                    return method(query, body, **place)
        raise Failed(501)

    def bucket(self, query, body, *, bucket):
        return 200, {}, {'kind': 'storage#bucket', 'name': bucket, 'id': bucket}

    def list(self, query, body, *, bucket):
        prefix, delimiter = query.get('prefix', ''), query.get('delimiter', '')
        items, prefixes = [], set()
        for key in sorted(self.storage.names(f'{bucket}/{prefix}')):
            name = key.removeprefix(f'{bucket}/')
            end = name.find(delimiter, len(prefix)) if delimiter else -1
            if end >= 0:
                prefixes.add(name[: end + len(delimiter)])
            first, last = query.get('startOffset', ''), query.get('endOffset', '\U0010ffff')
            if end < 0 and first <= name < last:
                items.append(_resource(bucket, name, self.storage.objects[key]))
        most = int(query.get('maxResults', 1000))
        first = int(query.get('pageToken', 0))
        page = {'kind': 'storage#objects', 'items': items[first : first + most]}
        if first + most < len(items):
            page['nextPageToken'] = str(first + most)
        return 200, {}, page | ({'prefixes': sorted(prefixes)} if not first else {})

    def one(self, query, body, *, bucket, name):
        there = self.found(bucket, name, query)
        if self.command == 'DELETE':
            del self.storage.objects[f'{bucket}/{name}']
            return 204, {}, b''
        media = self.path.startswith('/download') or not self.path.startswith('/storage')
        if query.get('alt') != 'media' and not media:
            return 200, {}, _resource(bucket, name, there)
        headers = {'x-goog-generation': there.generation, 'Content-Type': 'text/plain'}
        headers['x-goog-hash'] = f'crc32c={_crc32c(there.data)}'
        asked = re.fullmatch(r'bytes=(\d*)-(\d*)', self.headers.get('Range', ''))
        if not asked:
            return 200, headers, there.data
        size = len(there.data)
        start = int(asked[1]) if asked[1] else max(0, size - int(asked[2]))
        end = min(size, int(asked[2]) + 1) if asked[1] and asked[2] else size
        if start >= size:
            raise Failed(416)
        headers['Content-Range'] = f'bytes {start}-{end - 1}/{size}'
        return 206, headers, there.data[start:end]

    def upload(self, query, body, *, bucket):
        kind, known = query.get('uploadType'), self.storage.uploads
        if 'upload_id' in query:
            return self.chunk(query['upload_id'], body, bucket)
        if kind == 'resumable':
            name = query.get('name') or json.loads(body)['name']
            self.found(bucket, name, query, needed=False)
            number = str(len(known))
            known[number] = (name, bytearray())
            url = f'{self.storage.url}/upload/storage/v1/b/{bucket}/o?upload_id={number}'
            return 200, {'Location': url}, {}
        if kind == 'multipart':
            content_type = self.headers['Content-Type']
            boundary = re.search(r'boundary="?([^";]+)', content_type)[1].encode()
            _, described, content, _ = body.split(b'--' + boundary)
            about = json.loads(re.split(rb'\r?\n\r?\n', described, maxsplit=1)[1])
            name = about['name']
            body = re.split(rb'\r?\n\r?\n', content, maxsplit=1)[1]
            body = body.removesuffix(b'\n').removesuffix(b'\r')
        else:
            name = query['name']
        self.found(bucket, name, query, needed=False)
        return 200, {}, _resource(bucket, name, self.storage.put(f'{bucket}/{name}', body))

    def chunk(self, number, body, bucket):
        """A part of a resumable upload; the object appears with the last one."""
        name, so_far = self.storage.uploads[number]
        start, total = re.fullmatch(
            r'bytes (\d+|\*)(?:-\d+)?/(\d+|\*)', self.headers['Content-Range']
        ).groups()
        if start != '*':
            so_far[int(start) :] = body
        if total == '*' or len(so_far) < int(total):
            return 308, {'Range': f'bytes=0-{len(so_far) - 1}'}, b''
        return 200, {}, _resource(bucket, name, self.storage.put(f'{bucket}/{name}', so_far))

    def copy(self, query, body, *, bucket, name, to_name, to_bucket=None):
        there, to_bucket = self.found(bucket, name, {}), to_bucket or bucket
        new = self.storage.put(f'{to_bucket}/{to_name}', there.data)
        if '/moveTo/' in self.path:
            del self.storage.objects[f'{bucket}/{name}']
            return 200, {}, _resource(to_bucket, to_name, new)
        return 200, {}, {'done': True, 'resource': _resource(to_bucket, to_name, new)}

    def compose(self, query, body, *, bucket, name):
        parts = [source['name'] for source in json.loads(body)['sourceObjects']]
        data = b''.join(self.found(bucket, part, {}).data for part in parts)
        return 200, {}, _resource(bucket, name, self.storage.put(f'{bucket}/{name}', data))

    def batch(self, query, body):
        head = f'Content-Type: {self.headers["Content-Type"]}\r\n\r\n'.encode()
        answers = []
        for part in email.message_from_bytes(head + body).get_payload():
            path = re.search(r'DELETE (\S+) HTTP', part.get_payload())[1]
            match = re.fullmatch(_OBJECT, urllib.parse.urlsplit(path).path)
            bucket, name = map(urllib.parse.unquote, match.groups())
            gone = self.storage.objects.pop(f'{bucket}/{name}', None)
            status = '204 No Content' if gone else '404 Not Found'
            answers.append(
                '--answer\r\nContent-Type: application/http\r\n'
                f'Content-ID: <response-{part["Content-ID"].strip("<>")}>\r\n\r\n'
                f'HTTP/1.1 {status}\r\n\r\n\r\n'
            )
        content = ''.join([*answers, '--answer--\r\n']).encode()
        return 200, {'Content-Type': 'multipart/mixed; boundary=answer'}, content

    def found(self, bucket, name, query, *, needed=True) -> Object | None:
        """The object, if its generation is as asked for."""
        there = self.storage.objects.get(f'{bucket}/{name}')
        if there is None and needed:
            raise Failed(404)
        generation = there.generation if there else 0
        if query.get('ifGenerationMatch') not in (None, str(generation)):
            raise Failed(412)
        if query.get('ifGenerationNotMatch') == str(generation):
            raise Failed(304)
        return there


def _resource(bucket: str, name: str, there: Object) -> dict[str, Any]:
    return {
        'kind': 'storage#object',
        'id': f'{bucket}/{name}/{there.generation}',
        'name': name,
        'bucket': bucket,
        'generation': str(there.generation),
        'metageneration': '1',
        'size': str(len(there.data)),
        'crc32c': _crc32c(there.data),
        'timeCreated': '2026-01-01T00:00:00.000Z',
        'updated': '2026-01-01T00:00:00.000Z',
    }


def _crc32c(data: bytes) -> str:
    import google_crc32c

    return base64.b64encode(struct.pack('>I', google_crc32c.value(data))).decode()
