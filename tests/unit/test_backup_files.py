"""Disks without their holes, and what strangers' repositories may not give back."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublet.domain.errors import BackupFailed, UntrustedBackup
from sublet.drivers import packed, screening
from sublet.drivers.stage import Stage

BLOCK = 4096


def disk(file: Path, blocks: dict[int, bytes], size: int) -> bytes:
    file.touch()
    os.truncate(file, size)
    with file.open("r+b") as opened:
        for block, data in blocks.items():
            opened.seek(block * BLOCK)
            opened.write(data)
    return file.read_bytes()


@pytest.mark.parametrize("blocks", [{}, {0: b"first"}, {3: b"x" * 9000, 700: b"y"}, {1023: b"z"}])
def test_packed_disks(tmp_path: Path, blocks: dict[int, bytes]) -> None:
    file = tmp_path / "disk.img"
    before = disk(file, blocks, 1024 * BLOCK)
    assert packed.pack(file) == len(before)
    assert not file.exists()
    assert (tmp_path / packed.DATA).stat().st_size <= (len(blocks) + 2) * BLOCK
    again = tmp_path / "again.img"
    assert packed.unpack(tmp_path, again) == len(before)
    assert again.read_bytes() == before
    assert again.stat().st_blocks * 512 <= (len(blocks) + 4) * BLOCK


@pytest.mark.parametrize(
    "told",
    [
        "",
        "[]",
        '{"size": 4096}',
        '{"size": 4096, "extents": [[0, 4096], [0, 4096]]}',
        '{"size": 4096, "extents": [[4096, 4096]]}',
        '{"size": 4096, "extents": [[-4096, 4096]]}',
        '{"size": 4096, "extents": [[0, -1]]}',
        '{"size": 1e30, "extents": []}',
        '{"size": 4096, "extents": [[0, 4095]]}',
        '{"size": "x", "extents": [["a", "b"]]}',
    ],
)
def test_strange_extents(tmp_path: Path, told: str) -> None:
    (tmp_path / packed.DATA).write_bytes(b"x" * BLOCK)
    (tmp_path / packed.EXTENTS).write_text(told)
    with pytest.raises(BackupFailed):
        packed.unpack(tmp_path, tmp_path / "disk.img")


@given(st.lists(st.tuples(st.integers(-9, 99), st.integers(-9, 99)), max_size=6))
def test_extents_never_lie_outside(pairs: list[tuple[int, int]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / packed.EXTENTS
        file.write_text(json.dumps({"size": 100, "extents": pairs}))
        try:
            _, extents = packed._extents(file)
        except BackupFailed:
            return
        end = 0
        for start, length in extents:
            assert end <= start < start + length <= 100
            end = start + length


@pytest.mark.skipif(os.geteuid() != 0, reason="devices and owners are root's to make")
def test_what_is_no_instances(tmp_path: Path) -> None:
    tree = tmp_path / "upper"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/passwd").write_text("x")
    (tree / "link").symlink_to("/etc/shadow")
    os.mknod(tree / "gone", 0o020000, os.makedev(0, 0))
    mine = range(1)
    screening.screen(tree, mine, host_root=False)
    os.setxattr(tree / "etc", "trusted.overlay.opaque", b"y")
    screening.screen(tree, mine, host_root=False)

    def refused(says: str) -> None:
        with pytest.raises(UntrustedBackup, match=says):
            screening.screen(tree, mine, host_root=False)

    os.setxattr(tree / "etc", "trusted.overlay.redirect", b"/secret")
    refused("redirect")
    os.removexattr(tree / "etc", "trusted.overlay.redirect")
    os.mknod(tree / "disk", 0o060000, os.makedev(8, 0))
    refused("a device")
    (tree / "disk").unlink()
    os.mknod(tree / "mem", 0o020000, os.makedev(1, 1))
    refused("a device")
    (tree / "mem").unlink()
    os.lchown(tree / "link", 1000, 0)
    refused("user or group 1000")


@pytest.mark.skipif(os.geteuid() != 0, reason="owners are root's to change")
def test_shifted_owners(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("x")
    os.chown(tool, 65536 + 5, 65536 + 7)
    tool.chmod(0o4755)
    os.setxattr(
        tool, "security.capability", bytes.fromhex("0100000200040000000000000000000000000000")
    )
    (tmp_path / "link").symlink_to("tool")
    os.lchown(tmp_path / "link", 65536, 65536)
    screening.shift(tmp_path, 65536, 65536)
    status = tool.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (5, 7, 0o4755)
    assert os.getxattr(tool, "security.capability")
    assert os.lstat(tmp_path / "link").st_uid == 0


def test_paths_through_links(tmp_path: Path) -> None:
    from sublet.domain.errors import InvalidArgument

    stage = Stage(tmp_path)
    stage.make(["layer"])
    upper = tmp_path / "layer/upper"
    (upper / "home/u").mkdir(parents=True)
    (upper / "etc").symlink_to("/etc")
    assert stage.wanted("layer", "home/u") == "layer/upper/home/u"
    assert stage.wanted("layer", "home/none") is None
    with pytest.raises(InvalidArgument, match="link"):
        stage.wanted("layer", "etc/shadow")


async def test_changes_that_hide_behind_their_time(tmp_path: Path) -> None:
    import time

    stage = Stage(tmp_path)
    file = tmp_path / "file"
    file.write_text("before")
    since = time.time() + 1
    assert not await stage.changed_unnoticed([tmp_path], since)
    since = time.time() - 5
    assert not await stage.changed_unnoticed([tmp_path], since)  # its time tells
    os.utime(file, (since - 100, since - 100))
    assert await stage.changed_unnoticed([tmp_path], since)
    assert not await stage.changed_unnoticed([tmp_path / "none"], since)
