"""Images as files: packed without loss, found by name and digest, removed."""

from __future__ import annotations

import asyncio
import gzip
import os
import stat
from pathlib import Path

import pytest
from imagelab import (
    Lab,
    archive,
    call,
    check_rich,
    context,
    entry,
    make_image,
    make_layout,
    mounted,
    rich_layers,
)

from sublet.domain.errors import (
    ImageInUse,
    InvalidArgument,
    NoSuchImage,
)

BASE = "debian:bookworm"


async def test_oci_layout_is_flattened_without_loss(lab: Lab, tmp_path: Path) -> None:
    layout = make_layout(
        tmp_path / "layout:1", *rich_layers(), Cmd=["/x"], ExposedPorts={"80/tcp": {}}
    )
    output = tmp_path / "out.sif"
    image = await lab.images.pack(str(layout), output)
    assert (image.config.cmd, image.config.exposed_ports) == (("/x",), ("80/tcp",))
    assert stat.S_IMODE(output.stat().st_mode) == 0o755
    assert output.stat().st_size < 1 << 20  # the hole takes no room
    with mounted(output, image.offset, tmp_path / "m") as tree:
        check_rich(tree, flattened=True)
    assert lab.images.all() == []


async def test_tar_archives_are_packed_without_loss(lab: Lab, tmp_path: Path) -> None:
    lower, _ = rich_layers()
    path = tmp_path / "rootfs.tar.gz"
    path.write_bytes(gzip.compress(lower))
    image = await lab.images.import_(path, name="rich")
    with mounted(lab.images.files.path(image.digest), image.offset, tmp_path / "m") as tree:
        check_rich(tree, flattened=False)
    assert lab.images.local("rich:latest") == image


@pytest.mark.parametrize("tool", [["xz", "-1"], ["zstd", "-q"], ["bzip2"]])
async def test_compressed_archives(lab: Lab, tmp_path: Path, tool: list[str]) -> None:
    path = tmp_path / "rootfs.tar"
    path.write_bytes(archive(entry("a", b"x" * 5000)))
    call(*tool, path)
    (packed,) = tmp_path.glob("rootfs.tar.*")
    image = await lab.images.import_(packed)
    with mounted(lab.images.files.path(image.digest), image.offset, tmp_path / "m") as tree:
        assert (tree / "a").stat().st_size == 5000


async def test_directories_are_packed_reproducibly(lab: Lab, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    (tree / "d" / "file").write_text("x")
    os.setxattr(tree / "d" / "file", "trusted.overlay.redirect", b"/etc")
    os.setxattr(tree / "d" / "file", "user.kept", b"1")
    os.chown(tree / "d" / "file", 33, 44)
    first = await lab.images.pack(str(tree), tmp_path / "a.sif")
    await asyncio.sleep(1.1)  # a time of day in the file would show
    second = await lab.images.pack(str(tree), tmp_path / "b.sif")
    assert (tmp_path / "a.sif").read_bytes() == (tmp_path / "b.sif").read_bytes()
    assert first.digest == second.digest
    with mounted(tmp_path / "a.sif", first.offset, tmp_path / "m") as inside:
        assert os.listxattr(inside / "d" / "file") == ["user.kept"]
        assert (inside / "d" / "file").stat().st_uid == 33


async def test_other_tools_open_the_file(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "hello").write_text("world")
    output = tmp_path / "x.sif"
    image = await lab.images.pack(str(tmp_path / "tree"), output)
    listing = call("unsquashfs", "-o", str(image.offset), "-lln", output)
    assert "squashfs-root/hello" in listing
    place = tmp_path / "fuse"
    place.mkdir()
    call("squashfuse", "-o", f"offset={image.offset}", output, place)
    try:
        assert (place / "hello").read_text() == "world"
    finally:
        call("umount", place)


# Finding and removing


async def test_paths_are_found_again_at_once(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    path = tmp_path / "x.sif"
    await lab.images.pack(str(tmp_path / "tree"), path)
    await asyncio.sleep(0.1)
    image = await lab.images.ensure(str(path))
    assert lab.images.local(str(path)) == image
    assert image.names == ()
    os.utime(path, (1, 1))
    assert lab.images.local(str(path)) is None
    assert (await lab.images.ensure(str(path))).digest == image.digest


async def test_names_and_digests(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(archive(entry("a", b"x")))
    image = await lab.images.import_(tmp_path / "a.tar", name="one")
    await lab.images.import_(tmp_path / "a.tar", name="two:2")
    digits = image.digest[7:]
    for text in ("one", "one:latest", "docker.io/library/two:2", image.digest, digits[:6], digits):
        found = lab.images.local(text)
        assert found
        assert found.digest == image.digest
    assert lab.images.local(digits[:5]) is None
    with pytest.raises(NoSuchImage):
        await lab.images.ensure("sha256:" + "0" * 64)

    with pytest.raises(ImageInUse):
        await lab.images.remove(image.digest, in_use=lambda: {image.digest})
    await lab.images.remove("one", in_use=lambda: {image.digest})
    await lab.images.remove("two:2", force=True, in_use=lambda: {image.digest})
    assert lab.images.files.path(image.digest).exists()
    await lab.images.remove(image.digest, in_use=set)
    assert not lab.images.files.path(image.digest).exists()
    with pytest.raises(NoSuchImage):
        await lab.images.remove("one", in_use=set)


async def test_history_and_labels_survive(lab: Lab, tmp_path: Path) -> None:
    """From a layout to a build's base, through the build, to a file and back."""
    check = {"Test": ["CMD", "true"], "Interval": 5000000000}
    layers = archive(entry("a", b"x")), archive(entry("b", b"x"))
    layout = make_layout(tmp_path / "layout", *layers, Labels={"x": "y"}, Healthcheck=check)
    await lab.images.pack(str(layout), tmp_path / "first.sif")
    first = await lab.images.import_(tmp_path / "first.sif", name="first")
    assert [step.created_by for step in first.config.history] == ["test", "test"]
    place = context(tmp_path / "ctx", "FROM first\nLABEL z=1\nCOPY Containerfile /c\n")
    second = await lab.images.build(place, name="second")
    steps = second.config.history
    assert [step.created_by for step in steps[:2]] == ["test", "test"]
    assert [step.empty_layer for step in steps[:2]] == [True, False]
    assert "COPY" in steps[-1].created_by
    assert {"x", "z"} <= set(second.config.labels)
    assert second.config.healthcheck["Test"] == ["CMD", "true"]


async def test_tags(lab: Lab, tmp_path: Path) -> None:
    image = await make_image(lab, tmp_path, "one")
    other = await make_image(lab, tmp_path, "two")
    assert lab.images.tag("one", "r.example:5000/team/three:3").names == (
        "one:latest",
        "r.example:5000/team/three:3",
    )
    assert lab.images.tag(image.digest, "two").digest == image.digest
    assert lab.images.get(other.digest).names == ()
    for source, name in (("none", "x"), ("one", "X Y"), ("one", f"x@{image.digest}")):
        with pytest.raises((NoSuchImage, InvalidArgument)):
            lab.images.tag(source, name)
    with pytest.raises(ImageInUse, match="several names"):
        await lab.images.remove(image.digest, in_use=set)
    removed = await lab.images.remove(image.digest, force=True, in_use=set)
    assert len(removed.names) == 3
    assert [each.digest for each in lab.images.all()] == [other.digest]
    assert [each.digest for each in lab.images.all(["dangling=true"])] == [other.digest]
