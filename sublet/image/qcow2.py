"""What begins a disk: a qcow2 header, or a partition table. Pure, bounded; bytes are hostile.

Sources: QEMU, `docs/interop/qcow2.txt`; UEFI specification 2.10, section 5.3 (GPT) and 5.2
(the master boot record).
"""

from __future__ import annotations

import struct

from sublet.domain.disks import MAX_DISK
from sublet.domain.errors import CorruptImage
from sublet.domain.units import format_bytes

MAGIC = b"QFI\xfb"
SECTOR = 512
HEAD = 34 * SECTOR
"""Bytes of a disk that `is_disk` and `check_partitions` look at."""

_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")
_INCOMPATIBLE, _INCOMPATIBLE_AT = struct.Struct(">Q"), 72
_CORRUPT, _DATA_FILE, _KNOWN = 1 << 1, 1 << 2, 0b11111
_SIZE_AT, _L1_SIZE_AT = 24, 36
_GPT = struct.Struct("<8sIIIIQQQQ")
_PROTECTIVE = 0xEE
"""The type of a partition that tells of a GPT, which must be there then."""

_ENTRY = struct.Struct("<B3xB3xII")


def is_disk(head: bytes) -> bool:
    """Whether a file that begins so is a qcow2, or a raw disk with a partition table."""
    return head.startswith(MAGIC) or bool(_partitions(head))


def virtual_size(head: bytes) -> int:
    """The bytes that a VM sees of the qcow2 that begins so.

    Raises CorruptImage for what is none, leans on other files, or is out of bounds.
    """
    if len(head) < _INCOMPATIBLE_AT + _INCOMPATIBLE.size:
        raise CorruptImage(f"The disk is cut short: it has {len(head)} bytes only.")
    fields = _HEADER.unpack_from(head)
    magic, version, backing, _, cluster_bits, size, encrypted, *_ = fields
    if magic != MAGIC or version not in (2, 3) or not 9 <= cluster_bits <= 21:
        raise CorruptImage("The disk is no qcow2 of a version that is known here (2 or 3).")
    features = _INCOMPATIBLE.unpack_from(head, _INCOMPATIBLE_AT)[0] if version > 2 else 0
    if backing or features & _DATA_FILE:
        raise CorruptImage(
            "The disk is not whole: it needs another file, which it names itself.",
            hint="Write one that stands alone: qemu-img convert -O qcow2 DISK WHOLE.",
        )
    if encrypted:
        raise CorruptImage("The disk is encrypted.", hint="Decrypt it with qemu-img convert.")
    if features & _CORRUPT or features & ~_KNOWN:
        raise CorruptImage("The disk is marked as damaged, or as of a newer kind than is known.")
    check_size(size)
    return int(size)


def check_size(size: int) -> None:
    """Raises CorruptImage where no VM of this host may have a disk of so many bytes."""
    if not SECTOR <= size <= MAX_DISK:
        raise CorruptImage(
            f"The disk claims to have {size} bytes; {format_bytes(MAX_DISK)} is the most."
        )


def check_partitions(head: bytes, size: int) -> None:
    """Raises CorruptImage unless the disk of `size` bytes that begins so has a partition table
    and all that this tells of."""
    needed = _partitions(head)
    if not needed:
        raise CorruptImage(
            "The disk has no partition table, so there is nothing to boot from.",
            hint="A root file system is imported as a tar: `sublet import ROOTFS.tar`.",
        )
    if needed > size:
        raise CorruptImage(f"The disk is cut short: it has {size} of its {needed} bytes.")


def resized(head: bytes, size: int) -> dict[int, bytes]:
    """What to write where (by offset) into a qcow2 of ours to make it `size` bytes large.

    Its first-level table lies alone in a cluster of 64 KiB, which is enough for MAX_DISK.
    """
    per_entry = 1 << (2 * _HEADER.unpack_from(head)[4] - 3)  # clusters in a table times their size
    entries = max(_HEADER.unpack_from(head)[7], -(-size // per_entry))
    return {_SIZE_AT: struct.pack(">Q", size), _L1_SIZE_AT: struct.pack(">I", entries)}


def _partitions(head: bytes) -> int:
    """The bytes that a disk must have for what its partition table says; 0 where it has none."""
    if len(head) < 2 * SECTOR or head[SECTOR - 2 : SECTOR] != b"\x55\xaa":
        return 0
    if head.startswith(b"EFI PART", SECTOR):
        backup = _GPT.unpack_from(head, SECTOR)[6]
        return int(backup + 1) * SECTOR
    entries = [_ENTRY.unpack_from(head, 446 + 16 * number) for number in range(4)]
    used = [entry for entry in entries if entry[1]]
    odd = any(status not in (0, 0x80) or kind == _PROTECTIVE for status, kind, *_ in entries)
    if not used or odd:
        return 0
    return max(int(start + count) * SECTOR for _, _, start, count in used)
