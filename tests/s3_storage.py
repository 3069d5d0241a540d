"""An S3 server on this machine: what s3fs asks of it when `prepare fetch` reads.

The part of the API (docs.aws.amazon.com/AmazonS3/latest/API) that this needs: ListObjectsV2 in
pages, HeadObject, GetObject with ranges. Objects are kept in memory; signatures are not checked.

    with S3Storage() as storage:
        subprocess.run(command, env={**os.environ, **storage.env})
"""

import hashlib
import http.server
import re
import sys
import threading
import urllib.parse
from xml.sax.saxutils import escape

_PAGE = 3  # objects of a page; a thousand there


class S3Storage:
    """The server, while entered.

    Attributes:
      objects: 'BUCKET/NAME' -> content. There is no bucket without one.
      left: bytes of objects that it still sends, then it cuts connections; None for all.
      requests: (method, 'BUCKET/NAME', range or '') in order.
      env: variables that point s3fs here.
    """

    def __init__(self):
        self.objects: dict[str, bytes] = {}
        self.left: int | None = None
        self.requests: list[tuple[str, str, str]] = []

    def __enter__(self):
        handler = type('Handler', (_Handler,), {'storage': self})
        self._server = _Server(('127.0.0.1', 0), handler)
        self.env = {
            'AWS_ENDPOINT_URL': f'http://127.0.0.1:{self._server.server_port}',
            'AWS_ACCESS_KEY_ID': 'none',
            'AWS_SECRET_ACCESS_KEY': 'none',
            'AWS_DEFAULT_REGION': 'us-east-1',
        }
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self._server.shutdown()
        self._server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):  # a client that went away
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    storage: S3Storage
    protocol_version = 'HTTP/1.1'

    def log_message(self, *args):
        pass

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        key = urllib.parse.unquote(url.path).strip('/')
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        asked = self.headers.get('Range') or ''
        self.storage.requests.append((self.command, key, asked))
        if not any(f'{name}/'.startswith(f'{key.partition("/")[0]}/') for name in self._names()):
            self._send(404, {}, _error('NoSuchBucket'))
        elif '/' not in key:
            self._send(200, {'Content-Type': 'application/xml'}, self._listing(key, query))
        elif key not in self.storage.objects:
            self._send(404, {}, _error('NoSuchKey'))
        else:
            self._object(self.storage.objects[key], asked)

    do_HEAD = do_GET

    def _names(self):
        return sorted(self.storage.objects)

    def _object(self, data, asked):
        headers = {'ETag': _etag(data), 'Last-Modified': 'Thu, 01 Jan 2026 00:00:00 GMT'}
        span = re.fullmatch(r'bytes=(\d+)-(\d*)', asked)
        if not span:
            self._send(200, headers, data)
            return
        start = int(span[1])
        end = min(len(data), int(span[2]) + 1) if span[2] else len(data)
        if start >= len(data):
            self._send(416, {}, _error('InvalidRange'))
            return
        headers['Content-Range'] = f'bytes {start}-{end - 1}/{len(data)}'
        self._send(206, headers, data[start:end])

    def _listing(self, bucket, query):
        prefix, delimiter = query.get('prefix', ''), query.get('delimiter', '')
        names = [key.partition('/')[2] for key in self._names() if key.startswith(f'{bucket}/')]
        names = [name for name in names if name.startswith(prefix)]
        ends = {name: name.find(delimiter, len(prefix)) if delimiter else -1 for name in names}
        folders = sorted({name[: end + 1] for name, end in ends.items() if end >= 0})
        files = [name for name, end in ends.items() if end < 0]
        first = int(query.get('continuation-token', 0))
        shown = files[first : first + min(_PAGE, int(query.get('max-keys', _PAGE)))]
        more = first + len(shown) < len(files)
        parts = [f'<Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix>']
        parts += [
            f'<KeyCount>{len(shown)}</KeyCount><IsTruncated>{str(more).lower()}</IsTruncated>'
        ]
        if more:
            parts += [f'<NextContinuationToken>{first + len(shown)}</NextContinuationToken>']
        for name in shown:
            data = self.storage.objects[f'{bucket}/{name}']
            parts += [
                f'<Contents><Key>{escape(name)}</Key><Size>{len(data)}</Size>'
                f'<ETag>{escape(_etag(data))}</ETag>'
                '<LastModified>2026-01-01T00:00:00.000Z</LastModified>'
                '<StorageClass>STANDARD</StorageClass></Contents>'
            ]
        if not first:
            parts += [
                f'<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>'
                for folder in folders
            ]
        space, inner = 'http://s3.amazonaws.com/doc/2006-03-01/', ''.join(parts)
        return f'<ListBucketResult xmlns="{space}">{inner}</ListBucketResult>'.encode()

    def _send(self, status, headers, data):
        self.send_response(status)
        for name, value in {**headers, 'Content-Length': str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == 'HEAD':
            return
        if self.storage.left is not None and 'ETag' in headers:
            sent = data[: self.storage.left]
            self.storage.left -= len(sent)
            self.close_connection = len(sent) < len(data)
            data = sent
        self.wfile.write(data)


def _etag(data):
    return f'"{hashlib.md5(data).hexdigest()}"'


def _error(code):
    return f'<?xml version="1.0"?><Error><Code>{code}</Code></Error>'.encode()
