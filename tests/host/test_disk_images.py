"""Disks as images: taken in by their content, written again by the confined, never as they are."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest
from clilab import refused
from conftest import Sublet
from imagelab import Lab, call

from sublet.domain.disks import LABEL_DISK, Disk
from sublet.domain.errors import CorruptImage, ImageNeedsVM, InvalidArgument
from sublet.drivers import diskimage
from sublet.image import qcow2, sif

MIB = 1 << 20
SIZE = 64 * MIB


def raw_disk(path: Path, size: int = SIZE) -> Path:
    """A disk with one partition and some content, most of it a hole."""
    entry = struct.pack("<B3xB3xII", 0x80, 0x83, 2048, size // 512 - 2048)
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(446)
        file.write(entry.ljust(64, b"\0") + b"\x55\xaa")
        file.seek(MIB)
        file.write(b"content" * 100_000)
    return path


def as_qcow2(raw: Path, target: Path, *options: str) -> Path:
    call("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, raw, target)
    return target


def content(image: Path, place: Path) -> bytes:
    """What a VM would see of the disk in the image file."""
    with image.open("rb") as file:
        info = sif.read(file)
        file.seek(info.offset)
        place.with_suffix(".qcow2").write_bytes(file.read(info.length))
    call("qemu-img", "convert", "-f", "qcow2", "-O", "raw", place.with_suffix(".qcow2"), place)
    return place.read_bytes()


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
async def test_a_disk_becomes_an_image(lab: Lab, tmp_path: Path, kind: str) -> None:
    raw = raw_disk(tmp_path / "misleading.tar")
    source = raw if kind == "raw" else as_qcow2(raw, tmp_path / "misleading.sif")
    image = await lab.images.import_(source, name="cloud", report=lab.report)
    assert image.config.disk == Disk(SIZE)
    assert image.config.cmd == ("/sbin/init",)
    assert image.size < 2 * MIB
    assert content(lab.images.files.path(image.digest), tmp_path / "again") == raw.read_bytes()
    assert any("64.0 MiB" in line for line in lab.lines)


async def test_the_same_disk_makes_the_same_image(lab: Lab, tmp_path: Path) -> None:
    first, second = raw_disk(tmp_path / "first"), raw_disk(tmp_path / "second")
    os.utime(first, (1_700_000_000, 1_700_000_000))
    os.utime(second, (1_700_000_000, 1_700_000_000))
    images = [await lab.images.import_(path) for path in (first, second)]
    assert images[0].digest == images[1].digest


async def test_a_packed_disk_moves_to_another_host(lab: Lab, tmp_path: Path) -> None:
    raw = raw_disk(tmp_path / "raw")
    made = await lab.images.import_(raw, name="cloud")
    await lab.images.pack("cloud", tmp_path / "cloud.sif")
    other = Lab(tmp_path / "other")
    try:
        image = await other.images.import_(tmp_path / "cloud.sif", name="cloud", report=lab.report)
        assert any("again" in line for line in lab.lines)  # a stranger's: qemu-img wrote it anew
        assert image.config.disk == Disk(SIZE)
        file = other.images.files.path(image.digest)
        assert content(file, tmp_path / "again") == raw.read_bytes()
        trusted = await other.images.import_(tmp_path / "cloud.sif", trust=True)
        assert trusted.digest in (made.digest, image.digest)
        await other.assert_clean()
    finally:
        other.close()


def hostile(tmp_path: Path, what: str) -> Path:
    """A qcow2 that asks for more than its own bytes, or for absurdly many."""
    disk, raw = tmp_path / what, raw_disk(tmp_path / "raw")
    if what == "backing":
        call(
            "qemu-img", "create", "-q", "-f", "qcow2", "-b", "/etc/shadow", "-F", "raw", disk, SIZE
        )
    elif what == "data-file":
        data = tmp_path / "data"
        options = f"data_file={data},data_file_raw=on"
        call("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, disk, str(SIZE))
    elif what == "truncated":
        as_qcow2(raw, disk)
        whole = disk.read_bytes()
        disk.write_bytes(whole[: len(whole) - 3 * 65536])
    elif what == "garbage":
        disk.write_bytes(
            as_qcow2(raw, tmp_path / "sound").read_bytes()[:200] + bytes(range(256)) * 999
        )
    elif what == "absurd":
        call("qemu-img", "create", "-q", "-f", "qcow2", disk, "5T")
    elif what == "empty":
        call("qemu-img", "create", "-q", "-f", "qcow2", disk, "1G")
    else:
        raw.write_bytes(raw.read_bytes()[: SIZE // 2])
        return raw
    return disk


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("backing", "needs another file"),
        ("data-file", "needs another file"),
        ("truncated", "damaged or cut short"),
        ("garbage", "damaged or cut short"),
        ("absurd", "is the most"),
        ("empty", "no partition table"),
        ("raw cut short", "cut short"),
    ],
)
async def test_a_hostile_disk_is_refused_and_leaves_nothing(
    lab: Lab, tmp_path: Path, what: str, says: str
) -> None:
    with pytest.raises(CorruptImage, match=says):
        await lab.images.import_(hostile(tmp_path, what), name="cloud")
    assert lab.images.all() == []


async def test_a_sif_whose_label_lies_is_measured_anew(lab: Lab, tmp_path: Path) -> None:
    await lab.images.import_(raw_disk(tmp_path / "raw"), name="cloud")
    await lab.images.pack("cloud", tmp_path / "cloud.sif")
    with (tmp_path / "cloud.sif").open("r+b") as file:
        info = sif.read(file)
        file.seek(info.offset)
        disk = file.read(info.length)
        config = info.config.with_labels({LABEL_DISK: Disk(1 << 40).label()})
        file.truncate(0)
        file.seek(sif.payload_offset(config))
        file.write(disk)
        file.flush()
        sif.finish(file, config)
    other = Lab(tmp_path / "other")
    try:
        image = await other.images.import_(tmp_path / "cloud.sif")
        assert image.config.disk == Disk(SIZE)
    finally:
        other.close()


async def test_a_disk_is_no_base_of_a_build(lab: Lab, tmp_path: Path) -> None:
    await lab.images.import_(raw_disk(tmp_path / "raw"), name="cloud")
    place = tmp_path / "context"
    place.mkdir()
    (place / "Containerfile").write_text("FROM cloud\n")
    with pytest.raises(ImageNeedsVM, match="built upon"):
        await lab.images.build(place)


async def test_an_overlay_grows_and_is_sound(tmp_path: Path) -> None:
    """Our way to make a qcow2 larger is qemu-img's own, as its check says."""
    file = tmp_path / "disk.img"
    await diskimage.overlay(file, SIZE)
    assert file.stat().st_mode & 0o777 == 0o600
    call("qemu-io", "-f", "qcow2", "-c", f"write -P 7 {SIZE - MIB} 1M", file)
    diskimage.grow(file, 3 << 30)
    diskimage.grow(file, 3 << 30)
    call("qemu-io", "-f", "qcow2", "-c", f"write -P 8 {(3 << 30) - MIB} 1M", file)
    call("qemu-io", "-f", "qcow2", "-c", f"read -P 7 {SIZE - MIB} 1M", file)
    call("qemu-img", "check", "-f", "qcow2", file)
    found = json.loads(call("qemu-img", "info", "--output=json", "-f", "qcow2", file))
    assert found["virtual-size"] == 3 << 30
    with pytest.raises(InvalidArgument, match="cannot become smaller"):
        diskimage.grow(file, SIZE)
    assert qcow2.virtual_size(file.read_bytes()[:512]) == 3 << 30


def test_the_command_line_takes_a_disk_and_runs_no_container_of_it(
    sublet: Sublet, tmp_path: Path
) -> None:
    digest = sublet.ok("import", str(raw_disk(tmp_path / "disk")), "-t", "cloud:1")
    row = next(row for row in sublet.json("images", "--json") if row["name"] == "cloud:1")
    assert (row["digest"], row["disk"]) == (digest, {"size": SIZE, "format": "qcow2"})
    found = sublet.json("image", "inspect", "cloud:1")
    assert found["squashfs"] is None
    assert found["disk"]["length"] < 2 * MIB
    refused(sublet, "run", "cloud:1", says="cloud:1 is a disk image, which runs as a VM")
    refused(sublet, "create", "cloud:1", code=1, says="sublet run --vm cloud:1")
    sublet.ok("tag", "cloud:1", "localhost:1/cloud")
    refused(sublet, "push", "localhost:1/cloud", code=1, says="cannot be sent to a registry")
    sublet.ok("rmi", "cloud:1", "localhost:1/cloud")
