"""What the benchmarks share: peers to measure against, rounds in turn, medians.

The other engines run in network and mount namespaces of their own, with their data in a
temporary folder: no rule, bridge, mount or cgroup of theirs outlives the benchmark, and an
engine that the host has already is not touched.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
FIRST_ID, ID_COUNT = 100_000, 65_536
CGROUP_PARENT = "sublet-bench"
_libc = ctypes.CDLL(None, use_errno=True)

Peer = Callable[[], None]
"""Does the measured thing once; raises where it fails."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds of each round."""

    name: str
    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def p90(self) -> float:
        return sorted(self.rounds)[min(len(self.rounds) - 1, round(0.9 * (len(self.rounds) - 1)))]

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "median_ms": self.median,
            "p90_ms": self.p90,
            "rounds": self.rounds,
        }


def measure(peers: Mapping[str, Peer], rounds: int, warm_up: int = 2) -> list[Timing]:
    """Each peer once a round, in turn, so that a busy host is unjust to all alike.

    Whoever begins changes with every round; the first `warm_up` rounds are not counted.
    """
    names = list(peers)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-warm_up, rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            start = time.perf_counter()
            peers[name]()
            elapsed = (time.perf_counter() - start) * 1000
            if number >= 0:
                taken[name].append(elapsed)
    return [Timing(name, tuple(values)) for name, values in taken.items()]


def program(
    *argv: str,
    inside: Mapping[str, int] | None = None,
    cwd: Path | None = None,
    timeout: float = 60,
) -> Peer:
    """The peer that runs a program to its end; `inside`: namespaces that it enters first."""

    def once() -> None:
        result = subprocess.run(
            argv,
            cwd=cwd,
            capture_output=True,
            input=b"",  # a pipe: the runtimes give their standard input to the container's root
            timeout=timeout,
            preexec_fn=(lambda: enter(inside)) if inside else None,
        )
        if result.returncode != 0:
            what = result.stderr.decode(errors="replace").strip()
            raise RuntimeError(f"{' '.join(argv)} exited {result.returncode}: {what}")

    return once


def enter(namespaces: Mapping[str, int]) -> None:
    """The calling process enters namespaces given as file and kind (setns(2))."""
    for path, kind in namespaces.items():
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if _libc.setns(fd, kind) != 0:
            raise OSError(ctypes.get_errno(), f"setns: {path}")
        os.close(fd)


