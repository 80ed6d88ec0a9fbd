"""The image file: round trips, and what happens to one that was damaged or is hostile."""

from __future__ import annotations

import io
import os
import struct
import tempfile
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublet.domain.errors import CorruptImage
from sublet.domain.image import ImageConfig
from sublet.image import layout, sif

CONFIG = ImageConfig(
    created="2026-01-02T03:04:05Z", cmd=("/bin/sh",), env=("A=b",), labels={"maker": "me"}
)
SQUASHFS = b"hsqs" + bytes(range(256)) * 64 + bytes(4092)


def make(file: BinaryIO, config: ImageConfig = CONFIG, data: bytes = SQUASHFS) -> sif.Finished:
    file.seek(sif.payload_offset(config))
    file.write(data)
    file.flush()
    return sif.finish(file, config)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.sif"
    with path.open("w+b") as file:
        make(file)
    return path


def check(path: Path) -> tuple[sif.Info, str]:
    with path.open("rb") as file:
        return sif.verify(file)


def patch(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def field(index: int) -> int:
    """Where descriptor `index` begins."""
    return layout.TABLE_OFFSET + index * layout.DESCRIPTOR.size


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "image.sif"
    with path.open("w+b") as file:
        made = make(file)
    info, digest = check(path)
    assert digest == made.digest
    assert info.hashed
    assert info.arch == "amd64"
    assert info.offset % 4096 == 0
    assert path.read_bytes()[info.offset : info.offset + info.length] == SQUASHFS
    assert info.config.cmd == ("/bin/sh",)
    assert info.config.labels["maker"] == "me"


def test_layout_is_sif_01(image: Path) -> None:
    data = image.read_bytes()
    assert data[:32] == b"#!/usr/bin/env sublet-run\n".ljust(32, b"\0")
    assert data[32:48] == b"SIF_MAGIC\x0001\x0002\0"
    ctime, mtime, free, total, table, table_length, start, length = struct.unpack(
        "<8q", data[64:128]
    )
    assert (ctime, mtime) == (1767323045, 1767323045)
    assert (free, total, table, table_length) == (46, 48, 4096, 48 * 585)
    assert (start, start + length) == (32768, len(data))
    kind, used = struct.unpack_from("<i?", data, 4096)
    assert (kind, used) == (0x4006, True)
    assert data[4096 + 73 :].startswith(b"oci-config.json\0")
    kind, used = struct.unpack_from("<i?", data, 4096 + 585)
    assert (kind, used) == (0x4004, True)
    assert struct.unpack_from("<ii3s", data, 4096 + 585 + 201) == (1, 2, b"02\0")


def test_same_content_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with (tmp_path / name).open("w+b") as file:
            make(file)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_stale_checksums_are_replaced(image: Path, tmp_path: Path) -> None:
    info, _ = check(image)
    again = tmp_path / "again"
    with again.open("w+b") as file:
        make(file, info.config)
    assert again.read_bytes() == image.read_bytes()


def test_foreign_file_is_read_without_checksums(image: Path) -> None:
    """As Apptainer writes it: another launch line, no config, no checksums."""
    patch(image, 0, b"#!/usr/bin/env run-singularity\n\0")
    patch(image, field(0), struct.pack("<i", 0x4001))
    patch(image, field(0) + 201, bytes(384))
    info, _ = check(image)
    assert not info.hashed
    assert info.config == sif.FOREIGN_CONFIG


@pytest.mark.parametrize(
    ("offset", "data", "message"),
    [
        (32, b"XIF", "wrong magic"),
        (42, b"02", "unsupported SIF version '02'"),
        (45, b"09", "unsupported architecture code '09'"),
        (80, struct.pack("<q", -1), "impossible number"),
        (88, struct.pack("<q", 1 << 40), "impossible number"),
        (96, struct.pack("<q", -5), "outside the file"),
        (96, struct.pack("<q", 1 << 60), "truncated"),
        (120, struct.pack("<q", 1 << 50), "truncated"),
        (field(0) + 17, struct.pack("<q", 1 << 40), "descriptor 1 points outside"),
        (field(1) + 17, struct.pack("<q", -4096), "descriptor 2 points outside"),
        (field(1) + 25, struct.pack("<q", 1 << 40), "descriptor 2 points outside"),
        (field(0) + 17, struct.pack("<q", 4100), "descriptor 1 points into the header"),
        (field(0) + 17, struct.pack("<q", 36864), "overlap"),
        (field(0) + 25, struct.pack("<q", 5000), "overlap|changed"),
        (field(1), struct.pack("<i", 0x4001), "0 SquashFS root partitions"),
        (36864, b"sqsh", "does not hold a SquashFS"),
        (70, b"x", "header has changed"),
        (field(30), b"\1", "header has changed|descriptor"),
        (32800, b"!", "oci-config.json has changed"),
        (40000, b"!", "rootfs.squashfs has changed"),
        (3000, b"!", "between the image's objects"),
        (32700, b"!", "between the image's objects"),
    ],
)
def test_damage_is_named(image: Path, offset: int, data: bytes, message: str) -> None:
    patch(image, offset, data)
    with pytest.raises(CorruptImage, match=message):
        check(image)


@pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 4096, 30000, 32768, 36864, 36900, -1])
def test_truncated(image: Path, size: int) -> None:
    os.truncate(image, size if size >= 0 else image.stat().st_size - 1)
    with pytest.raises(CorruptImage):
        check(image)


def test_appended(image: Path) -> None:
    with image.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(CorruptImage, match="where its header says"):
        check(image)


def test_huge_config_is_refused_unread(image: Path) -> None:
    os.truncate(image, 1 << 30)
    patch(image, field(0) + 17, struct.pack("<qq", 1 << 20, 1 << 29))
    with pytest.raises(CorruptImage, match="larger than"):
        check(image)


_WHOLE = io.BytesIO()
with tempfile.TemporaryFile() as _file:
    make(_file)
    _file.seek(0)
    _WHOLE = io.BytesIO(_file.read())


def verify_bytes(data: bytes) -> sif.Info:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        return sif.verify(file)[0]


_POSITIONS = st.one_of(
    st.integers(0, 127),
    st.integers(4096, 4096 + 2 * 585 - 1),
    st.integers(0, len(_WHOLE.getvalue()) - 1),
)


@given(_POSITIONS, st.integers(1, 255))
def test_any_changed_byte_shows(position: int, change: int) -> None:
    data = bytearray(_WHOLE.getvalue())
    data[position] ^= change
    with pytest.raises(CorruptImage):
        verify_bytes(bytes(data))


@given(st.binary(max_size=2000), st.booleans())
def test_random_bytes_are_refused(data: bytes, with_header: bool) -> None:
    if with_header:
        data = _WHOLE.getvalue()[:64] + data
    with pytest.raises(CorruptImage):
        verify_bytes(data)


@given(st.lists(st.tuples(_POSITIONS, st.binary(min_size=1, max_size=8)), max_size=6))
def test_hostile_tables_end_in_an_answer(patches: list[tuple[int, bytes]]) -> None:
    """Whatever a foreign file's header says, reading it raises nothing but CorruptImage."""
    data = bytearray(_WHOLE.getvalue())
    data[0:32] = bytes(32)
    data[4096 + 201 : 4096 + 585] = bytes(384)
    for position, piece in patches:
        data[position : position + len(piece)] = piece
    try:
        info = verify_bytes(bytes(data))
    except CorruptImage:
        return
    assert 0 < info.offset <= info.offset + info.length <= len(data)
