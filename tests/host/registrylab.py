"""What the registry tests share: Debian's registry with TLS and passwords, and a front that
breaks connections off, changes bytes and wants tokens."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from conftest import eventually
from imagelab import call, free_port

USER, PASSWORD = "bob", "open sesame"
HTPASSWD = "bob:$2b$04$DuUH/hl3SbX44KlKKmtYtOYTk5Kjvfzto8nm3Pw62Qp0kI134jy8O\n"
"""bcrypt of the password, the only kind that the registry takes."""
CERTIFICATES = Path("/etc/containers/certs.d")


@dataclass(frozen=True)
class Authority:
    """A certificate authority of the test's own, in the directory `place`."""

    place: Path

    @property
    def certificate(self) -> Path:
        return self.place / "ca.pem"

    def make(self) -> Authority:
        self._openssl("req", "-x509", *self._key("ca"), "-days", "30", "-subj", "/CN=test")
        (self.place / "index.txt").touch()
        (self.place / "serial").write_text("01")
        return self

    def issue(self, name: str, host: str, *dates: str) -> tuple[Path, Path]:
        """Certificate and key for a host; `dates` are from when and until when it is valid."""
        place, (since, until) = self.place, dates or ("20200101000000Z", "20400101000000Z")
        request = place / f"{name}.csr"
        key = ["-newkey", "rsa:2048", "-nodes", "-keyout", str(place / f"{name}.key")]
        self._openssl("req", *key, "-subj", f"/CN={name}", "-out", str(request))
        (place / "ca.cnf").write_text(
            f"[ca]\ndefault_ca=d\n[d]\ndatabase={place}/index.txt\nserial={place}/serial\n"
            f"new_certs_dir={place}\ndefault_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n"
        )
        (place / "ext").write_text(f"subjectAltName={host}\n")
        sign = ["-cert", str(self.certificate), "-keyfile", str(place / "ca.key")]
        sign += ["-in", str(request), "-out", str(place / f"{name}.crt"), "-notext"]
        sign += ["-startdate", since, "-enddate", until, "-extfile", str(place / "ext")]
        self._openssl("ca", "-batch", "-config", str(place / "ca.cnf"), *sign)
        return place / f"{name}.crt", place / f"{name}.key"

    def _key(self, name: str) -> list[str]:
        files = ["-keyout", str(self.place / f"{name}.key"), "-out", str(self.certificate)]
        return ["-newkey", "rsa:2048", "-nodes", *files]

    @staticmethod
    def _openssl(*arguments: str) -> None:
        call("openssl", *arguments)


