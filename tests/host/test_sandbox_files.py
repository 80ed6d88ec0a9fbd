"""Files of sandboxes in containers: running, stopped, and hostile ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import BASE, eventually
from conftest import Sublet as CommandLine

import sublet
from sublet.domain.errors import (
    Cancelled,
    CopyFailed,
    DiskFull,
    InvalidArgument,
    NoSuchPath,
    WrongState,
)
from sublet.sdk.sandbox_results import FileChange, FileType


@pytest.fixture(autouse=True)
def here(sublet: CommandLine, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """This process talks to the tests' daemon."""
    monkeypatch.setenv("SUBLET_ROOT", str(sublet.root))
    monkeypatch.setenv("SUBLET_RUN", str(sublet.run_dir))
    return sublet


def test_files(here: CommandLine) -> None:
    with sublet.Sandbox.create(BASE) as box:
        data = bytes(range(256)) * 4096
        box.files.write("/new/dir/file", data, mode=0o640)
        assert box.files.read("/new/dir/file") == data
        assert box.exec("stat -c '%u %g %a' /new/dir/file /new/dir").stdout == "0 0 640\n0 0 755\n"
        box.files.write("/new/dir/file", "text ä")
        assert box.files.read_text("/new/dir/file") == "text ä"
        info = box.files.stat("/new/dir/file")
        assert (info.name, info.type, info.size, info.mode) == ("file", FileType.FILE, 7, 0o640)
        box.exec("chown 5:6 /new/dir/file")
        box.files.write("/new/dir/file", iter([b"a", b"", b"b"]))
        assert box.exec("stat -c '%u %g' /new/dir/file; cat /new/dir/file").stdout == "5 6\nab"
        box.files.rename("/new/dir/file", "/new/other")
        assert not box.files.exists("/new/dir/file")
        box.files.mkdir("/new/a/b")
        box.files.remove("/new/a")
        assert [row.path for row in box.files.list("/new", depth=9)] == ["/new/dir", "/new/other"]
        box.files.write("/etc/hosts", "127.0.0.1 here\n")  # which is mounted there
        assert box.exec("cat /etc/hosts").stdout == "127.0.0.1 here\n"
        for path in ("/nosuch", "/etc/passwd/x/y"):
            with pytest.raises((NoSuchPath, CopyFailed)):
                box.files.read(path)
        with pytest.raises(InvalidArgument):
            box.files.remove("/")


def test_a_stopped_one_has_files_too(here: CommandLine) -> None:
    with sublet.Sandbox.create(BASE, volumes=["/data"]) as box:
        box.files.write("/data/kept", "volume")
        here.ok("stop", "-t", "0", box.id)
        box.files.write("/root/x/y", "1")
        assert box.files.read_text("/data/kept") == "volume"
        assert [row.name for row in box.files.list("/root/x")] == ["y"]
        with pytest.raises(WrongState, match="nothing happens in it"):
            next(box.files.watch("/"))
        here.ok("start", box.id)
        assert box.exec("cat /root/x/y").stdout == "1"


def test_a_read_only_one_is_not_written_to(here: CommandLine) -> None:
    with sublet.Sandbox.create(BASE, read_only=True) as box:
        assert box.files.read("/etc/passwd")
        for change in (
            lambda: box.files.write("/x", b""),
            lambda: box.files.mkdir("/x"),
            lambda: box.files.remove("/etc/passwd"),
        ):
            with pytest.raises(WrongState, match="read-only"):
                change()


