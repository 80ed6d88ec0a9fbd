"""The pool of layers on a host without reflinks: made, found again, never larger than the host."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from imagelab import call
from test_disk_full import filled

from sublet.drivers import disk, mount
from sublet.drivers.pool import HEADROOM, Pool

SIZE = 1600 << 20


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Path]:
    """An ext4 of 1.6 GB."""
    image, point = tmp_path / "host.img", tmp_path / "host"
    point.mkdir()
    image.touch()
    os.truncate(image, SIZE)
    call("mkfs.ext4", "-q", "-m", "0", image)
    call("mount", "-o", "loop", image, point)
    yield point
    mount.unmount_below(tmp_path / "mnt")
    call("umount", point)


def write(path: Path, megabytes: int) -> None:
    with path.open("wb", buffering=0) as file:
        for _ in range(megabytes):
            file.write(bytes(1 << 20))


def test_the_pool(host: Path, tmp_path: Path) -> None:
    pool = Pool(host, tmp_path / "mnt")
    mount.share(pool.point.parent)
    asyncio.run(pool.open())
    assert (pool.directory, pool.reflinks) == (pool.point, True)
    assert pool.file.stat().st_blocks * 512 < 100 << 20
    (pool.point / "kept").write_text("kept")
    with filled(host, left=HEADROOM + (20 << 20)):
        pool.balance()
        with pytest.raises(OSError, match="No space left"):  # at once, not when it is too late
            write(pool.point / "much", 100)
        assert shutil.disk_usage(host).free > 0
    (pool.point / "much").unlink()
    pool.balance()
    (pool.point / "more").write_bytes(bytes(100 << 20))
    mount.unmount_below(pool.point)
    assert disk.device_of(pool.file) is None
    again = Pool(host, tmp_path / "mnt")
    asyncio.run(again.open())
    assert (again.directory / "kept").read_text() == "kept"
    assert (again.directory / "more").stat().st_size == 100 << 20


def test_a_host_with_little_room(host: Path, tmp_path: Path) -> None:
    """No pool: layers are where they can be, and copies are real."""
    with filled(host, left=500 << 20):
        pool = Pool(host, tmp_path / "mnt")
        asyncio.run(pool.open())
    assert (pool.directory, pool.reflinks, pool.file.exists()) == (host, False, False)
    with contextlib.suppress(FileNotFoundError):
        assert os.listdir(tmp_path / "mnt") == []
