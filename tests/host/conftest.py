"""The host tier: a real daemon with a root and a run directory of its own, real containers.

Nothing here is skipped: where this tier cannot run, it fails.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from imagelab import Lab, free_port

BASE = "debian:bookworm"
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job ignores it (bash(1), SIGNALS), and so would all that is started here.
    signal.signal(signal.SIGINT, signal.default_int_handler)

SUBLET = str(Path(sys.executable).parent / "sublet")
DEADLINE = 240.0


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass
class Sublet:
    """The command line, as a user would call it, with directories of its own."""

    home: Path
    extra: dict[str, str] = field(default_factory=dict)
    before: tuple[str, ...] = ()
    """What every command is run by, such as nsenter(1)."""

    @property
    def run_dir(self) -> Path:
        return self.home / "run"

    @property
    def root(self) -> Path:
        return self.home / "root"

    @property
    def env(self) -> dict[str, str]:
        own = {"SUBLET_ROOT": str(self.root), "SUBLET_RUN": str(self.run_dir)}
        path = f"{Path(SUBLET).parent}:{os.environ['PATH']}"
        return {**os.environ, **own, **self.extra, "PATH": path}

    def __call__(self, *args: str, input: str | None = None, timeout: float = DEADLINE) -> Outcome:
        """Run one command to its end."""
        done = subprocess.run(
            [*self.before, SUBLET, *args],
            env=self.env,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def ok(self, *args: str, input: str | None = None, timeout: float = DEADLINE) -> str:
        """Run one command that must succeed; its standard output, stripped."""
        outcome = self(*args, input=input, timeout=timeout)
        assert outcome.code == 0, f"{args}: {outcome}"
        return outcome.out.strip()

    def json(self, *args: str) -> Any:
        return json.loads(self.ok(*args))

    def spawn(self, *args: str, **options: Any) -> subprocess.Popen[str]:
        """Start one command in a process group of its own."""
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, **options}
        options = {"stderr": subprocess.PIPE, "start_new_session": True, **options}
        return subprocess.Popen([*self.before, SUBLET, *args], env=self.env, text=True, **options)

    def daemon_pid(self) -> int:
        return int(self.json("version", "--json")["daemon"]["pid"])

    def kill_daemon(self) -> None:
        """SIGKILL, as at a crash; returns when it is gone."""
        pid = self.daemon_pid()
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: ended(pid), "daemon gone")

    def clean(self) -> None:
        """Delete every instance and nameless image, and assert that nothing is left of any."""
        ids = self.ok("ps", "-aq").split()
        if ids:
            self.ok("rm", "-f", *ids)
        nameless = [row["digest"] for row in self.json("images", "--json") if not row["names"]]
        if nameless:
            self.ok("rmi", *nameless)
        found = self("audit", "--json")
        assert (found.code, json.loads(found.out)) == (0, [])

    def close(self) -> None:
        """Stop the daemon and assert that it took everything with it."""
        self.ok("daemon", "--stop")
        with open("/proc/self/mountinfo") as mounts:
            assert str(self.home) not in mounts.read()
        shutil.rmtree(self.home)


def ended(pid: int) -> bool:
    """Whether nothing of a process runs: it may be a zombie while a thread of it goes on, and
    with that its sockets take connections that nobody will answer."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
        return threads == [str(pid)] and ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


def eventually(
    condition: Callable[[], object],
    what: str | Callable[[], object],
    deadline: float = 30.0,
    every: float = 0.02,
) -> None:
    """Wait until the condition holds, which is looked at every so many seconds; when it never
    does, say what was waited for, or what a function saw last."""
    until = time.monotonic() + deadline
    while not condition():
        late = time.monotonic() >= until
        assert not late, f"not within {deadline:g} s: {what if isinstance(what, str) else what()}"
        time.sleep(every)


def slowly(*cases: object) -> list[Any]:
    """Parameters of the slow tier alone, beside those of every run."""
    return [pytest.param(case, marks=pytest.mark.slow) for case in cases]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sublet]:
    """One daemon for all tests that do not kill it (of each worker, where there are several),
    with the base image, made once."""
    assert os.geteuid() == 0, "the host tier needs root"
    sublet = Sublet(Path(tempfile.mkdtemp(prefix="sublet-")))
    place = tmp_path_factory.getbasetemp()
    try:
        get_base(sublet, place.parent if "PYTEST_XDIST_WORKER" in os.environ else place)
        yield sublet
        sublet.clean()
    finally:
        sublet.close()


def get_base(sublet: Sublet, place: Path) -> None:
    """Make the base image from the mirror, or take it from the worker that did so first."""
    file = place / "base.sif"
    with open(place / "base.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if file.exists():
            sublet.ok("import", str(file), "--trust", "-t", BASE)
            return
        pulled = sublet("pull", BASE, timeout=600)
        assert pulled.code == 0, pulled
        assert "mmdebstrap" in pulled.err
        sublet.ok("pack", BASE, "-o", str(file))


@pytest.fixture
def sublet(shared: Sublet) -> Iterator[Sublet]:
    """The command line; afterwards nothing may be left."""
    yield shared
    shared.clean()


@pytest.fixture(scope="session")
def base_file(shared: Sublet) -> Path:
    """The base image as a packed file."""
    file = shared.home / "base.sif"
    shared.ok("pack", BASE, "-o", str(file))
    return file


@pytest.fixture(scope="session")
def small_file(shared: Sublet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed file of 2 MB, with a shell and little else."""
    from clilab import small_tree

    place = tmp_path_factory.mktemp("small")
    shared.ok("pack", str(small_tree(place / "tree")), "-o", str(place / "small.sif"))
    return place / "small.sif"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """A registry on loopback, without TLS; its host and port."""
    port = free_port()
    (tmp_path / "registry.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n"
        f"storage: {{filesystem: {{rootdirectory: {tmp_path}/registry}}}}\n"
    )
    process = subprocess.Popen(
        ["docker-registry", "serve", str(tmp_path / "registry.yml")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    eventually(answers, "the registry answers")
    yield f"localhost:{port}"
    process.terminate()
    process.wait()


@pytest.fixture
def own(base_file: Path) -> Iterator[Sublet]:
    """A daemon of the test's own, which it may kill, with the base image."""
    sublet = Sublet(Path(tempfile.mkdtemp(prefix="sublet-")))
    sublet.ok("import", str(base_file), "--trust", "-t", BASE)
    yield sublet
    sublet.clean()
    sublet.close()


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    made = Lab(tmp_path / "root")
    try:
        yield made
        await made.assert_clean()
    finally:
        made.close()


@pytest.fixture
async def based(lab: Lab, base_file: Path) -> Lab:
    """A lab in which debian:bookworm is there."""
    await lab.images.import_(base_file, name=BASE, trust=True)
    return lab


@pytest.fixture(scope="session")
def busybox_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed file for VMs, with busybox."""
    from vmhost import pack_busybox

    return pack_busybox(tmp_path_factory.mktemp("busybox"))


@pytest.fixture(scope="session")
def vms(busybox_file: Path) -> Iterator[Sublet]:
    """One daemon for all VMs of tests that do not kill it."""
    from vmhost import daemon

    with daemon(busybox_file) as sublet:
        yield sublet


@pytest.fixture
def vm(vms: Sublet) -> Iterator[Sublet]:
    """The command line for VMs; afterwards nothing may be left."""
    yield vms
    vms.clean()
