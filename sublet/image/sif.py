"""One file, one image: read, verify and finish SIF files (design.md, section 4).

The reader takes every file for hostile: whatever it holds, reading ends in an
`Info` or in CorruptImage with one sentence that names what is wrong.

SIF has no checksums, so a file of ours carries them. The config's labels hold the
SHA-256 of every other object; the config descriptor's `extra` holds the SHA-256 of
the config and that of header and descriptor table (taken with that last field
zeroed); whatever lies between the objects is zero. So a change of any byte shows.
That is protection against damage, not against malice: who changes the file on
purpose can compute the sums again.
"""

from __future__ import annotations

import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO

from sublet.domain.errors import CorruptImage
from sublet.domain.image import LABEL_SHA256, ImageConfig
from sublet.image import layout
from sublet.image.layout import DISK, ROOT, Descriptor, Header, Payload

if TYPE_CHECKING:
    from collections.abc import Iterable

CONFIG_NAME = "oci-config.json"
MAX_CONFIG = 1 << 20
CHUNK = 1 << 20
FOREIGN_CONFIG = ImageConfig(cmd=("/bin/sh",))
"""What a file without a config of its own is taken to say."""


@dataclass(frozen=True, slots=True)
class Info:
    """What a file says of itself: `offset` and `length` of its payload in bytes.
    `hashed`: it carries our checksums; those of header and config were right."""

    size: int
    arch: str
    config: ImageConfig
    offset: int
    length: int
    objects: tuple[Descriptor, ...]
    hashed: bool


@dataclass(frozen=True, slots=True)
class Finished:
    """A file that `finish` completed; `digest` is `sha256:…` of the whole file."""

    digest: str
    info: Info


def is_sif(file: BinaryIO) -> bool:
    """Whether the file begins as a SIF file does, sound or not."""
    head = os.pread(file.fileno(), layout.HEADER.size, 0)
    return head.startswith(layout.LAUNCH) or layout.MAGIC.rstrip(b"\0") in head


def read(file: BinaryIO) -> Info:
    """Header, descriptors and config of a SIF file; what it holds is not read.

    Raises CorruptImage.
    """
    size = os.fstat(file.fileno()).st_size
    head = _at(file, 0, layout.HEADER.size)
    header = Header.unpack(head, size)
    table = _at(file, header.table_offset, header.table_entries * layout.DESCRIPTOR.size)
    objects = tuple(layout.unpack_table(table, header, size))
    _refuse_overlaps(objects)
    payload, item = _payload(file, objects)
    config, hashed = _config(file, head, table, objects)
    if payload is not payload_of(config):
        raise CorruptImage("The image's configuration does not fit what it holds.")
    arch = layout.ARCHITECTURES[header.arch]
    if hashed:
        _refuse_tail(header, objects, size)
    return Info(size, arch, config, item.offset, item.size, objects, hashed)


def verify(file: BinaryIO) -> tuple[Info, str]:
    """`read`, then every byte against the checksums, in one pass over the file.

    Returns what `read` does and the digest of the whole file. A file without our
    checksums is only measured. Raises CorruptImage.
    """
    info = read(file)
    whole, position = hashlib.sha256(), 0
    for item in sorted(info.objects, key=lambda item: item.offset) if info.hashed else ():
        _gap(file, position, item.offset, whole)
        part = hashlib.sha256()
        _consume(file, item.offset, item.size, whole, part)
        wanted = info.config.labels.get(LABEL_SHA256 + item.name)
        if item.name != CONFIG_NAME and part.hexdigest() != wanted:
            raise CorruptImage(f"A byte of {item.name} has changed since the image was made.")
        position = item.end
    _consume(file, position, info.size - position, whole)
    return info, f"sha256:{whole.hexdigest()}"


def payload_of(config: ImageConfig) -> Payload:
    """What a file with this config holds."""
    return DISK if config.disk else ROOT


