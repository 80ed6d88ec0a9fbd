"""Files and processes of VMs, through the program in their guests."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
import pytest_asyncio
from netlab import eventually
from vmlab import Lab, make_image

from sublet.archive.making import Owner, Rules
from sublet.archive.pack import Options
from sublet.archive.transfer import receive, send
from sublet.domain.changes import made
from sublet.domain.errors import CopyFailed, CorruptArchive, NoSuchPath
from sublet.drivers.access import Sender
from sublet.drivers.vm.files import GuestFiles
from sublet.drivers.vm.listings import comparing, processes

pytestmark = pytest.mark.asyncio(loop_scope="module")
OPTIONS = Options(xattrs=True)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_image(tmp_path_factory.mktemp("image"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guest(tmp_path_factory: pytest.TempPathFactory, image: Path) -> AsyncIterator[GuestFiles]:
    """A guest that sleeps; each test has a directory of its own in it."""
    lab = Lab(tmp_path_factory.mktemp("lab"), image)
    await lab.up()
    try:
        plan = await lab.plan("sleep", "1000")
        await lab.start(plan)
        yield GuestFiles(lab.machines.execute, plan.instance_id, ("/etc/hosts",))
    finally:
        await lab.down()


async def pieces_of(data: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


async def all_of(sender: Sender) -> bytes:
    return b"".join([piece async for piece in sender.stream()])


async def put(guest: GuestFiles, source: Path, path: str, *, keep: bool = False) -> tuple[int, int]:
    async with guest.receiving(path, archive=False, keep=keep) as taker:
        pieces = send(str(source), follow=False, options=OPTIONS)
        done = await taker.feed(pieces_of(pieces))
    return done.count, done.left_out


async def get(guest: GuestFiles, path: str, *, follow: bool = False) -> bytes:
    async with guest.sending(path, follow=follow) as sender:
        return await all_of(sender)


async def listed(guest: GuestFiles, path: str) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(await get(guest, path))) as archive:
        return archive.getnames()


async def holds_nothing(guest: GuestFiles, path: str) -> None:
    """Wait until what was cut off has taken away what it had made."""

    async def empty() -> bool:
        return await listed(guest, path) == [path[1:]]

    assert await eventually(empty), await listed(guest, path)


def make_tree(top: Path) -> Path:
    (top / "d" / ("n" * 120)).mkdir(parents=True)
    (top / "d" / ("n" * 120) / "f").write_bytes(os.urandom(3 << 20))
    (top / "d/a").write_bytes(b"text")
    (top / "d/b").hardlink_to(top / "d/a")
    (top / "d/l").symlink_to("a")
    os.mkfifo(top / "d/fifo")
    with (top / "d/holes").open("wb") as file:
        file.seek(64 << 20)
        file.write(b"end")
    os.setxattr(top / "d/a", "user.key", b"value")
    os.chown(top / "d/a", 33, 44)
    return top / "d"


async def test_a_tree_goes_in_and_comes_out_as_it_was(guest: GuestFiles, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    there = b"".join(send(str(tree), follow=False, options=OPTIONS))
    assert len(there) < 4 << 20  # holes are not sent
    assert await put(guest, tree, "/data", keep=True) == (8, 0)
    assert await get(guest, "/data/d") == there
    (tmp_path / "back").mkdir()
    rules = Rules(owner=Owner.ARCHIVE)
    receive(iter([await get(guest, "/data/d")]), str(tmp_path / "back"), rules, archive=False)
    assert (tmp_path / "back/d/a").stat().st_gid == 44

    # where it lands: in a directory, in place of a file, under another name, as contents
    await put(guest, tree / "a", "/data/new")
    await put(guest, tree / "b", "/data/new")
    assert await put(guest, Path(f"{tree}/."), "/data/contents") == (8, 0)
    names = await listed(guest, "/data")
    assert {"data/new", "data/contents/a", "data/d/l"} <= set(names)
    assert not [name for name in names if ".sublet-" in name]
    with tarfile.open(fileobj=io.BytesIO(await get(guest, "/data/d/l", follow=True))) as archive:
        assert [(m.name, m.size) for m in archive] == [("l", 4)]


async def test_what_cannot_be_copied(guest: GuestFiles, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("text")
    with pytest.raises(NoSuchPath, match="There is no /nope"):
        await get(guest, "/nope")
    with pytest.raises(CopyFailed, match="there is nothing to copy"):
        await get(guest, "/dev/null")
    with pytest.raises(NoSuchPath, match="There is no directory /nope"):
        await put(guest, file, "/nope/")
    with pytest.raises(NoSuchPath, match="There is no /nope"):
        await put(guest, file, "/nope/x")
    with pytest.raises(CopyFailed, match="data is a directory, and what"):
        await put(guest, tmp_path_named(tmp_path, "data"), "/")
    with pytest.raises(CopyFailed, match="/bin/busybox is a file"):
        await put(guest, tmp_path, "/bin/busybox")
    async with guest.receiving("/data", archive=True, keep=False) as taker:
        with pytest.raises(CorruptArchive, match="no tar archive"):
            await taker.feed(pieces_of([b"x" * 1000]))


def tmp_path_named(directory: Path, name: str) -> Path:
    (directory / name).write_text("a file")
    return directory / name


async def test_an_archive_that_ends_early_leaves_nothing(guest: GuestFiles, tmp_path: Path) -> None:
    (tmp_path / "early").mkdir()
    (tmp_path / "f").write_bytes(os.urandom(3 << 20))
    data = b"".join(send(str(tmp_path / "f"), follow=False))
    await put(guest, tmp_path / "early", "/")
    async with guest.receiving("/early", archive=False, keep=False) as taker:
        with pytest.raises(CorruptArchive, match="ends too early"):
            await taker.feed(pieces_of([data[: 2 << 20]]))

    async def broken() -> AsyncIterator[bytes]:
        yield data[: 1 << 20]
        raise ConnectionResetError

    async with guest.receiving("/early", archive=False, keep=False) as taker:
        with pytest.raises(ConnectionResetError):
            await taker.feed(broken())
    await holds_nothing(guest, "/early")


async def test_a_full_disk_is_said_at_once(guest: GuestFiles, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    await put(guest, tmp_path / "full", "/")

    async def endless() -> AsyncIterator[bytes]:
        info = tarfile.TarInfo("big")
        info.size = 1 << 40
        yield info.tobuf()
        while True:
            yield b"x" * (1 << 18)

    async with guest.receiving("/full", archive=True, keep=False) as taker:
        with pytest.raises(Exception, match="No space is left for big"):
            await taker.feed(endless())
    await holds_nothing(guest, "/full")


async def test_changes_root_and_processes(guest: GuestFiles, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("text")
    await put(guest, tmp_path / "f", "/data/f")
    await put(guest, tmp_path / "f", "/etc/hosts")  # the host's own: neither told nor exported
    await put(guest, tmp_path / "f", "/tmp/f")
    async with guest.working("receive", "/", "x", "1") as tool:
        await tool.close_input()
        with pytest.raises(CorruptArchive):
            await tool.answer(100)
    async with comparing(guest, made(("/etc/hosts",))) as sender:
        lines = (await all_of(sender)).decode().splitlines()
    assert [line for line in lines if "/tmp" in line] == [
        '{"kind": "C", "path": "/tmp"}',
        '{"kind": "A", "path": "/tmp/f"}',
    ]
    assert '{"kind": "C", "path": "/data"}' in lines
    assert not [line for line in lines if "hosts" in line]
    async with guest.exporting() as sender:
        data = await all_of(sender)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        names = archive.getnames()
    assert {"./data/f", "./bin/busybox", "./proc", "./dev", "./run"} <= set(names)
    assert not [n for n in names if n.startswith(("./proc/", "./dev/", "./run/", "./lib"))]
    assert "./etc/hosts" not in names

    async def alone() -> bool:  # what earlier tests have cut off may take a moment to end
        found = await processes(guest)
        return [(p.command, p.user, p.parent) for p in found] == [("sleep 1000", "root", 0)]

    assert await eventually(alone), await processes(guest)
