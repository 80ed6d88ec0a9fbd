"""What begins a disk: qcow2 headers and partition tables, sound and hostile; the image of one."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublet.domain.disks import LABEL_DISK, MAX_DISK, Disk
from sublet.domain.errors import CorruptImage, ImageNeedsVM
from sublet.domain.image import Image, ImageConfig, refuse_disk
from sublet.image import layout, qcow2, sif

GIB = 1 << 30


def header(**changes: int) -> bytes:
    """A sound header of 4 GiB, with changes (docs/interop/qcow2.txt)."""
    has = {"version": 3, "backing": 0, "bits": 16, "size": 4 * GIB, "crypt": 0, "l1": 8}
    has |= {"features": 0, **changes}
    first = (b"QFI\xfb", has["version"], has["backing"], 0, has["bits"], has["size"])
    rest = (has["crypt"], has["l1"], 3 << 16, 1 << 16, 1, 0, 0)
    return struct.pack(">4sIQIIQIIQQIIQQ", *first, *rest, has["features"]).ljust(512, b"\0")


def mbr(*entries: tuple[int, int, int, int]) -> bytes:
    """A boot record with entries (status, type, start, sectors)."""
    table = b"".join(struct.pack("<B3xB3xII", *entry) for entry in entries)
    return (bytes(446) + table).ljust(510, b"\0") + b"\x55\xaa"


def gpt(sectors: int) -> bytes:
    fields = (b"EFI PART", 0x10000, 92, 0, 0, 1, sectors - 1, 34, sectors - 34)
    protective = mbr((0, 0xEE, 1, sectors - 1))
    return (protective + struct.pack("<8sIIIIQQQQ", *fields)).ljust(qcow2.HEAD, b"\0")


def test_a_sound_header_tells_the_size() -> None:
    assert qcow2.virtual_size(header()) == 4 * GIB
    assert qcow2.virtual_size(header(version=2, features=1 << 60)) == 4 * GIB  # no such field
    assert qcow2.virtual_size(header(features=0b11001)) == 4 * GIB


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version": 1}, "version"),
        ({"version": 4}, "version"),
        ({"bits": 8}, "version"),
        ({"bits": 40}, "version"),
        ({"backing": 512}, "needs another file"),
        ({"features": 0b100}, "needs another file"),
        ({"crypt": 1}, "encrypted"),
        ({"features": 0b10}, "damaged"),
        ({"features": 1 << 40}, "damaged"),
        ({"size": 0}, "claims to have 0 bytes"),
        ({"size": MAX_DISK + 512}, "the most"),
        ({"size": (1 << 64) - 1}, "the most"),
    ],
)
def test_what_leans_on_files_or_is_absurd_is_refused(changes: dict[str, int], says: str) -> None:
    with pytest.raises(CorruptImage, match=says):
        qcow2.virtual_size(header(**changes))


@given(st.binary(max_size=200))
def test_any_bytes_after_the_magic_end_in_a_size_or_a_sentence(data: bytes) -> None:
    with contextlib.suppress(CorruptImage):
        assert 512 <= qcow2.virtual_size(qcow2.MAGIC + data) <= MAX_DISK


@given(st.binary(max_size=1200))
def test_any_bytes_have_a_partition_table_or_not(data: bytes) -> None:
    padded = (b"\0" + data).ljust(510, b"\0")[:510] + b"\x55\xaa" + data.ljust(512, b"\0")
    if qcow2.is_disk(padded):
        with pytest.raises(CorruptImage, match="cut short"):
            qcow2.check_partitions(padded, 0)


def test_disks_are_known_by_their_content() -> None:
    assert qcow2.is_disk(header())
    assert qcow2.is_disk(gpt(100))
    assert qcow2.is_disk(mbr((0x80, 0x83, 2048, 100)).ljust(1024, b"\0"))
    assert not qcow2.is_disk(b"")
    assert not qcow2.is_disk(mbr().ljust(1024, b"\0"))  # a boot sector without a partition
    assert not qcow2.is_disk(mbr((0x41, 0x83, 1, 1)).ljust(1024, b"\0"))  # boot code
    assert not qcow2.is_disk(mbr((0, 0xEE, 1, 99)).ljust(1024, b"\0"))  # a GPT that is not there
    assert not qcow2.is_disk(b"etc/passwd".ljust(1024, b"\0"))


def test_a_disk_that_was_cut_short_is_refused() -> None:
    qcow2.check_partitions(gpt(100), 100 * 512)
    qcow2.check_partitions(mbr((0, 0x83, 10, 10)).ljust(1024, b"\0"), 20 * 512)
    for head in (gpt(100), mbr((0, 0x83, 10, 90)).ljust(1024, b"\0")):
        with pytest.raises(CorruptImage, match="51199 of its 51200 bytes"):
            qcow2.check_partitions(head, 100 * 512 - 1)
    with pytest.raises(CorruptImage, match="no partition table"):
        qcow2.check_partitions(bytes(1024), 1 << 30)


def test_a_larger_size_has_a_large_enough_table() -> None:
    assert qcow2.resized(header(), 5 * GIB) == {
        24: struct.pack(">Q", 5 * GIB),
        36: struct.pack(">I", 10),  # a table of 8192 clusters of 64 KiB maps 512 MiB
    }
    assert qcow2.resized(header(l1=100), 5 * GIB)[36] == struct.pack(">I", 100)


# The image


def config(size: int = 4 * GIB) -> ImageConfig:
    return ImageConfig(cmd=("/sbin/init",), labels={LABEL_DISK: Disk(size).label()})


def make(path: Path, data: bytes, config: ImageConfig) -> sif.Finished:
    with path.open("w+b") as file:
        file.seek(sif.payload_offset(config))
        file.write(data)
        file.flush()
        return sif.finish(file, config)


def test_a_disk_is_a_raw_data_partition(tmp_path: Path) -> None:
    data = header() + bytes(range(256))
    made = make(tmp_path / "disk.sif", data, config())
    with (tmp_path / "disk.sif").open("rb") as file:
        info, digest = sif.verify(file)
    assert digest == made.digest
    assert info.config.disk == Disk(4 * GIB)
    whole = (tmp_path / "disk.sif").read_bytes()
    assert whole[info.offset : info.offset + info.length] == data
    assert info.offset % 4096 == 0
    second = layout.TABLE_OFFSET + layout.DESCRIPTOR.size
    assert struct.unpack_from("<ii3s", whole, second + 201) == (4, 3, b"02\0")
    assert whole[second + 73 :].startswith(b"disk.qcow2\0")


def test_a_label_makes_no_disk_of_a_root_file_system(tmp_path: Path) -> None:
    with pytest.raises(CorruptImage, match="does not hold a qcow2"):
        make(tmp_path / "a.sif", b"hsqs" + bytes(100), config())


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "7", '{"size": "1g", "format": "qcow2"}', '{"size": 512}']
)
def test_a_malformed_label_is_refused(text: str) -> None:
    with pytest.raises(CorruptImage, match=LABEL_DISK):
        _ = ImageConfig(labels={LABEL_DISK: text}).disk


@pytest.mark.parametrize(("size", "kind"), [(0, "qcow2"), (513, "qcow2"), (512, "vmdk")])
def test_a_label_out_of_bounds_is_refused(size: int, kind: str) -> None:
    with pytest.raises(CorruptImage, match="out of bounds"):
        _ = ImageConfig(labels={LABEL_DISK: Disk(size, kind).label()}).disk


def test_a_container_of_a_disk_is_refused() -> None:
    refuse_disk(Image("sha256:1", 1, 1.0, 0, 1, ImageConfig()), "root")
    with pytest.raises(ImageNeedsVM, match="cloud is a disk image, which runs as a VM") as caught:
        refuse_disk(Image("sha256:1", 1, 1.0, 0, 1, config()), "cloud")
    assert "sublet run --vm cloud" in caught.value.hint