def payload_offset(config: ImageConfig) -> int:
    """Where the payload of a file with this config begins: a multiple of 4096.

    The checksum is not known yet, its length is.
    """
    end = layout.DATA_OFFSET + len(_labelled(config, "0" * 64).to_json())
    return -(-end // layout.ALIGNMENT) * layout.ALIGNMENT


def finish(file: BinaryIO, config: ImageConfig) -> Finished:
    """Make a SIF of a file in which the payload lies at `payload_offset(config)`.

    The file ends with the payload; what is before it is written now. The same
    payload and config give the same bytes. The file is synced to the disk.
    """
    size, offset = os.fstat(file.fileno()).st_size, payload_offset(config)
    payload = hashlib.sha256()
    _consume(file, offset, size - offset, payload)
    config = _labelled(config, payload.hexdigest())
    data = config.to_json()
    if len(data) > MAX_CONFIG:
        raise CorruptImage(f"The image's configuration is larger than {MAX_CONFIG} bytes.")
    front = _front(config, data, offset, size)
    file.seek(0)
    file.write(front.ljust(offset, b"\0"))
    file.flush()
    os.fsync(file.fileno())
    whole = hashlib.sha256()
    _consume(file, 0, size, whole)
    return Finished(f"sha256:{whole.hexdigest()}", read(file))


def _labelled(config: ImageConfig, checksum: str) -> ImageConfig:
    label = LABEL_SHA256 + payload_of(config).name
    return replace(config, labels={**config.own_labels, label: checksum})


def _payload(file: BinaryIO, objects: Iterable[Descriptor]) -> tuple[Payload, Descriptor]:
    """What the image is there to hold, and the one object that holds it."""
    roots, disks = ([item for item in objects if item.holds(kind)] for kind in (ROOT, DISK))
    payload = DISK if disks and not roots else ROOT
    found = disks if payload is DISK else roots
    what, kind = ("disks", "qcow2") if payload is DISK else ("SquashFS root partitions", "SquashFS")
    if len(found) != 1:
        raise CorruptImage(f"The image holds {len(found)} {what}, not one.")
    if _at(file, found[0].offset, 4) != payload.magic:
        where = "disk" if payload is DISK else "root partition"
        raise CorruptImage(f"The image's {where} does not hold a {kind}.")
    return payload, found[0]


def _front(config: ImageConfig, data: bytes, offset: int, size: int) -> bytes:
    """Header, descriptor table and config: everything before the payload."""
    codes = {name: code for code, name in layout.ARCHITECTURES.items()}
    if config.architecture not in codes:
        raise CorruptImage(f"There is no image for the architecture {config.architecture}.")
    arch, created = codes[config.architecture], epoch(config.created)
    config_hash = hashlib.sha256(data).digest()
    uuid, payload = config_hash[:16], payload_of(config)
    header = Header(arch, uuid, created, 2, size - layout.DATA_OFFSET).pack()

    def table(table_hash: bytes) -> bytes:
        extra = config_hash + table_hash
        first = (layout.GENERIC_JSON, layout.DATA_OFFSET, len(data), CONFIG_NAME, created, extra)
        second = (layout.PARTITION, offset, size - offset, payload.name, created)
        entries = Descriptor(0, *first).pack()
        entries += Descriptor(1, *second, payload.extra(arch)).pack()
        return entries.ljust(layout.TABLE_LENGTH, b"\0")

    front = header.ljust(layout.TABLE_OFFSET, b"\0")
    table_hash = hashlib.sha256(header + table(bytes(32))).digest()
    return (front + table(table_hash)).ljust(layout.DATA_OFFSET, b"\0") + data


def epoch(created: str) -> int:
    """An RFC 3339 time in seconds since the epoch; 0 where it is none or before 1970."""
    try:
        moment = datetime.fromisoformat(created)
        return max(0, int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()))
    except (ValueError, OverflowError):
        return 0


