"""The bytes of a SIF file's header and descriptors: packing and bounded unpacking.

Source: Singularity Image Format, version 01 (the `sif` library of the Singularity
and Apptainer projects, `pkg/sif/sif.go`); design.md, section 4. Pure: bytes in, bytes out.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sublet.domain.errors import CorruptImage

if TYPE_CHECKING:
    from collections.abc import Iterator

LAUNCH = b"#!/usr/bin/env sublet-run\n"
MAGIC, VERSION = b"SIF_MAGIC\0", b"01\0"
ARCHITECTURES = {b"02\0": "amd64", b"04\0": "arm64"}

HEADER = struct.Struct("<32s10s3s3s16s8q")
DESCRIPTOR = struct.Struct("<i?III7q128s384s")
TABLE_OFFSET, TABLE_ENTRIES = 4096, 48
TABLE_LENGTH = TABLE_ENTRIES * DESCRIPTOR.size
DATA_OFFSET, ALIGNMENT = 32768, 4096
MAX_ENTRIES = 4096

GENERIC_JSON, PARTITION = 0x4006, 0x4004
GROUP = 0xF0000001
_PARTITION_EXTRA = struct.Struct("<ii3s")


@dataclass(frozen=True, slots=True)
class Payload:
    """What an image is there to hold: the object's name, the file system and partition type by
    which SIF marks it, and the bytes that it begins with."""

    name: str
    fstype: int
    parttype: int
    magic: bytes

    def extra(self, arch: bytes) -> bytes:
        """The extra field of the partition that holds it."""
        return _PARTITION_EXTRA.pack(self.fstype, self.parttype, arch)


ROOT = Payload("rootfs.squashfs", 1, 2, b"hsqs")
"""A root file system: fstype squashfs, parttype primary system."""

DISK = Payload("disk.qcow2", 4, 3, b"QFI\xfb")
"""A whole disk for a VM: fstype raw, parttype data."""


@dataclass(frozen=True, slots=True)
class Header:
    """The file's global header, launch line first; times in seconds since the epoch."""

    arch: bytes
    uuid: bytes
    created: int
    used: int
    data_length: int
    launch: bytes = LAUNCH
    table_offset: int = TABLE_OFFSET
    table_entries: int = TABLE_ENTRIES
    data_offset: int = DATA_OFFSET

    def pack(self) -> bytes:
        """The 128 bytes that begin the file."""
        times = (self.created, self.created)
        counts = (self.table_entries - self.used, self.table_entries)
        table = (self.table_offset, self.table_entries * DESCRIPTOR.size)
        data = (self.data_offset, self.data_length)
        return HEADER.pack(
            self.launch, MAGIC, VERSION, self.arch, self.uuid, *times, *counts, *table, *data
        )

    @classmethod
    def unpack(cls, data: bytes, size: int) -> Header:
        """The header in `data` of a file of `size` bytes; CorruptImage says what is wrong."""
        if len(data) < HEADER.size:
            raise CorruptImage(f"The file is no image: it has {size} bytes only.")
        launch, magic, version, arch, uuid, created, *rest = HEADER.unpack(data[: HEADER.size])
        _, free, total, table, table_length, start, length = rest
        if magic != MAGIC:
            raise CorruptImage("The file is no SIF image: it has the wrong magic.")
        if version != VERSION:
            raise CorruptImage(f"The image has the unsupported SIF version {_shown(version)}.")
        if arch not in ARCHITECTURES:
            raise CorruptImage(f"The image has the unsupported architecture code {_shown(arch)}.")
        if not 0 < total <= MAX_ENTRIES or not 0 <= free <= total:
            raise CorruptImage("The image's header has an impossible number of descriptors.")
        if table < HEADER.size or table_length < 0 or start < 0 or length < 0:
            raise CorruptImage("The image's header points outside the file.")
        needed = max(table + total * DESCRIPTOR.size, start + length)
        if needed > size:
            raise CorruptImage(f"The image is truncated: {size} of {needed} bytes are there.")
        return cls(arch, uuid, created, total - free, length, launch, table, total, start)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One object of the file: where it lies, what it is. `index` counts from 0."""

    index: int
    kind: int
    offset: int
    size: int
    name: str
    created: int = 0
    extra: bytes = b""

    @property
    def end(self) -> int:
        """The offset just past the object."""
        return self.offset + self.size

    def pack(self) -> bytes:
        """The 585 bytes of the descriptor."""
        padded = -(-self.size // ALIGNMENT) * ALIGNMENT if self.kind == PARTITION else self.size
        times = (self.created, self.created)
        where = (self.offset, self.size, padded, *times, 0, 0)
        name = self.name.encode()
        return DESCRIPTOR.pack(self.kind, True, self.index + 1, GROUP, 0, *where, name, self.extra)

    def holds(self, payload: Payload) -> bool:
        """Whether this is a partition that is marked as this kind of payload."""
        if self.kind != PARTITION:
            return False
        fstype, parttype, _ = _PARTITION_EXTRA.unpack_from(self.extra)
        return (fstype, parttype) == (payload.fstype, payload.parttype)


def unpack_table(data: bytes, header: Header, size: int) -> Iterator[Descriptor]:
    """The used descriptors in `data`, each within a file of `size` bytes."""
    table_end = header.table_offset + len(data)
    for index, fields in enumerate(DESCRIPTOR.iter_unpack(data)):
        kind, used, _, _, _, offset, length, _, created, _, _, _, name, extra = fields
        if not used:
            continue
        if offset < HEADER.size or length < 0 or offset + length > size:
            raise CorruptImage(f"The image's descriptor {index + 1} points outside the file.")
        if offset < table_end and offset + length > header.table_offset:
            raise CorruptImage(f"The image's descriptor {index + 1} points into the header.")
        text = name.split(b"\0")[0].decode(errors="replace")
        yield Descriptor(index, kind, offset, length, text, created, extra)


def _shown(code: bytes) -> str:
    return repr(code.rstrip(b"\0").decode(errors="replace"))
