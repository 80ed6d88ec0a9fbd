"""Archives, layouts and files that strangers made: taken in or refused, never followed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from imagelab import (
    Lab,
    archive,
    check_rich,
    entry,
    make_layout,
    mounted,
    rich_layers,
)

from sublet.domain.errors import (
    CorruptImage,
    InvalidArgument,
)

BASE = "debian:bookworm"


# What comes from strangers


@pytest.mark.parametrize(
    "hostile",
    [
        [entry("../../../../tmp/sublet-escaped", b"x")],
        [entry("/tmp/../../tmp/sublet-escaped", b"x")],
        [entry("link", type=tarfile.SYMTYPE, linkname="/tmp"), entry("link/sublet-escaped", b"x")],
        [entry("d/hard", type=tarfile.LNKTYPE, linkname="../../../../etc/passwd")],
        [entry("hard", type=tarfile.LNKTYPE, linkname="/etc/passwd")],
    ],
)
async def test_hostile_archives_touch_nothing(
    lab: Lab, tmp_path: Path, hostile: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    path = tmp_path / "evil.tar"
    path.write_bytes(archive(entry("ok", b"x"), *hostile))
    with pytest.raises(CorruptImage):
        await lab.images.import_(path, name="evil")
    assert not Path("/tmp/sublet-escaped").exists()
    assert lab.images.all() == []


async def test_absolute_names_stay_inside(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "absolute.tar"
    path.write_bytes(archive(entry("/tmp/sublet-escaped", b"x")))
    image = await lab.images.import_(path)
    assert not Path("/tmp/sublet-escaped").exists()
    with mounted(lab.images.files.path(image.digest), image.offset, tmp_path / "m") as tree:
        assert (tree / "tmp" / "sublet-escaped").exists()


async def test_hostile_layers_touch_nothing(lab: Lab, tmp_path: Path) -> None:
    """containers-storage resolves names below the layer's root, whatever they say."""
    layers = (
        archive(entry("link", type=tarfile.SYMTYPE, linkname="/tmp")),
        archive(entry("link/sublet-escaped", b"x"), entry("../../tmp/sublet-escaped", b"x")),
        archive(entry("hard", type=tarfile.LNKTYPE, linkname="../../../../etc/hostname")),
    )
    for count in (2, 3):
        layout = make_layout(tmp_path / f"layout{count}", *layers[:count])
        with contextlib.suppress(CorruptImage):
            image = await lab.images.pack(str(layout), tmp_path / "out.sif")
            with mounted(tmp_path / "out.sif", image.offset, tmp_path / "m") as tree:
                assert not (tree / "hard").exists()
        assert not Path("/tmp/sublet-escaped").exists()


async def test_damaged_layouts_are_refused(lab: Lab, tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "layout", archive(entry("a", b"x" * 10000)))
    largest = max((layout / "blobs/sha256").iterdir(), key=lambda p: p.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[600] ^= 1
    largest.write_bytes(data)
    with pytest.raises(CorruptImage):
        await lab.images.pack(str(layout), tmp_path / "out.sif")
    (layout / "index.json").write_text('{"schemaVersion":2,"manifests":[{"digest":"sha256:../x"}]}')
    with pytest.raises(CorruptImage, match="malformed digest"):
        await lab.images.pack(str(layout), tmp_path / "out.sif")


async def test_foreign_files_are_packed_again_once(
    lab: Lab, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Lab(tmp_path_factory.mktemp("other"))
    lower, _ = rich_layers()
    (tmp_path / "rich.tar").write_bytes(lower)
    image = await other.images.import_(tmp_path / "rich.tar", name="rich")
    path = tmp_path / "rich.sif"
    await other.images.pack("rich", path)
    other.close()

    taken = await lab.images.import_(path, name="rich", report=lab.report)
    assert any("again" in line for line in lab.lines)
    with mounted(lab.images.files.path(taken.digest), taken.offset, tmp_path / "m") as tree:
        check_rich(tree, flattened=False)
    copy = tmp_path / "copy.sif"
    shutil.copy(path, copy)
    lab.lines.clear()
    assert (await lab.images.import_(copy, report=lab.report)).digest == taken.digest
    assert lab.lines == []
    trusted = Lab(tmp_path_factory.mktemp("trusting"))
    assert (await trusted.images.import_(path, trust=True)).digest == image.digest
    trusted.close()


async def test_files_without_our_checksums(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "hello").write_text("world")
    path = tmp_path / "x.sif"
    await lab.images.pack(str(tmp_path / "tree"), path)
    with path.open("r+b") as file:  # as Apptainer writes it
        file.write(b"#!/usr/bin/env run-singularity\n\0")
        file.seek(4096)
        file.write(b"\x01\x40\0\0")
        file.seek(4096 + 201)
        file.write(bytes(384))
    image = await lab.images.import_(path, name="foreign")
    assert image.config.cmd == ("/bin/sh",)
    with mounted(lab.images.files.path(image.digest), image.offset, tmp_path / "m") as tree:
        assert (tree / "hello").read_text() == "world"


async def test_damaged_squashfs_is_refused(lab: Lab, tmp_path: Path) -> None:
    """The checksums are right, the squashfs is not: the confined reader says so."""
    from sublet.domain.image import ImageConfig
    from sublet.image import sif

    path = tmp_path / "x.sif"
    with path.open("w+b") as file:
        file.seek(sif.payload_offset(ImageConfig()))
        file.write(b"hsqs" + os.urandom(20000))
        file.flush()
        sif.finish(file, ImageConfig())
    with pytest.raises(CorruptImage, match="cannot be read"):
        await lab.images.import_(path)


@pytest.mark.parametrize("damage", ["truncate", "flip", "magic", "not an image"])
async def test_damaged_files(lab: Lab, tmp_path: Path, damage: str) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "hello").write_bytes(os.urandom(50000))
    path = tmp_path / "x.sif"
    await lab.images.pack(str(tmp_path / "tree"), path)
    with path.open("r+b") as file:
        if damage == "truncate":
            file.truncate(50000)
        elif damage == "not an image":
            file.write(b"hello" * 500)
        else:
            file.seek(45000 if damage == "flip" else 32)
            file.write(b"\xff")
    with pytest.raises(CorruptImage):
        await lab.images.ensure(str(path))
    assert lab.images.all() == []


async def test_what_is_no_file(lab: Lab, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "none", tmp_path, tmp_path / "fifo", Path("/dev/null")):
        with pytest.raises(InvalidArgument):
            await lab.images.import_(path)
    with pytest.raises(InvalidArgument):
        await lab.images.pack(str(tmp_path), tmp_path / "no" / "such" / "x.sif")
