"""Disks of VMs as files: a stranger's disk taken in, and the writable overlay over an image.

A stranger's disk is hostile: it is read by qemu-img alone, confined (`confine`), from a copy,
and written again as a compressed qcow2 of our own, which leans on no other file. An image's
disk is never written to: an instance has a qcow2 overlay, whose header names no backing file;
QEMU is told on its command line what lies below.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from sublet.domain.errors import CorruptImage, DiskFull
from sublet.domain.size import check_growth
from sublet.drivers import reflink, run
from sublet.drivers.confine import NOBODY, confined, limit
from sublet.drivers.descriptors import opened
from sublet.drivers.pool import clone
from sublet.drivers.store import files
from sublet.image import qcow2

TIMEOUT = 3600
_LEAKS = 3
"""qemu-img(1), check: all is there, and some room in the file is unused."""

_ROUND = 1 << 20


def is_disk(file: BinaryIO) -> bool:
    """Whether the file is a qcow2, or a raw disk with a partition table."""
    return qcow2.is_disk(os.pread(file.fileno(), qcow2.HEAD, 0))


def virtual_size(file: Path) -> int:
    """The bytes that a VM sees of the disk in the file. Raises CorruptImage."""
    head = _head(file)
    if head.startswith(qcow2.MAGIC):
        return qcow2.virtual_size(head)
    size = file.stat().st_size
    qcow2.check_partitions(head, size)
    size = -(-size // qcow2.SECTOR) * qcow2.SECTOR
    qcow2.check_size(size)
    return size


async def copy(source: BinaryIO, target: Path) -> None:
    """Copy a disk to a new file that the confined may read; holes stay holes, and blocks are
    shared where the file system can. Raises DiskFull."""

    def work() -> None:
        with files.translated(), target.open("xb") as writer:
            if not clone(source.fileno(), writer.fileno()):
                reflink.copy_data(source.fileno(), writer.fileno())
            os.fchmod(writer.fileno(), 0o444)

    await asyncio.to_thread(work)


async def repack(partition: Path, output: Path, *, offset: int) -> None:
    """Write the stranger's disk in the file `partition` again, compressed, into `output` from
    `offset` on.

    Raises CorruptImage where it cannot be read or nothing could boot from it, DiskFull.
    """
    head, plain = _head(partition), output.with_name(output.name + ".plain")
    kind = "qcow2" if head.startswith(qcow2.MAGIC) else "raw"
    try:
        if kind == "qcow2":
            await _check(partition)
        how = ["-f", kind, "-O", "qcow2", "-c", "-o", "compression_type=zstd"]
        await _write(["convert", *how], partition, plain)
        if kind == "qcow2":
            await _check_content(plain)
        await asyncio.to_thread(_place, plain, output, offset)
    finally:
        plain.unlink(missing_ok=True)


async def overlay(file: Path, size: int) -> None:
    """Make an empty overlay of `size` bytes in `file`, which is there when it is complete.

    Raises DiskFull.
    """
    partial = file.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    await run.run(["qemu-img", "create", "-q", "-f", "qcow2", str(partial), str(_whole(size))])
    partial.rename(file)


def grow(file: Path, size: int) -> None:
    """Make the overlay of an instance that does not run larger; the same size is fine.

    Only its size is written: its content is the tenant's, and read by nothing here.
    Raises InvalidArgument where it would become smaller.
    """
    with opened(file, os.O_RDWR) as fd:
        head = os.pread(fd, qcow2.HEAD, 0)
        check_growth(qcow2.virtual_size(head), size)
        qcow2.check_size(size)
        for place, data in qcow2.resized(head, _whole(size)).items():
            os.pwrite(fd, data, place)
        os.fsync(fd)


def _whole(size: int) -> int:
    return -(-size // _ROUND) * _ROUND


def _head(file: Path) -> bytes:
    with opened(file) as fd:
        return os.pread(fd, qcow2.HEAD, 0)


async def _check(disk: Path) -> None:
    """Raises CorruptImage for a qcow2 that is damaged, or cut short: what it lacks would read
    as zeroes otherwise."""
    argv = ["qemu-img", "check", "-q", "-f", "qcow2", "/input"]
    result = await _confined(argv, {"/input": str(disk)})
    if result.code not in (0, _LEAKS):
        raise CorruptImage(
            "The disk is damaged or cut short: parts of it are not in the file.",
            hint="Fetch it again; `qemu-img check` tells more.",
        )


async def _check_content(disk: Path) -> None:
    """Raises CorruptImage unless the qcow2, one of ours, holds a partition table."""
    first, size = disk.with_name("first"), qcow2.virtual_size(_head(disk))
    blocks = [f"bs={qcow2.SECTOR}", f"count={qcow2.HEAD // qcow2.SECTOR}"]
    places = ["if=/input", "of=/output"]
    try:
        await _write(["dd", "-f", "qcow2", "-O", "raw", *blocks], disk, first, places)
        qcow2.check_partitions(_head(first), size)
    finally:
        first.unlink(missing_ok=True)


async def _write(
    argv: Sequence[str], disk: Path, output: Path, places: Sequence[str] = ("/input", "/output")
) -> None:
    """Let qemu-img make `output` of `disk`. Raises CorruptImage, DiskFull."""
    output.touch(0o600)
    os.chown(output, NOBODY, NOBODY)
    result = await _confined(
        ["qemu-img", *argv, *places], {"/input": str(disk)}, {"/output": str(output)}
    )
    if result.code == 0:
        return
    if isinstance(run.failure(argv, result), DiskFull):
        raise DiskFull("No space left on the host for the image.")
    lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
    why = lines[-1].removeprefix("qemu-img: ") if lines else f"qemu-img ended with {result.code}"
    raise CorruptImage(f"The disk cannot be read: {why}".rstrip(".") + ".")


async def _confined(
    argv: Sequence[str], readable: dict[str, str], writable: dict[str, str] | None = None
) -> run.Result:
    return await run.run(
        confined(argv, readable=readable, writable=writable),
        check=False,
        timeout=TIMEOUT,
        before_exec=limit,
    )


def _place(plain: Path, output: Path, offset: int) -> None:
    with plain.open("rb") as reader, output.open("wb") as writer:
        files.copy(reader, writer, offset=offset)
