"""VMs as a user of the command line has them: a daemon of their own, and a small image."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conftest import Sublet, eventually
from imagelab import archive, directory, entry, make_layout

from sublet.domain.config import Config
from sublet.drivers import mount

IMAGE = "busybox"
SMALL = ("--vm", "-m", "128m")
"""The least memory: what every test takes that needs no other, so that they share a template."""

LOOP = ("sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done")
"""Ends with 7 when it is asked to, from when on it has said that it is up."""

COUNT = ("sh", "-c", "i=0; while :; do i=$((i+1)); echo $i > /dev/shm/count; sleep 0.05; done")
"""Counts in memory alone."""

_PLACES = ("etc", "proc", "sys", "dev", "tmp", "run", "root", "var", "lib", "sbin", "usr")
_USERS = b"root:x:0:0:root:/root:/bin/sh\nbin:x:2:3:bin:/bin:/bin/sh\n"


def pack_busybox(place: Path, volume: str = "") -> Path:
    """A packed file of 1 MB with busybox's programs, and /data/seed; perhaps it has a volume."""
    busybox = shutil.which("busybox")
    assert busybox, "busybox-static is not installed"
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    programs = [name for name in listed.stdout.split() if name != "busybox"]
    layer = archive(
        *(directory(name) for name in (*_PLACES, "bin", "data")),
        entry("bin/busybox", Path(busybox).read_bytes(), mode=0o755),
        *(entry(f"bin/{name}", type=b"2", linkname="busybox") for name in programs),
        entry("etc/passwd", _USERS),
        entry("etc/group", b"root:x:0:\nbin:x:3:\n"),
        entry("etc/machine-id"),
        entry("bin/text", b"no program at all\0", mode=0o755),
        entry("data/seed", b"filled\n"),
    )
    volumes = {"Volumes": {volume: {}}} if volume else {}
    layout = make_layout(place / "layout", layer, Env=["PATH=/bin"], **volumes)
    packer, file = at(place / "packer"), place / "busybox.sif"
    packer.ok("pack", str(layout), "-o", str(file))
    packer.close()
    return file


def at(home: Path, **extra: str) -> Sublet:
    """A command line whose daemon never probes for KVM: that takes seconds."""
    home.mkdir(exist_ok=True)
    return Sublet(home, {"SUBLET_ACCELERATION": "tcg", **extra})


@contextmanager
def daemon(image: Path, **extra: str) -> Iterator[Sublet]:
    """A daemon with the image; afterwards nothing may be left of it."""
    sublet = at(Path(tempfile.mkdtemp(prefix="sublet-")), **extra)
    sublet.ok("import", str(image), "--trust", "-t", IMAGE)
    try:
        yield sublet
        sublet.clean()
    finally:
        if left := sublet.ok("ps", "-aq").split():
            sublet.ok("rm", "-f", *left)
        sublet.close()


def row(sublet: Sublet, name: str) -> dict[str, object]:
    """What inspect says."""
    return dict(sublet.json("inspect", name))


def state(sublet: Sublet, name: str) -> str:
    return str(sublet.json("inspect", name)["state"])


def up(sublet: Sublet, name: str) -> None:
    """Wait until LOOP listens."""
    eventually(lambda: "up" in sublet("logs", name).out, f"{name} is up")


def gone(pid: int) -> bool:
    """Whether there is no process of that number, dead or alive."""
    return not Path(f"/proc/{pid}").exists()


def count(sublet: Sublet, name: str) -> int:
    """How far COUNT has come."""
    found: list[int] = []

    def read() -> bool:
        text = sublet("exec", name, "cat", "/dev/shm/count").out.strip()
        found.extend([int(text)] if text.isdigit() else [])
        return bool(found)

    eventually(read, f"{name} counts")
    return found[-1]


def clock(vm: Sublet, name: str) -> float:
    """How far the guest's clock is from the host's, in seconds, whatever the asking takes."""
    before = time.time()
    told = int(vm.ok("exec", name, "date", "+%s"))  # a fraction is cut off
    return max(0.0, before - (told + 1), told - time.time())


def qemu(sublet: Sublet, name: str) -> int:
    """The pid of a running VM's QEMU."""
    pid = int(sublet.json("inspect", name)["pid"])
    assert b"qemu-system" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return pid


def pool(sublet: Sublet) -> Path:
    """Where the daemon keeps disks, templates and memory."""
    config = Config(root=sublet.root, run=sublet.run_dir)
    place = mount.base(config.run, config.identity) / "pool"
    return place if place.is_dir() else sublet.root


def memory_of(sublet: Sublet, name: str) -> list[Path]:
    """The files that hold the memory of a VM that does not run."""
    place = pool(sublet) / "instances" / str(row(sublet, name)["id"]) / "memory-image"
    return list(place.iterdir()) if place.exists() else []
