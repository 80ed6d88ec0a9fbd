"""What the tests of the command line share: refusals, a small root file system, processes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from conftest import Outcome, Sublet, eventually

from sublet.image import sif

PROGRAMS = ("sh", "cat", "echo", "sleep", "true", "id")


def refused(sublet: Sublet, *args: str, code: int = 125, says: str = "") -> Outcome:
    """Run a command that must be refused in a sentence and a hint, and leave nothing."""
    before = sublet.json("ps", "-a", "--json")
    outcome = sublet(*args)
    assert (outcome.code, outcome.out) == (code, ""), outcome
    assert_explained(outcome.err)
    assert says in outcome.err
    assert sublet.json("ps", "-a", "--json") == before
    found = sublet("audit", "--json")
    assert (found.code, json.loads(found.out)) == (0, [])
    return outcome


def assert_explained(text: str) -> None:
    """What happened, in a sentence, and what to do, below it."""
    assert "Traceback" not in text
    lines = text.splitlines()
    found = [number for number, line in enumerate(lines) if line.startswith("sublet: ")]
    assert len(found) == 1, text
    assert len(lines[found[0]].split()) > 3, text
    hint = lines[found[0] + 1 : found[0] + 2]
    assert hint, text
    assert hint[0].startswith(" " * 8)
    assert hint[0].strip(), text


def small_tree(place: Path, programs: tuple[str, ...] = PROGRAMS) -> Path:
    """A root file system of 4 MB, made of this host's programs."""
    files = [Path(found) for name in programs if (found := shutil.which(name))]
    assert len(files) == len(programs)
    for program in list(files):
        listing = subprocess.run(
            ["ldd", str(program)], capture_output=True, text=True, check=True
        ).stdout
        files += [Path(word) for word in listing.split() if word.startswith("/")]
    for file in set(files):
        target = place / str(file).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file.resolve(), target)
    (place / "bin").mkdir(exist_ok=True)
    for name in programs:
        link = place / "bin" / name
        if not link.exists():
            link.symlink_to(Path("/usr/bin") / name)
    (place / "etc").mkdir()
    (place / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
    return place


def made_foreign(file: Path, target: Path) -> Path:
    """A sound image with the same files that this host has not packed."""
    with file.open("rb") as source:
        info = sif.read(source)
        source.seek(info.offset)
        squashfs = source.read(info.length)
    config = info.config.with_labels({"packed-by": f"a stranger, {os.urandom(8).hex()}"})
    with target.open("w+b") as made:
        made.seek(sif.payload_offset(config))
        made.write(squashfs)
        made.flush()
        sif.finish(made, config)
    return target


def context(place: Path, text: str) -> str:
    """A directory to build."""
    place.mkdir(exist_ok=True)
    (place / "Containerfile").write_text(text)
    return str(place)


def processes(text: str) -> dict[int, str]:
    """The command lines of the running processes that hold `text`, by pid."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line:
            found[int(path.parent.name)] = line
    return found


def of_root(sublet: Sublet) -> list[str]:
    """Command lines of programs that work for this daemon: by argument, environment or file."""
    return [line for pid, line in _everything().items() if _works_for(sublet, pid, line)]


def _everything() -> dict[int, str]:
    return {pid: line for pid, line in processes("").items() if pid != os.getpid() and line}


def _works_for(sublet: Sublet, pid: int, line: str) -> bool:
    place, home = Path("/proc", str(pid)), str(sublet.home)
    if any(own in line for own in ("sublet.daemon", "dnsmasq")):
        return False
    with contextlib.suppress(OSError):
        if home in line or home in (place / "environ").read_text(errors="replace"):
            return True
        return any(home in os.readlink(fd) for fd in (place / "fd").iterdir())
    return False


def assert_nothing_left(sublet: Sublet) -> None:
    """No instance, no stray program, temporary file or mount; the audit says the same."""
    assert sublet.json("ps", "-a", "--json") == []
    found = sublet("audit", "--json")
    assert (found.code, json.loads(found.out)) == (0, [])
    eventually(lambda: not of_root(sublet), lambda: f"its programs end: {of_root(sublet)}")
    assert temporaries(sublet) == []
    own = str(sublet.root)
    mounts = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    assert [point for point in mounts if point.startswith(f"{own}/")] == []


def temporaries(sublet: Sublet) -> list[Path]:
    """Files on their way, of this daemon."""
    places = (sublet.root / "tmp", sublet.root / "tmp" / "build")
    found = [p for place in places if place.is_dir() for p in place.iterdir()]
    return [path for path in found if path != sublet.root / "tmp" / "build"]


def size_of(place: Path) -> int:
    """The bytes of the files below it, of which some may come and go meanwhile."""
    total = 0
    for directory, _, names in os.walk(place):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(directory, name)).st_size
    return total


def talks(process: subprocess.Popen[str]) -> None:
    """Wait until the command is connected to the daemon, or has ended."""
    until, fds = time.monotonic() + 30, Path("/proc", str(process.pid), "fd")
    while process.poll() is None and not any("socket:" in target for target in _targets(fds)):
        assert time.monotonic() < until, "it never talks to the daemon"


def _targets(fds: Path) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for fd in os.listdir(fds):
            with contextlib.suppress(OSError):
                yield os.readlink(fds / fd)


def end(process: subprocess.Popen[str], number: int, patience: float = 60) -> tuple[int, str, str]:
    """Send a signal to the command's process group, as a terminal does; how it ended.

    A command that ignores Ctrl-C for so many seconds gets it again, as from an impatient user.
    """
    while True:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            out, err = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            assert number == signal.SIGINT, "the command does not end"
        else:
            return process.returncode, out, err


def seen(process: subprocess.Popen[str], text: str) -> None:
    """Read the command's standard error until it says `text`."""
    assert process.stderr is not None
    lines = []
    while line := process.stderr.readline():
        lines.append(line)
        if text in line:
            return
    raise AssertionError(f"it never said {text!r}: {lines}")