@contextmanager
def namespaces(*, network: bool, script: str) -> Iterator[dict[str, int]]:
    """New namespaces, kept by a process that first runs `script` (sh) in them."""
    argv = ["unshare", "--mount", *(["--net"] if network else []), "--"]
    holder = subprocess.Popen(
        [*argv, "sh", "-euc", f"{script}\necho ready\nexec sleep infinity"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        if holder.stdout is None or holder.stdout.readline() != "ready\n":
            raise RuntimeError(f"no namespaces: {script}")
        found = {f"/proc/{holder.pid}/ns/mnt": CLONE_NEWNS}
        if network:
            found = {f"/proc/{holder.pid}/ns/net": CLONE_NEWNET, **found}
        yield found
    finally:
        holder.kill()
        holder.wait()


@contextmanager
def workspace() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="sublet-bench-", dir="/var/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            subprocess.run(["rm", "-rf", "--one-file-system", str(folder)], check=False)


@contextmanager
def docker(work: Path) -> Iterator[list[str]]:
    """A dockerd of its own; the words that a `docker` command line for it begins with."""
    client = next(path for path in ("/usr/bin/docker", "docker") if shutil.which(path))
    socket, log = work / "docker.sock", work / "dockerd.log"
    argv = ["dockerd", f"--data-root={work}/docker", f"--exec-root={work}/docker-run"]
    argv += [f"--pidfile={work}/docker.pid", f"--host=unix://{socket}", "--storage-driver=overlay2"]
    argv += [f"--cgroup-parent=/{CGROUP_PARENT}", f"--config-file={work}/daemon.json"]
    (work / "daemon.json").write_text("{}")  # not the host's own settings
    with namespaces(network=True, script="ip link set lo up") as inside, log.open("wb") as output:
        daemon = subprocess.Popen(
            argv,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=lambda: enter(inside),
        )
        prefix = [client, "--host", f"unix://{socket}"]
        try:
            wait_until_succeeds([*prefix, "info"], daemon, log)
            yield prefix
        finally:
            daemon.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(30)
            with suppress(ProcessLookupError):
                os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()
            remove_cgroups(CGROUP_PARENT)


def wait_until_succeeds(
    argv: Sequence[str], daemon: subprocess.Popen[bytes], log: Path, within: float = 60
) -> None:
    """Poll a command until it exits 0; after `within` seconds say what the daemon last said."""
    deadline = time.monotonic() + within
    while subprocess.run(argv, capture_output=True, timeout=within).returncode != 0:
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{daemon.args!r} does not answer: {log.read_text()[-2000:]}")
        time.sleep(0.1)


def remove_cgroups(name: str) -> None:
    """Remove the (empty) cgroups called `name` at the top of each hierarchy."""
    for top in [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()]:
        folder = top / name
        if folder.is_dir() and not folder.is_symlink():
            for child in sorted(folder.rglob("*"), reverse=True):
                if child.is_dir():
                    with suppress(OSError):
                        child.rmdir()
            with suppress(OSError):
                folder.rmdir()


def bundle(work: Path, rootfs_tar: Path, command: Sequence[str]) -> Path:
    """An OCI bundle of the root filesystem, owned by the ids that its user namespace maps."""
    folder = work / "bundle"
    rootfs = folder / "rootfs"
    rootfs.mkdir(parents=True)
    subprocess.run(["tar", "-xpf", str(rootfs_tar), "-C", str(rootfs)], check=True, timeout=300)
    for parent, folders, files in os.walk(rootfs):
        for name in (*folders, *files, "."):
            path = os.path.join(parent, name)
            status = os.lstat(path)
            os.lchown(
                path, status.st_uid % FIRST_ID + FIRST_ID, status.st_gid % FIRST_ID + FIRST_ID
            )
    (folder / "config.json").write_text(json.dumps(runtime_config(command)))
    work.chmod(0o755)
    return folder


def runtime_config(command: Sequence[str]) -> dict[str, Any]:
    """What Sublet asks for, without its limits: all namespaces, few capabilities, no network."""
    held = [f"CAP_{name}" for name in ("CHOWN", "DAC_OVERRIDE", "KILL", "SETGID", "SETUID")]
    mapping = [{"containerID": 0, "hostID": FIRST_ID, "size": ID_COUNT}]
    kinds = ("pid", "ipc", "uts", "mount", "user", "network", "cgroup")
    tmpfs = ["nosuid", "noexec", "nodev"]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": list(command),
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "capabilities": {"bounding": held, "effective": held, "permitted": held},
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs"},
        "hostname": "bench",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]},
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
            },
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": tmpfs},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*tmpfs, "ro"]},
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in kinds],
            "uidMappings": mapping,
            "gidMappings": mapping,
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"],
        },
    }


@contextmanager
def bare_runtime(name: str, folder: Path) -> Iterator[Peer]:
    """`crun run` or `runc run` of the bundle.

    crun refuses hosts whose controllers are on cgroup v1 beside a cgroup v2. There it is
    given a mount namespace with cgroup v2 alone, and manages no cgroup.
    """
    hybrid = Path("/sys/fs/cgroup/unified").is_dir()
    run = ["run", f"--bundle={folder}", f"sublet-bench-{name}"]
    if name == "crun" and hybrid:
        script = "mount -t cgroup2 cgroup2 /sys/fs/cgroup"
        with namespaces(network=False, script=script) as inside:
            yield program("crun", "--cgroup-manager=disabled", *run, inside=inside)
    else:
        yield program(name, *run)