def test_links_lead_nowhere_else(here: CommandLine, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the host's")
    with sublet.Sandbox.create(BASE) as box:
        up = "/".join([".."] * 30)
        box.exec(f"ln -s {up}{secret} /up; ln -s {secret} /abs; ln -s {up}{tmp_path} /dir")
        box.exec("ln -s /proc/self/root /self; ln -s /proc/1/root /one; ln -s /loop /loop")
        for path in ("/up", "/abs", "/dir/secret", f"/self{secret}", f"/one{secret}", "/loop"):
            with pytest.raises((NoSuchPath, CopyFailed)):
                box.files.read(path)
        for path in (f"{up}{secret}", f"/proc/self/root{secret}", f"/proc/1/cwd{secret}"):
            with pytest.raises((NoSuchPath, CopyFailed)):
                box.files.read(path)
        for path in ("/abs", "/dir/more"):  # nothing is made of what a link only names
            with pytest.raises((NoSuchPath, CopyFailed)):
                box.files.write(path, "x")
        box.files.mkdir(str(tmp_path))
        box.files.write("/abs", "the instance's")
        assert box.exec(["cat", str(secret)]).stdout == "the instance's"
        box.files.write("/dir/more", "x")
        assert secret.read_text() == "the host's"
        assert sorted(each.name for each in tmp_path.iterdir()) == ["secret"]
        box.files.remove("/dir")
        assert box.files.exists(f"{tmp_path}/more")


def test_what_is_no_file_is_refused_at_once(here: CommandLine) -> None:
    with sublet.Sandbox.create(BASE) as box:
        box.exec("mkfifo /fifo; ln -s /dev/zero /zero; ln -s /dev/null /null")
        for path in ("/fifo", "/zero", "/null", "/dev/full"):
            with pytest.raises(CopyFailed, match="FIFO, a socket or a device"):
                box.files.read(path, timeout=30)
            with pytest.raises(CopyFailed, match="FIFO, a socket or a device"):
                box.files.write(path, b"x", timeout=30)
        with pytest.raises(CopyFailed):
            box.files.write("/proc/sys/kernel/core_pattern", b"|/evil")
        with pytest.raises(CopyFailed):
            box.files.read("/proc/kmsg", timeout=30)


def test_much_and_many(here: CommandLine) -> None:
    with sublet.Sandbox.create(BASE, disk="128m") as box:
        box.exec("truncate -s 900G /huge; mkdir /many; cd /many; seq -w 10000 | xargs touch")
        with pytest.raises(CopyFailed, match="more than 1000 bytes"):
            box.files.read("/huge", limit=1000)
        rows = box.files.list("/many")
        assert [row.name for row in rows] == [f"{number:05}" for number in range(1, 10001)]
        box.files.remove("/many")
        assert not box.files.exists("/many")
        with pytest.raises(DiskFull):
            box.files.write("/full", (b"\1" * 65536 for _ in range(1 << 12)))
        box.files.remove("/full")


def test_what_happens_is_told(here: CommandLine) -> None:
    with sublet.Sandbox.create(BASE) as box:
        box.files.mkdir("/w")
        with box.files.watch("/w", recursive=True, timeout=60) as watch:
            box.exec("cd /w; echo 1 > a; mv a b; mkdir d; rm b; echo > d/x")
            seen = []
            for event in watch:
                seen.append((event.type, event.path, event.to))
                if event.path == "/w/d/x":
                    break
        assert (FileChange.CREATED, "/w/a", "") in seen
        assert (FileChange.MODIFIED, "/w/a", "") in seen
        assert (FileChange.MOVED, "/w/a", "/w/b") in seen
        assert (FileChange.DELETED, "/w/b", "") in seen
        assert list(box.files.watch("/w", timeout=0.1)) == []
        with pytest.raises(NoSuchPath):
            next(box.files.watch("/nosuch"))


def test_watches_are_few_and_end_with_the_sandbox(here: CommandLine) -> None:
    with sublet.Sandbox.create(BASE) as box:
        watches = [box.files.watch("/") for _ in range(17)]
        for each in watches[:16]:
            each.__enter__()
        with pytest.raises(WrongState, match="watched by 16"):
            watches[16].__enter__()
        watches[0].close()

        def again() -> bool:
            try:
                with box.files.watch("/"):
                    return True
            except WrongState:
                return False

        eventually(again, "there is room for another watch")
        snapshot = box.snapshot()
        here.ok("stop", "-t", "0", box.id)
        for each in watches[1:16]:
            assert list(each) == []
        box.rollback(snapshot)


def test_a_write_ends_with_the_sandbox(here: CommandLine) -> None:
    """Whoever removes it does not wait for a client that goes on sending."""

    def pieces(box: sublet.Sandbox) -> Iterator[bytes]:
        for number in range(1 << 12):
            if number == 100:
                here.ok("rm", "-f", box.id)
            yield b"\0" * 65536

    box = sublet.Sandbox.create(BASE)
    with pytest.raises(Cancelled):
        box.files.write("/endless", pieces(box))
