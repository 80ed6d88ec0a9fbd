"""The first super block of an ext4, read and renewed in user space.

Offsets are those of `struct ext4_super_block` (kernel, Documentation/filesystems/ext4/super.rst).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

from sublet.drivers.descriptors import opened

START, SIZE = 1024, 1024
END = START + SIZE
_MAGIC = 0xEF53
_BLOCKS_LOW, _LOG_BLOCK, _MAGIC_AT, _UUID, _HASH_SEED = 0x04, 0x18, 0x38, 0x68, 0xEC
_MOUNTED, _MOUNTS = 0x2C, 0x34
_BLOCKS_HIGH, _CHECKSUM = 0x150, 0x3FC


def extent(head: bytes) -> tuple[int, int]:
    """Blocks of the file system, and bytes of each, from the first `END` bytes of its device.

    Raises ValueError where there is no ext4.
    """
    block = head[START:END]
    if len(block) < SIZE or _u16(block, _MAGIC_AT) != _MAGIC or _u32(block, _LOG_BLOCK) > 6:
        raise ValueError("no ext4")
    blocks = _u32(block, _BLOCKS_LOW) | _u32(block, _BLOCKS_HIGH) << 32
    return blocks, 1024 << _u32(block, _LOG_BLOCK)


def untouched(head: bytes) -> bool:
    """Whether it has never been mounted to be written to, and so holds nothing of anybody's.

    The kernel counts that at once and on the device itself, before anything else is written.
    Raises ValueError where there is no ext4.
    """
    extent(head)
    block = head[START:END]
    return _u16(block, _MOUNTS) == 0 and _u32(block, _MOUNTED) == 0


def renew(file: Path) -> None:
    """Give a file system that nobody has written to yet a UUID and a hash seed of its own.

    The seed keeps strangers from making names that collide in a directory's hash. It needs
    `metadata_csum_seed`: no other checksum depends on the UUID then.
    """

    def change(block: bytearray) -> None:
        for place in (_UUID, _HASH_SEED):
            fresh = bytearray(os.urandom(16))
            fresh[6], fresh[8] = fresh[6] & 0x0F | 0x40, fresh[8] & 0x3F | 0x80  # RFC 9562, 4
            block[place : place + 16] = fresh

    _change(file, change)


def touch(file: Path) -> None:
    """Note that a file system which was made with files in it is somebody's: it counts as one
    that has been mounted."""
    _change(file, lambda block: struct.pack_into("<H", block, _MOUNTS, 1))


def _change(file: Path, change: Callable[[bytearray], None]) -> None:
    with opened(file, os.O_RDWR) as fd:
        block = bytearray(os.pread(fd, SIZE, START))
        extent(bytes(START) + block)
        change(block)
        struct.pack_into("<I", block, _CHECKSUM, crc32c(block[:_CHECKSUM]))
        os.pwrite(fd, block, START)


def crc32c(data: bytes | bytearray) -> int:
    """Castagnoli's CRC as ext4 has it: begun with all ones, not inverted at the end."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc


def _entry(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value


_TABLE = [_entry(value) for value in range(256)]


def _u16(block: bytes, place: int) -> int:
    return int(struct.unpack_from("<H", block, place)[0])


def _u32(block: bytes, place: int) -> int:
    return int(struct.unpack_from("<I", block, place)[0])
