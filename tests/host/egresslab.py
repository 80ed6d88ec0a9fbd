"""A town for policies on connections outwards: a host, and an internet of three web servers and a
name server, whose log tells what it was asked. No name or packet leaves it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clilab import PROGRAMS, small_tree
from conftest import Sublet, eventually
from island import HOST, Island, island

FILES, OTHER, RESOLVER = "198.18.7.5", "198.18.7.6", "198.18.7.53"
PRIVATE = "10.99.7.5"
WEB, ECHO = 8000, 7007
_NAMES = {
    "files.example.org": FILES,
    "deep.wild.example.net": FILES,
    "other.example.org": OTHER,
    "metadata.evil.example": "169.254.169.254",
    "loopback.evil.example": "127.0.0.1",
    "private.evil.example": PRIVATE,
    "shared.evil.example": "100.64.0.1",
    "self.evil.example": HOST,
}


@dataclass
class Town:
    """The command line on its host, an image with tools, and the name server's log."""

    land: Island
    sublet: Sublet
    tools: str
    log: Path

    def start(self, name: str, *flags: str) -> None:
        """An instance that tells its name on port 80."""
        serve = ("socat", "TCP-LISTEN:80,fork,reuseaddr", "EXEC:hostname")
        self.sublet.ok("run", "-d", "--name", name, "--hostname", name, *flags, self.tools, *serve)

    def fetch(self, name: str, host: str, port: int = WEB, *flags: str) -> str:
        """What the instance gets of a page there; or why not: `refused`, `unknown` for a name, and
        `late` for what takes seconds to fail."""
        url = f"http://{host}:{port}/page"
        curl = ("curl", "-sS", "--noproxy", "*")
        done = self.sublet("exec", name, "timeout", "4", *curl, *flags, url)
        said = done.out.strip() or done.err
        reasons = {
            "Could not resolve host": "unknown",
            "Connection refused": "refused",
            "Couldn't connect": "refused",
        }
        if done.code == 124:
            return "late"
        return next((short for text, short in reasons.items() if text in said), said)

    def calls(self, name: str, address: str, port: int = 80) -> str:
        """What a server there says to the instance, without HTTP; or as `fetch`."""
        script = f"exec 3<>/dev/tcp/{address}/{port} && cat <&3"
        done = self.sublet("exec", name, "timeout", "4", "bash", "-c", script)
        if done.code == 124:
            return "late"
        return done.out.strip() or ("refused" if "refused" in done.err else done.err.strip())

    def address(self, name: str) -> str:
        return str(self.sublet.json("inspect", name)["address"])

    def asked(self, word: str) -> bool:
        """Whether the name server has been asked for a name with this in it."""
        return word in self.log.read_text()


@contextmanager
def town() -> Iterator[Town]:
    """The town, until the end; of its daemon nothing is left."""
    place = Path(tempfile.mkdtemp(prefix="sublet-town-"))
    programs = (*PROGRAMS, "bash", "curl", "hostname", "ip", "socat", "timeout")
    tree = small_tree(place / "tree", programs)
    (place / "resolv.conf").write_text(f"nameserver {RESOLVER}\n")
    try:
        with island(place) as land, _internet(land, place):
            land.run("mount", "--bind", str(place / "resolv.conf"), "/etc/resolv.conf")
            quick = {"SUBLET_ACCELERATION": "tcg"}  # a probe for KVM takes seconds
            sublet = Sublet(place / "sublet", quick, tuple(land.argv()))
            sublet.home.mkdir()
            tools = str(place / "tools.sif")
            sublet.ok("pack", str(tree), "-o", tools)
            yield Town(land, sublet, tools, place / "log")
            sublet.clean()
            sublet.ok("daemon", "--stop")
            assert "sublet" not in land.run("nft", "list", "ruleset")
    finally:
        shutil.rmtree(place)


@contextmanager
def _internet(land: Island, place: Path) -> Iterator[None]:
    """Web servers and a name server at the island's world."""
    outside = ["nsenter", f"--target={land.world}", "--net", "--"]
    for address in (FILES, OTHER, RESOLVER, PRIVATE, "100.64.0.1"):
        subprocess.run([*outside, "ip", "addr", "add", f"{address}/32", "dev", "lo"], check=True)
    web = place / "web"
    web.mkdir()
    (web / "page").write_text("a page\n")
    (place / "log").touch()
    names = [f"--address=/{name}/{address}" for name, address in _NAMES.items()]
    resolver = ["dnsmasq", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--log-queries"]
    resolver += ["--keep-in-foreground", "--log-facility=-", f"--listen-address={RESOLVER}"]
    resolver += ["--bind-interfaces", "--user=root", "--pid-file=", *names]
    pages = [sys.executable, "-m", "http.server", "-d", str(web), str(WEB)]
    echo = ["socat", f"TCP-LISTEN:{ECHO},fork,reuseaddr", "EXEC:cat"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    with (place / "log").open("ab") as log:
        started = [
            subprocess.Popen([*outside, *pages], **quiet),  # type: ignore[call-overload]
            subprocess.Popen([*outside, *echo], **quiet),  # type: ignore[call-overload]
            subprocess.Popen([*outside, *resolver], start_new_session=True, stdout=log, stderr=log),
        ]
    try:
        listening = [*outside, "ss", "-Hlnt"]
        eventually(lambda: f":{WEB}" in _said(listening), "the web server")
        eventually(lambda: f"{RESOLVER}:53" in _said(listening), "the name server")
        yield
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _said(argv: list[str]) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout
