"""An S3 server for tests: buckets in memory, one key, and the signature of every request checked.

What restic needs of the API (Amazon S3 API Reference): buckets, objects with ranges, and
ListObjectsV2. Signatures are those of "Authenticating Requests (AWS Signature Version 4)", and
bodies may come in signed chunks, as clients send them without TLS.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

KEY, SECRET = "AKIASUBLETTEST", "sublet-test-secret-of-the-bucket"
_DATE = "Sat, 28 Nov 2026 00:00:00 GMT"
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/([^,]+), ?SignedHeaders=([^,]+), ?Signature=(\w+)"
)


class S3(ThreadingHTTPServer):
    """The server; `buckets` holds what it was given."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.buckets: dict[str, dict[str, bytes]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving() -> Iterator[S3]:
    """A server, for as long as it is needed."""
    with S3() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def signature(method: str, target: str, headers: Mapping[str, str], scope: str, names: str) -> str:
    """What a request that holds the secret is signed with."""
    parts = urlsplit(target)
    query = "&".join(sorted(q if "=" in q else f"{q}=" for q in parts.query.split("&") if q))
    lines = [f"{name}:{' '.join(headers[name].split())}\n" for name in names.split(";")]
    payload = headers["x-amz-content-sha256"]
    request = "\n".join([method, parts.path, query, "".join(lines), names, payload])
    digest = hashlib.sha256(request.encode()).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", headers["x-amz-date"], scope, digest])
    key = f"AWS4{SECRET}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), "sha256").digest()
    return hmac.new(key, text.encode(), "sha256").hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: S3

    def log_message(self, *args: Any) -> None:
        """No noise."""

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", headers.get("length", str(len(body))))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, status: int, code: str) -> None:
        text = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>"
        self._answer(status, text.encode(), Content_Type="application/xml")

    def _body(self) -> bytes:
        data = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if not self.headers.get("x-amz-content-sha256", "").startswith("STREAMING-"):
            return data
        found = b""
        while data:
            head, _, data = data.partition(b"\r\n")
            size = int(head.partition(b";")[0], 16)
            found, data = found + data[:size], data[size + 2 :]
        return found

    def _handle(self) -> None:
        body = self._body()
        headers = {name.lower(): value for name, value in self.headers.items()}
        match = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
        if not match:
            return self._refuse(403, "AccessDenied")
        if match[1] != KEY:
            return self._refuse(403, "InvalidAccessKeyId")
        if signature(self.command, self.path, headers, match[2], match[3]) != match[4]:
            return self._refuse(403, "SignatureDoesNotMatch")
        parts = urlsplit(self.path)
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        if key:
            return self._object(bucket, key, body)
        return self._bucket(bucket, parse_qs(parts.query, keep_blank_values=True))

    do_GET = do_PUT = do_HEAD = do_DELETE = _handle

    def _bucket(self, name: str, query: Mapping[str, list[str]]) -> None:
        if self.command == "PUT":
            self.server.buckets.setdefault(name, {})
            return self._answer(200)
        if name not in self.server.buckets:
            return self._refuse(404, "NoSuchBucket")
        if "location" in query:
            return self._answer(200, b"<LocationConstraint></LocationConstraint>")
        prefix = query.get("prefix", [""])[0]
        items = [
            f"<Contents><Key>{escape(key)}</Key><Size>{len(data)}</Size>"
            "<LastModified>2026-11-28T00:00:00.000Z</LastModified><ETag>x</ETag></Contents>"
            for key, data in sorted(self.server.buckets[name].items())
            if key.startswith(prefix)
        ]
        text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{''.join(items)}"
        return self._answer(200, f"{text}</ListBucketResult>".encode())

    def _object(self, bucket: str, key: str, body: bytes) -> None:
        objects = self.server.buckets.get(bucket)
        if objects is None:
            return self._refuse(404, "NoSuchBucket")
        about = {"Last_Modified": _DATE, "Content_Type": "application/octet-stream"}
        if self.command == "PUT":
            objects[key] = body
            return self._answer(200, ETag=f'"{hashlib.md5(body).hexdigest()}"')
        if self.command == "DELETE":
            objects.pop(key, None)
            return self._answer(204)
        if key not in objects:
            return self._refuse(404, "NoSuchKey")
        data = objects[key]
        about["ETag"] = f'"{hashlib.md5(data).hexdigest()}"'
        if self.command == "GET" and (wanted := self.headers.get("Range")):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            end = min(int(last) + 1 if last else len(data), len(data))
            about["Content_Range"] = f"bytes {first}-{end - 1}/{len(data)}"
            return self._answer(206, data[int(first) : end], **about)
        return self._answer(200, data, **about)