def _config(
    file: BinaryIO, head: bytes, table: bytes, objects: Iterable[Descriptor]
) -> tuple[ImageConfig, bool]:
    """The config, and whether the file carries (correct) checksums of ours."""
    found = [o for o in objects if o.kind == layout.GENERIC_JSON and o.name == CONFIG_NAME]
    ours = head.startswith(layout.LAUNCH) or any(any(o.extra) for o in found)
    if len(found) != 1:
        if ours or found:
            raise CorruptImage(f"The image holds {len(found)} configurations, not one.")
        return FOREIGN_CONFIG, False
    item = found[0]
    if item.size > MAX_CONFIG:
        raise CorruptImage(f"The image's configuration is larger than {MAX_CONFIG} bytes.")
    data = _at(file, item.offset, item.size)
    if ours:
        _check_front(head, table, item, data)
    config = ImageConfig.from_json(data)
    if ours and not all(
        re.fullmatch("[0-9a-f]{64}", config.labels.get(LABEL_SHA256 + o.name, ""))
        for o in objects
        if o is not item
    ):
        raise CorruptImage("The image's configuration lacks the checksum of an object.")
    return config, ours


def _check_front(head: bytes, table: bytes, item: Descriptor, data: bytes) -> None:
    """Header, table and config against the sums in the config descriptor's extra."""
    config_hash, table_hash = item.extra[:32], item.extra[32:64]
    at = (item.index + 1) * layout.DESCRIPTOR.size - len(item.extra) + 32
    blank = table[:at] + bytes(32) + table[at + 32 :]
    if hashlib.sha256(head + blank).digest() != table_hash:
        raise CorruptImage("A byte of the image's header has changed since the image was made.")
    if hashlib.sha256(data).digest() != config_hash:
        raise CorruptImage(f"A byte of {CONFIG_NAME} has changed since the image was made.")


def _refuse_overlaps(objects: Iterable[Descriptor]) -> None:
    last: Descriptor | None = None
    for item in sorted((o for o in objects if o.size), key=lambda o: o.offset):
        if last and item.offset < last.end:
            raise CorruptImage(
                f"The image's descriptors {last.index + 1} and {item.index + 1} overlap."
            )
        last = item


def _refuse_tail(header: Header, objects: Iterable[Descriptor], size: int) -> None:
    end = header.data_offset + header.data_length
    if end != size or max(item.end for item in objects) != size:
        raise CorruptImage(f"The image has {size} bytes where its header says {end}.")


def _at(file: BinaryIO, offset: int, length: int) -> bytes:
    data = os.pread(file.fileno(), length, offset)
    if len(data) != length:
        raise CorruptImage("The image is truncated.")
    return data


def _gap(file: BinaryIO, start: int, end: int, whole: hashlib._Hash) -> None:
    """Hash what lies between two objects; but for header and table it is zero."""
    table = (layout.TABLE_OFFSET, layout.TABLE_OFFSET + layout.TABLE_LENGTH)
    position = start
    while position < end:
        data = _at(file, position, min(CHUNK, end - position))
        whole.update(data)
        blank = bytearray(data)
        for low, high in ((0, layout.HEADER.size), table):
            low, high = max(low - position, 0), min(high - position, len(data))
            if low < high:
                blank[low:high] = bytes(high - low)
        if any(blank):
            raise CorruptImage("A byte between the image's objects has changed.")
        position += len(data)


def _consume(file: BinaryIO, offset: int, length: int, *hashes: hashlib._Hash) -> None:
    """Feed the bytes to every hash, on as many CPUs as there are hashes."""
    with ThreadPoolExecutor(max(1, len(hashes) - 1)) as others:
        while length > 0:
            data = _at(file, offset, min(CHUNK, length))
            fed = [others.submit(one.update, data) for one in hashes[1:]]
            hashes[0].update(data)
            wait(fed)
            offset, length = offset + len(data), length - len(data)
