"""Processes, namespaces, cgroups and memory of the host, as the benchmarks need them."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.measure import Peer

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def call(
    *argv: str,
    inside: Mapping[str, int] | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 120,
) -> str:
    """Run a program to its end; its standard output. `inside`: namespaces that it enters first.

    Its standard input is a pipe: the runtimes give that to the container's root.
    """
    result = subprocess.run(
        argv,
        env=env,
        capture_output=True,
        input=b"",
        timeout=timeout,
        preexec_fn=(lambda: enter(inside)) if inside else None,
    )
    if result.returncode != 0:
        what = result.stderr.decode(errors="replace").strip()
        raise RuntimeError(f"{' '.join(argv)} exited {result.returncode}: {what}")
    return result.stdout.decode(errors="replace")


def program(
    *argv: str, inside: Mapping[str, int] | None = None, env: Mapping[str, str] | None = None
) -> Peer:
    """The peer that runs a program to its end."""

    def once() -> None:
        call(*argv, inside=inside, env=env)

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
        if holder.stdout:
            holder.stdout.close()


@contextmanager
def workspace() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="sublet-bench-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            subprocess.run(["rm", "-rf", "--one-file-system", str(folder)], check=False)


def tops() -> list[Path]:
    """The top of each cgroup hierarchy."""
    root = Path("/sys/fs/cgroup")
    return [p for p in (root, *root.iterdir()) if p.is_dir() and not p.is_symlink()]


def remove_cgroups(name: str) -> None:
    """Remove the (empty) cgroups called `name` at the top of each hierarchy."""
    for folder in (top / name for top in tops()):
        if folder.is_dir():
            for child in sorted(folder.rglob("*"), reverse=True):
                if child.is_dir():
                    with suppress(OSError):
                        child.rmdir()
            with suppress(OSError):
                folder.rmdir()


def pss(pid: int) -> int:
    """Bytes of the process's proportional set size (proc(5), smaps_rollup); 0: it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def parent(pid: int) -> int:
    """The process's parent."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("PPid:"):
            return int(line.split()[1])
    return 0


def with_children(pid: int) -> set[int]:
    """The process and its children, such as dockerd and its containerd."""
    found = {pid}
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError, ValueError):
            child = int(status.parent.name)
            if parent(child) == pid:
                found.add(child)
    return found


def cpu_seconds(pid: int) -> float:
    """CPU time that the process has taken, user and system (proc(5), stat)."""
    text = Path(f"/proc/{pid}/stat").read_text()
    fields = text[text.rindex(")") + 2 :].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def kernel_memory(names: Sequence[str] = ("Slab", "KernelStack", "PageTables", "Percpu")) -> int:
    """Bytes that the kernel itself uses (proc(5), meminfo)."""
    return sum(meminfo()[name] for name in names)


def meminfo() -> dict[str, int]:
    """/proc/meminfo in bytes."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) == 3}


def forget(path: Path) -> None:
    """Drop a file's pages from the cache, so that it is read from the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
