"""A host within this host: network and mount namespaces of its own, with an uplink to a world of
one address. What is done to the firewall here, the machine's own does not notice."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from conftest import eventually

HOST, WORLD, INTERNET = "198.51.100.1", "198.51.100.2", "203.0.113.9"
CGROUP = "sublet-test-docker"

_PREPARE = f"""
mount --rbind /sys/fs/cgroup {{cgroup}}
mount -t sysfs sysfs /sys
mount --rbind {{cgroup}} /sys/fs/cgroup
ip link set lo up
ip link add up0 type veth peer name world
ip link set world netns {{world}}
ip addr add {HOST}/24 dev up0
ip link set up0 up
ip route add default via {WORLD}
"""
_WORLD = f"""
ip link set lo up
ip addr add {INTERNET}/32 dev lo
ip addr add {WORLD}/24 dev world
ip link set world up
"""
_SERVER = ["socat", "TCP-LISTEN:80,fork,reuseaddr", "SYSTEM:echo $SOCAT_PEERADDR"]


@dataclass
class Island:
    """Commands that run on it."""

    holder: int
    world: int

    def argv(self, *argv: str) -> list[str]:
        return ["nsenter", f"--target={self.holder}", "--net", "--mount", "--", *argv]

    def run(self, *argv: str) -> str:
        return _run(self.argv(*argv))

    def from_world(self, port: int) -> str:
        """What the host answers the world on a port; empty for nothing."""
        argv = ["nsenter", f"--target={self.world}", "--net", "--"]
        argv += ["timeout", "3", "socat", "-u", f"TCP:{HOST}:{port}", "-"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
        return done.stdout.strip()


@dataclass
class Docker:
    """A dockerd on an island, with one image, `tools`."""

    island: Island
    socket: Path

    def __call__(self, *args: str) -> str:
        client = next(path for path in ("/usr/bin/docker", "docker") if shutil.which(path))
        return self.island.run(client, f"--host=unix://{self.socket}", *args)

    def outcome(self, name: str, script: str) -> str:
        """What a script in a container writes, whatever its end."""
        return self("exec", name, "bash", "-c", f"timeout 3 bash -c '{script}' 2>&1; true")


@contextmanager
def docker(island: Island, place: Path, tree: Path) -> Iterator[Docker]:
    """A dockerd of the test's own; nothing is left of it."""
    (place / "daemon.json").write_text("{}")  # not the machine's own settings
    argv = ["dockerd", f"--data-root={place}/data", f"--exec-root={place}/exec"]
    argv += [f"--pidfile={place}/pid", f"--host=unix://{place}/socket", "--storage-driver=vfs"]
    argv += [f"--config-file={place}/daemon.json", f"--cgroup-parent=/{CGROUP}"]
    with (place / "log").open("wb") as log:
        daemon = subprocess.Popen(island.argv(*argv), stdout=log, stderr=log)
    found = Docker(island, place / "socket")
    try:
        eventually(lambda: _answers(place / "socket", daemon, place / "log"), "dockerd", 60)
        with subprocess.Popen(
            ["tar", "-C", str(tree), "-c", "."], stdout=subprocess.PIPE
        ) as archive:
            client = next(path for path in ("/usr/bin/docker", "docker") if shutil.which(path))
            command = [client, f"--host=unix://{place}/socket", "import", "-", "tools"]
            subprocess.run(command, stdin=archive.stdout, check=True, capture_output=True)
        yield found
    finally:
        ids = found("ps", "-aq").split()
        if ids:
            found("rm", "-f", *ids)
        daemon.terminate()
        daemon.wait(60)
        _remove_cgroups()


def _answers(path: Path, daemon: subprocess.Popen[bytes], log: Path) -> bool:
    assert daemon.poll() is None, log.read_text()[-2000:]
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def _remove_cgroups() -> None:
    root = Path("/sys/fs/cgroup")
    for top in (root, *(path for path in root.iterdir() if path.is_dir())):
        for path in sorted((top / CGROUP).rglob("*"), reverse=True):
            if path.is_dir():
                path.rmdir()
        if (top / CGROUP).is_dir():
            (top / CGROUP).rmdir()


@contextmanager
def island(place: Path) -> Iterator[Island]:
    """The island, and its world, until the end."""
    cgroup = place / "cgroup"
    cgroup.mkdir()
    with _holder("--net") as world, _holder("--net", "--mount") as holder:
        found = Island(holder, world)
        for line in _PREPARE.format(cgroup=cgroup, world=world).split("\n"):
            if line:
                found.run(*line.split())
        outside = ["nsenter", f"--target={world}", "--net", "--"]
        for line in filter(None, _WORLD.split("\n")):
            _run([*outside, *line.split()])
        server = subprocess.Popen([*outside, *_SERVER], start_new_session=True)
        try:
            yield found
        finally:
            os.killpg(server.pid, 9)
            server.wait()


@contextmanager
def _holder(*namespaces: str) -> Iterator[int]:
    """A process in namespaces of its own; its id."""
    argv = ["unshare", *namespaces, "--propagation=private", "--"]
    argv = [word for word in argv if "--mount" in namespaces or "propagation" not in word]
    process = subprocess.Popen([*argv, "sleep", "infinity"])
    try:
        own = os.readlink("/proc/self/ns/net")
        eventually(lambda: os.readlink(f"/proc/{process.pid}/ns/net") != own, "namespaces")
        eventually(lambda: _name(process.pid) == "sleep", "the namespaces' holder")
        yield process.pid
    finally:
        process.kill()
        process.wait()


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _run(argv: list[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, (argv, done.stdout, done.stderr)
    return done.stdout.strip()
