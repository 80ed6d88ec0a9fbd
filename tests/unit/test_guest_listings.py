"""What guests tell of their processes and changes, and of what went wrong: said by strangers."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sublet.archive.entry import Entry, header
from sublet.domain.changes import made
from sublet.domain.errors import CopyFailed, CorruptArchive, DiskFull, NoSuchPath, StartFailed
from sublet.drivers.container import protocol
from sublet.drivers.container.protocol import Tell
from sublet.drivers.vm.files import beginning
from sublet.drivers.vm.listings import Changes, facts, parsed
from sublet.drivers.vm.streams import GuestExecution
from sublet.drivers.vm.tool import Tool, explain

PROGRAM = Path(sys.prefix) / "libexec" / "sublet-guest"


def changed(*texts: str, own: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    changes = Changes(made(("/data",)), frozenset(own))
    return [change for text in texts for change in changes.of(facts(text))]


def test_a_directory_is_told_before_what_is_in_it() -> None:
    assert changed("dd==+/etc", "d-!!+/etc/new", "f-!!+/etc/new/f", "f-!!+/etc/x") == [
        ("C", "/etc"),
        ("A", "/etc/new"),
        ("A", "/etc/new/f"),
        ("A", "/etc/x"),
    ]


def test_a_directory_in_which_nothing_has_changed_is_not_told() -> None:
    assert changed("dd==+/usr", "dd==+/usr/lib", "dd=!+/var") == [("C", "/var")]


def test_deleted_and_changed() -> None:
    assert changed("wf!!+/gone", "w-!!+/never", "ff=!+/file", "fd!!+/was-directory") == [
        ("D", "/gone"),
        ("C", "/file"),
        ("C", "/was-directory"),
    ]


def test_what_a_start_makes_is_not_told() -> None:
    texts = ("dd=!+/etc", "f-!!+/etc/hosts", "ff!!+/etc/resolv.conf", "d-!!+/data")
    assert changed(*texts, own=("/etc/hosts", "/etc/resolv.conf")) == []


@pytest.mark.parametrize("text", ["", "nonsense", "xd==+/etc", "dd==+etc"])
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(CopyFailed):
        facts(text)


def test_no_depth_takes_the_hosts_memory() -> None:
    with pytest.raises(CopyFailed):
        changed(*(f"d-!!+{'/a' * depth}" for depth in range(1, 5000)))


def test_compares_two_layers_as_the_guest_does(tmp_path: Path) -> None:
    upper, lower = tmp_path / "upper", tmp_path / "lower"
    for path in ("lower/etc", "lower/opaque", "upper/etc/new", "upper/opaque"):
        (tmp_path / path).mkdir(parents=True)
    for path in ("lower/etc/a", "lower/etc/b", "lower/opaque/x", "upper/etc/a", "upper/etc/new/f"):
        (tmp_path / path).write_text(path)
    os.mknod(upper / "etc/b", 0o020000)
    if os.geteuid() == 0:
        os.setxattr(upper / "opaque", "trusted.overlay.opaque", b"y")
    os.utime(upper / "opaque", (1, 1))
    argv = [str(PROGRAM), "files", "compare", str(upper), str(lower)]
    output = subprocess.run(argv, capture_output=True, check=True).stdout
    assert changed(*output.decode().rstrip("\0").split("\0")) == [
        *(("C", "/etc"), ("C", "/etc/a"), ("D", "/etc/b"), ("A", "/etc/new")),
        *(("A", "/etc/new/f"), ("C", "/opaque")),
        *((("D", "/opaque/x"),) if os.geteuid() == 0 else ()),
    ]


def test_processes() -> None:
    answer = "\0".join(
        ["root:x:0:0::/:/bin/sh\n", "9 1 S 0 250 4096", "sh -c x", "3 9 R 33 1 0", "[x]", ""]
    )
    first, second = parsed(answer.encode())
    assert (first.pid, first.user, first.parent, first.host_pid) == (3, "33", 9, 0)
    assert (second.pid, second.user, second.parent, second.cpu) == (9, "root", 0, 2.5)
    assert second.command == "sh -c x"
    with pytest.raises(CopyFailed):
        parsed(b"\0nonsense\0sh\0")


def test_lists_the_processes_of_this_host() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        while not Path(f"/proc/{child.pid}/cmdline").read_bytes().startswith(b"sleep"):
            time.sleep(0.01)  # the kernel gives it its arguments a moment after its name
        argv = [str(PROGRAM), "files", "processes"]
        found = parsed(subprocess.run(argv, capture_output=True, check=True).stdout)
    finally:
        child.kill()
        child.wait()
    sleep = next(process for process in found if process.pid == child.pid)
    assert sleep.command == "sleep 60"
    assert not any(process.command == "[kthreadd]" for process in found)


async def test_an_answer_is_bounded_in_size_and_time() -> None:
    """However steadily a guest goes on talking."""

    async def drip(guest: socket.socket, piece: bytes) -> None:
        while True:
            await asyncio.get_running_loop().sock_sendall(guest, bytes([Tell.OUTPUT]) + piece)
            await asyncio.sleep(0.01)

    for piece, kind in ((b"x", StartFailed), (b"x" * 4096, CopyFailed)):
        ours, guest = protocol.pair()
        guest.setblocking(False)
        dripping = asyncio.create_task(drip(guest, piece))
        begun = time.monotonic()
        tool = Tool(GuestExecution(ours))
        with pytest.raises(kind):
            await tool.answer(10_000, 0.3)
        assert time.monotonic() - begun < 5
        dripping.cancel()
        await tool.close(tidy=False)
        guest.close()


def test_complaints_become_the_errors_of_containers() -> None:
    assert isinstance(explain(1, b"2 /x"), NoSuchPath)
    assert isinstance(explain(1, b"28 /x"), DiskFull)
    assert isinstance(explain(1, b"corrupt It is."), CorruptArchive)
    assert explain(1, b"directory d").message.startswith("d is a directory")
    assert isinstance(explain(139, b""), CopyFailed)
    assert "\x1b" not in explain(1, b"5 \x1b[2J\xff").message


def test_the_first_entry_of_an_archive_in_small_pieces() -> None:
    archive = header(Entry("n" * 200, "0", size=5)) + b"hello" + bytes(507 + 1024)

    async def look(data: bytes, step: int) -> tuple[str, bytes]:
        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(data), step):
                yield data[start : start + step]

        entry, held = await beginning(pieces())
        return entry.name if entry else "", held

    for step in (1, 100, 512, 5000):
        name, held = asyncio.run(look(archive, step))
        assert name == "n" * 200
        assert archive.startswith(held)
    assert asyncio.run(look(bytes(1024), 100)) == ("", bytes(1024))
    with pytest.raises(CorruptArchive):
        asyncio.run(look(archive[:900], 100))
