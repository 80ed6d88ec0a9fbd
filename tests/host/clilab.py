"""What the tests of the command line share: refusals, a small root file system, processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
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


def small_tree(place: Path) -> Path:
    """A root file system of 4 MB, made of this host's programs."""
    files = [Path(found) for name in PROGRAMS if (found := shutil.which(name))]
    assert len(files) == len(PROGRAMS)
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
    for name in PROGRAMS:
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
        made.seek(sif.squashfs_offset(config))
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


def of_root(sublet: Sublet) -> Iterator[str]:
    """Command lines of programs that work for this daemon: by argument, or by environment."""
    marks = [f"SUBLET_ROOT={sublet.root}".encode(), str(sublet.home).encode()]
    for path in Path("/proc").glob("[0-9]*"):
        try:
            line = (path / "cmdline").read_bytes()
            text = line + (path / "environ").read_bytes()
        except OSError:
            continue
        ours = line and "sublet.daemon" not in line.decode(errors="replace")
        if ours and int(path.name) != os.getpid() and any(mark in text for mark in marks):
            yield line.replace(b"\0", b" ").decode(errors="replace")


def assert_nothing_left(sublet: Sublet) -> None:
    """No instance, no stray program, temporary file or mount; the audit says the same."""
    assert sublet.json("ps", "-a", "--json") == []
    found = sublet("audit", "--json")
    assert (found.code, json.loads(found.out)) == (0, [])
    resolver = "dnsmasq"
    eventually(
        lambda: not [line for line in of_root(sublet) if resolver not in line],
        f"programs end: {list(of_root(sublet))}",
        10,
    )
    assert temporaries(sublet) == []
    own = str(sublet.root)
    mounts = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    assert [point for point in mounts if point.startswith(f"{own}/")] == []


def temporaries(sublet: Sublet) -> list[Path]:
    """Files on their way, of this daemon."""
    places = (sublet.root / "tmp", sublet.root / "tmp" / "build")
    found = [p for place in places if place.is_dir() for p in place.iterdir()]
    return [path for path in found if path != sublet.root / "tmp" / "build"]


def interrupt(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Ctrl-C, to the whole process group, as a terminal sends it; how the command ended."""
    return end(process, signal.SIGINT)


def end(process: subprocess.Popen[str], number: int) -> tuple[int, str, str]:
    """Send a signal to the command's process group; how it ended."""
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def until(process: subprocess.Popen[str], condition: Callable[[], object], what: str) -> None:
    """Wait for the condition, while the command runs."""
    eventually(lambda: condition() or process.poll() is not None, what, 60)
    assert condition(), f"ended before {what}: {process.communicate(timeout=10)}"
