"""Copies of trees in use: exactly as they are in the pause, whatever happened before it."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from imagelab import CAPABILITY, call

from sublet.drivers import reflink
from sublet.drivers.pool import can_clone

Change = Callable[[Path], object]


@pytest.fixture(scope="module", params=["xfs", "ext4"])
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A file system, one that shares blocks and one that does not."""
    home = tmp_path_factory.mktemp(request.param)
    image, point = home / "image", home / "point"
    point.mkdir()
    image.touch()
    os.truncate(image, 400 << 20)
    call(f"mkfs.{request.param}", "-q", image)
    call("mount", "-o", "loop", image, point)
    assert can_clone(point) == (request.param == "xfs")
    yield point
    call("umount", point)


def grow(tree: Path) -> Path:
    """A tree with one of everything."""
    for name in ("a/deep/er", "moved", "gone", "empty"):
        (tree / name).mkdir(parents=True)
    for name in ("a/file", "a/deep/er/file", "moved/old", "gone/x", "linked"):
        (tree / name).write_text(name)
    os.link(tree / "linked", tree / "a/linked too")
    os.symlink("/etc/passwd", tree / "link")
    os.mkfifo(tree / "fifo", 0o640)
    os.mknod(tree / "whiteout", stat.S_IFCHR | 0o600, 0)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tree / "socket"))
    with (tree / "sparse").open("wb") as file:
        file.seek(30 << 20)
        file.write(b"end")
    os.setxattr(tree / "a", "trusted.overlay.opaque", b"y")
    os.setxattr(tree / "a/file", "user.note", b"1")
    os.chown(tree / "a/file", 1 << 29, 5)
    (tree / "a/file").chmod(0o4755)
    os.setxattr(tree / "linked", "security.capability", CAPABILITY)
    os.utime(tree / "a/deep", ns=(10**18, 10**18 + 7))
    return tree


def described(tree: Path) -> dict[str, tuple[object, ...]]:
    """All that can be told of a tree's entries."""
    found: dict[str, tuple[object, ...]] = {}
    inodes: dict[int, list[str]] = {}
    for path in [tree, *sorted(tree.rglob("*"))]:
        status, name = path.lstat(), str(path.relative_to(tree))
        inodes.setdefault(status.st_ino, []).append(name)
        attributes = {
            key: os.getxattr(path, key, follow_symlinks=False)
            for key in os.listxattr(path, follow_symlinks=False)
        }
        content: object = None
        if stat.S_ISREG(status.st_mode):
            content = (path.read_bytes(), status.st_blocks > 20000)
        elif path.is_symlink():
            content = os.readlink(path)
        ids = (status.st_uid, status.st_gid, status.st_rdev)
        found[name] = (status.st_mode, ids, status.st_mtime_ns, attributes, content)
    names = {tuple(sorted(group)) for group in inodes.values() if len(group) > 1}
    return {**found, "": (names,)}


CHANGES: dict[str, Change] = {
    "nothing": lambda tree: None,
    "written": lambda tree: (tree / "a/deep/er/file").write_text("new"),
    "made": lambda tree: (tree / "a/made").write_text("made"),
    "removed": lambda tree: (tree / "linked").unlink(),
    "linked": lambda tree: os.link(tree / "linked", tree / "third"),
    "moved whole": lambda tree: (tree / "moved").rename(tree / "a/elsewhere"),
    "exchanged": lambda tree: (
        (tree / "a").rename(tree / "b"),
        (tree / "moved").rename(tree / "a"),
    ),
    "became a link": lambda tree: (
        (tree / "gone/x").unlink(),
        (tree / "gone").rmdir(),
        (tree / "gone").symlink_to("/etc"),
    ),
    "became a directory": lambda tree: (
        (tree / "link").unlink(),
        (tree / "link/sub").mkdir(parents=True),
    ),
    "attributes": lambda tree: (
        os.removexattr(tree / "a", "trusted.overlay.opaque"),
        os.setxattr(tree / "empty", "user.x", b"y"),
        (tree / "a/file").chmod(0o600),
        os.chown(tree / "fifo", 7, 8),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_copy_is_what_the_pause_saw(place: Path, tmp_path: Path, change: str) -> None:
    home = place / tmp_path.name
    tree, copy = grow(home / "tree"), home / "copy"
    seen: list[object] = []

    @asynccontextmanager
    async def pause() -> AsyncIterator[None]:
        CHANGES[change](tree)
        seen.append(described(tree))
        yield
        (tree / "late").write_text("after the pause")

    async def also() -> None:
        seen.append("also")

    asyncio.run(reflink.copy_in_use([(tree, copy)], pause, also))
    assert seen == [described(copy), "also"]


def test_a_memory_map(place: Path) -> None:
    """What is written through a map that was there before is a change as well."""
    import mmap

    home = place / "map"
    (home / "tree").mkdir(parents=True)
    file = home / "tree/file"
    file.write_bytes(bytes(8192))
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 8192) as view:
        view[0:1] = b"a"

        @asynccontextmanager
        async def pause() -> AsyncIterator[None]:
            await asyncio.sleep(0.1)
            view[4096:4097] = b"b"
            yield

        async def nothing() -> None:
            pass

        asyncio.run(reflink.copy_in_use([(home / "tree", home / "copy")], pause, nothing))
    copied = (home / "copy/file").read_bytes()
    assert (copied[0:1], copied[4096:4097]) == (b"a", b"b")


def test_a_link_in_the_way_of_the_first_pass(place: Path) -> None:
    """cp walks by names; what an owner puts in its way must not lead to the host's files."""
    home = place / "cage"
    (home / "tree").mkdir(parents=True)
    (home / "outside").write_text("the host's")
    (home / "tree/dir").symlink_to(home)
    (home / "copy").mkdir()
    argv = ["cp", "--recursive", "--", "/source/dir/outside", "/target/stolen"]
    from sublet.drivers import confine, run

    caged = confine.caged(argv, {"/source": str(home / "tree"), "/target": str(home / "copy")})
    assert asyncio.run(run.run(caged, check=False)).code == 1
    assert list((home / "copy").iterdir()) == []
