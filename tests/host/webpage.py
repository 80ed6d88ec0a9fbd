"""Pages on this host's loopback, for browsers in instances."""

from __future__ import annotations

import contextlib
import http.server
import socketserver
import threading
from collections.abc import Iterator

RED = (
    "<title>The red one</title><style>body{background:#ff0000;margin:0;height:2000px}"
    "@media (prefers-color-scheme:dark){body{background:#000080}}</style><h1>Hello from red</h1>"
)
LATE = "<title>late</title><script>setTimeout(() => document.body.id = 'ready', 300)</script>"
ALERT = "<title>asks</title><script>alert('for ever?')</script>answered"


class Pages(http.server.BaseHTTPRequestHandler):
    """`/` red, `/gone` 404, `/late` changes after a while, `/asks` opens a dialogue, `/slow` never
    ends, `/file` is a download, `/moved` leads to `/`, `/agent` shows who asks."""

    release = threading.Event()

    def do_GET(self) -> None:
        path = self.path
        if path == "/slow":
            self._say(200, "<title>slow</title>", length=1000)
            self.release.wait(60)
            return
        if path == "/moved":
            self._say(302, "", Location="/")
            return
        if path == "/file":
            self._say(200, "x", Content_Disposition="attachment; filename=a.bin")
            return
        pages = {"/": RED, "/late": LATE, "/asks": ALERT}
        agent = f"<title>{self.headers['User-Agent']}</title>"
        text = agent if path == "/agent" else pages.get(path)
        self._say(200 if text else 404, text or RED)

    def _say(self, status: int, text: str, *, length: int = 0, **headers: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(length or len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A browser that hangs up is no error."""


@contextlib.contextmanager
def served() -> Iterator[int]:
    """The port of 127.0.0.1 at which the pages are."""
    with Server(("127.0.0.1", 0), Pages) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            Pages.release.set()
            server.shutdown()
            thread.join()
            Pages.release.clear()
