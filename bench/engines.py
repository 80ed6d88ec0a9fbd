"""Sublet and its peers, each with state of its own, gone afterwards.

Docker and Podman run in network and mount namespaces of their own, with their data in a
temporary folder: no rule, bridge, mount or cgroup of theirs outlives the benchmark, and an
engine that the host has already is not touched. The bare runtimes get the very configuration
that Sublet makes, on a copy of the same root file system.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.host import call, enter, namespaces, remove_cgroups
from sublet.sdk import Client

CGROUP_PARENT = "sublet-bench"
SUBLET = str(Path(sys.executable).parent / "sublet")
IMAGE, NAME = "debian:bookworm", "bench:latest"
ULIMITS = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000")
"""For Podman, which otherwise asks for more than root may have on some hosts."""


@dataclass(frozen=True, slots=True)
class Engine:
    """How to call an engine: the words that its command line begins with, and where."""

    argv: tuple[str, ...]
    inside: dict[str, int] | None = None
    env: dict[str, str] | None = None
    socket: str = ""
    pid: int = 0
    run: tuple[str, ...] = ("run",)
    """The verb that runs a container, with the flags that it needs here."""

    def __call__(self, *args: str, timeout: float = 300) -> str:
        """Run one command; its output."""
        return call(*self.argv, *args, inside=self.inside, env=self.env, timeout=timeout)


@contextmanager
def sublet(home: Path, **settings: str) -> Iterator[Engine]:
    """A daemon of its own; nothing may be left when it ends."""
    home.mkdir(exist_ok=True)
    env = {**os.environ, "SUBLET_ROOT": str(home / "root"), "SUBLET_RUN": str(home / "run")}
    env |= settings
    call(SUBLET, "version", env=env)
    socket = str(home / "run" / "sublet.sock")
    engine = Engine((SUBLET,), env=env, socket=socket, pid=Client(socket).version()["pid"])
    try:
        yield engine
        left = json.loads(engine("audit", "--json"))
        if left:
            raise RuntimeError(f"left behind: {left}")
    finally:
        ids = engine("ps", "-aq").split()
        if ids:
            engine("rm", "-f", *ids)
        engine("daemon", "--stop")


@contextmanager
def docker(work: Path) -> Iterator[Engine]:
    """A dockerd of its own."""
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
        prefix = (client, "--host", f"unix://{socket}")
        try:
            _until_it_answers([*prefix, "info"], daemon, log)
            yield Engine(prefix, socket=str(socket), pid=daemon.pid)
        finally:
            daemon.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(30)
            with suppress(ProcessLookupError):
                os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()
            remove_cgroups(CGROUP_PARENT)


def _until_it_answers(
    argv: Sequence[str], daemon: subprocess.Popen[bytes], log: Path, within: float = 60
) -> None:
    deadline = time.monotonic() + within
    while subprocess.run(argv, capture_output=True, timeout=within).returncode != 0:
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{daemon.args!r} does not answer: {log.read_text()[-2000:]}")
        time.sleep(0.1)


def hybrid() -> bool:
    """Whether controllers are on cgroup v1 beside a cgroup v2: crun refuses that."""
    return Path("/sys/fs/cgroup/unified").is_dir()


@contextmanager
def podman(work: Path) -> Iterator[Engine]:
    """Podman, as root, in namespaces of its own."""
    script = "ip link set lo up\nmount -t tmpfs none /run/netns 2>/dev/null || true"
    with namespaces(network=True, script=script) as inside:
        argv = ["podman", f"--root={work}/podman", f"--runroot={work}/podman-run"]
        argv += ["--cgroup-manager=cgroupfs", f"--network-config-dir={work}/podman-networks"]
        argv += [f"--tmpdir={work}/podman-tmp", "--network-backend=netavark"]
        argv += [f"--runtime={'runc' if hybrid() else 'crun'}"]
        engine = Engine(tuple(argv), inside=inside, run=("run", *ULIMITS))
        try:
            yield engine
        finally:
            engine("rm", "--all", "--force", "--time=0")
            for folder in ("podman/overlay", "podman-run/overlay"):
                with suppress(RuntimeError):
                    call("umount", str(work / folder), inside=inside)


@dataclass(frozen=True, slots=True)
class Bundle:
    """An OCI bundle, and what was left out of Sublet's own configuration."""

    folder: Path
    config: dict[str, Any]

    def command(self, *command: str) -> None:
        """Have it run this."""
        config = {**self.config, "process": {**self.config["process"], "args": list(command)}}
        (self.folder / "config.json").write_text(json.dumps(config))


def bundle(work: Path, tar: Path, engine: Engine) -> Bundle:
    """The root file system with the ids of a user namespace, and Sublet's configuration."""
    assert engine.env is not None
    config = _own_configuration(engine, Path(engine.env["SUBLET_RUN"]))
    first, size = (config["linux"]["uidMappings"][0][key] for key in ("hostID", "size"))
    folder = work / "bundle"
    rootfs = folder / "rootfs"
    rootfs.mkdir(parents=True)
    call("tar", "-xpf", str(tar), "-C", str(rootfs))
    for parent, folders, files in os.walk(rootfs):
        for name in (*folders, *files, "."):
            path = os.path.join(parent, name)
            status = os.lstat(path)
            os.lchown(path, status.st_uid % size + first, status.st_gid % size + first)
    made = Bundle(folder, config)
    made.command("true")
    return made


def _own_configuration(engine: Engine, run: Path) -> dict[str, Any]:
    """What Sublet hands to the runtime, without the paths of one instance: its namespaces are
    made anew, its root is the bundle's, and the limits are in it."""
    instance = engine("run", "-d", IMAGE, "sleep", "infinity").strip()
    try:
        config: dict[str, Any] = json.loads(
            next(run.glob(f"instances/{instance}/**/config.json")).read_text()
        )
    finally:
        engine("rm", "-f", instance)
    config["root"]["path"] = "rootfs"
    linux = config["linux"]
    linux["namespaces"] = [{"type": entry["type"]} for entry in linux["namespaces"]]
    config["mounts"] = [m for m in config["mounts"] if m.get("type") != "bind"]
    linux["cgroupsPath"] = f"/{CGROUP_PARENT}/bare"
    linux["resources"] = {
        "memory": {"limit": 512 << 20, "swap": 512 << 20},
        "cpu": {"quota": 100_000, "period": 100_000, "shares": 1024},
        "pids": {"limit": 2048},
    }
    return config


NULL_STAYS = "mount --bind /dev/null /dev/null\nmount -o remount,bind,ro /dev/null"
"""Detached, crun opens /dev/null for standard input and gives it, the host's, to the container's
root; as for Sublet's own supervisors, it is read-only where the runtimes work."""


@contextmanager
def runtime(name: str, bundled: Bundle) -> Iterator[Engine]:
    """crun or runc by itself. Where controllers are on cgroup v1 beside a cgroup v2, crun is
    given a mount namespace with cgroup v2 alone, and sets no limits."""
    home = bundled.folder.parent / f"{name}-state"
    if name == "crun" and hybrid():
        script = "mount -t cgroup2 cgroup2 /sys/fs/cgroup\n" + NULL_STAYS
        with namespaces(network=False, script=script) as inside:
            argv = ("crun", f"--root={home}", "--cgroup-manager=disabled")
            yield Engine(argv, inside=inside)
    else:
        with namespaces(network=False, script=NULL_STAYS) as inside:
            yield Engine((name, f"--root={home}"), inside=inside)
    remove_cgroups(CGROUP_PARENT)