@contextmanager
def serving(
    place: Path,
    *,
    tls: tuple[Path, Path] | None = None,
    clients: Path | None = None,
    passwords: bool = False,
) -> Iterator[int]:
    """Debian's registry on loopback; its port. `clients`: the authority whose certificates
    clients must have."""
    place.mkdir(exist_ok=True)
    port = free_port()
    http = f"http: {{addr: '127.0.0.1:{port}'"
    if tls:
        wanted = f", clientcas: ['{clients}']" if clients else ""
        http += f", tls: {{certificate: '{tls[0]}', key: '{tls[1]}'{wanted}}}"
    http += "}\n"
    text = f"version: 0.1\nlog: {{level: error}}\n{http}"
    text += f"storage: {{filesystem: {{rootdirectory: {place}/data}}}}\n"
    if passwords:
        (place / "htpasswd").write_text(HTPASSWD)
        text += f"auth: {{htpasswd: {{realm: test, path: {place}/htpasswd}}}}\n"
    (place / "registry.yml").write_text(text)
    process = subprocess.Popen(
        ["docker-registry", "serve", str(place / "registry.yml")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        eventually(answers, "the registry answers")
        yield port
    finally:
        process.terminate()
        process.wait()


@contextmanager
def trusted(
    registry: str, authority: Authority, own: tuple[Path, Path] | None = None
) -> Iterator[None]:
    """This host knows the authority for this registry, and has a certificate of its own for it
    (containers-certs.d(5))."""
    place = CERTIFICATES / registry
    place.mkdir(parents=True)
    try:
        shutil.copy(authority.certificate, place / "ca.crt")
        for source, name in zip(own or (), ("client.cert", "client.key"), strict=False):
            shutil.copy(source, place / name)
        yield
    finally:
        shutil.rmtree(place)
        with contextlib.suppress(OSError):
            CERTIFICATES.rmdir()


def put(registry: str, name: str, layout: Path, *options: str) -> str:
    """Copy a layout to a registry: where it can be pulled."""
    target = f"docker://{registry}/{name}"
    call("skopeo", "copy", "--dest-tls-verify=false", *options, f"oci:{layout}", target)
    return f"{registry}/{name}"


@dataclass
class Front:
    """A registry before the registry at `port`. `cut`: after so many bytes of a blob's body the
    connection breaks off; `flip`: a byte of every blob is changed; `whole`: ranges are ignored;
    `token`: who pulls needs one, which user and password give; `stall`: after `cut` bytes the
    connection stands still instead, until it is set; `dies`: after the first cut it sends no more.
    """

    port: int
    cut: int | None = None
    flip: bool = False
    whole: bool = False
    token: str = ""
    stall: threading.Event | None = None
    dies: bool = False
    replies: dict[str, bytes] = field(default_factory=dict)
    ranges: list[str] = field(default_factory=list)
    served: int = 0
    busy: int = 0
    name: str = ""

    def challenge(self) -> str:
        return f'Bearer realm="http://{self.name}/token",service="test"'

    def grant(self, authorization: str) -> tuple[int, bytes]:
        right = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if authorization != f"Basic {right}":
            return 401, b"{}"
        return 200, json.dumps({"token": self.token}).encode()

    @contextmanager
    def open(self) -> Iterator[Front]:
        handler = type("Handler", (_Handler,), {"front": self})
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            server.daemon_threads = True
            self.name = f"localhost:{server.server_address[1]}"
            thread = threading.Thread(target=server.serve_forever, args=[0.02])
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()


class _Handler(BaseHTTPRequestHandler):
    front: Front
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.front.busy += 1
        try:
            self._reply()
        finally:
            self.front.busy -= 1

    do_HEAD = do_GET

    def _reply(self) -> None:
        front, sent = self.front, self.headers.get("Authorization", "")
        if front.token and self.path.startswith("/token"):
            self._answer(*front.grant(sent))
        elif front.token and sent != f"Bearer {front.token}":
            self._answer(401, b"{}", [("WWW-Authenticate", front.challenge())])
        elif self.path in front.replies:
            self._answer(200, front.replies[self.path])
        else:
            self._pass_on()

    def _pass_on(self) -> None:
        front, is_blob = self.front, "/blobs/" in self.path
        given = {key: ", ".join(self.headers.get_all(key, [])) for key in ("Accept", "Range")}
        given = {key: value for key, value in given.items() if value}
        if is_blob and self.command == "GET":
            front.ranges.append(given.get("Range", ""))
        if front.whole:
            given.pop("Range", None)
        behind = http.client.HTTPConnection("127.0.0.1", front.port, timeout=30)
        behind.request(self.command, self.path, headers=given)
        reply = behind.getresponse()
        body = bytearray(reply.read())
        kept = ("Content-Type", "Docker-Content-Digest", "Content-Range")
        headers = [(k, v) for k, v in reply.getheaders() if k in kept]
        if self.command == "HEAD":
            headers.append(("Content-Length", reply.getheader("Content-Length", "0")))
        behind.close()
        if is_blob and front.flip and body:
            body[len(body) // 2] ^= 1
        self._answer(reply.status, bytes(body), headers, is_blob=is_blob)

    def _answer(
        self,
        status: int,
        body: bytes,
        headers: list[tuple[str, str]] | None = None,
        *,
        is_blob: bool = False,
    ) -> None:
        self.send_response(status)
        for key, value in headers or []:
            self.send_header(key, value)
        if not any(key == "Content-Length" for key, _ in headers or []):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        short = body[: self.front.cut] if is_blob and self.front.cut is not None else body
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(short)
            self.wfile.flush()
            if is_blob:
                self.front.served += len(short)
        if len(short) < len(body):
            if self.front.dies:
                self.front.cut = 0
            if self.front.stall:
                self.front.stall.wait(60)
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Quietly."""
