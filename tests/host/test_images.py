"""The image pipeline with the real tools, as root."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import shutil
import socket
import stat
import sys
import tarfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from imagelab import (
    CAPABILITY,
    Lab,
    archive,
    call,
    directory,
    entry,
    free_port,
    make_layout,
    mounted,
)

from sublet.domain.errors import (
    BuildFailed,
    CorruptImage,
    DiskFull,
    ImageInUse,
    InvalidArgument,
    NoSuchImage,
    PullFailed,
)
from sublet.drivers.registry import skopeo

BASE = "debian:bookworm"
PAX = "SCHILY.xattr."


@pytest.fixture(scope="session")
def bookworm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with Debian bookworm, made once by mmdebstrap."""
    lab = Lab(tmp_path_factory.mktemp("suite"))
    target = tmp_path_factory.mktemp("packed") / "bookworm.sif"

    async def make() -> None:
        await lab.images.ensure(BASE, report=lab.report)
        await lab.images.pack(BASE, target)
        await lab.assert_clean()

    try:
        asyncio.run(make())
    finally:
        lab.close()
    assert any("mmdebstrap" in line for line in lab.lines)
    return target


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    made = Lab(tmp_path / "root")
    try:
        yield made
        await made.assert_clean()
    finally:
        made.close()


@pytest.fixture
async def based(lab: Lab, bookworm: Path) -> Lab:
    """A lab in which debian:bookworm is there."""
    await lab.images.import_(bookworm, name=BASE, trust=True)
    return lab


def context(place: Path, text: str) -> Path:
    place.mkdir(exist_ok=True)
    (place / "Containerfile").write_text(text)
    return place


# A tree in which everything is that a packer could lose


def rich_layers() -> tuple[bytes, bytes]:
    pax = {f"{PAX}user.colour": "blue"}
    capability = {f"{PAX}security.capability": CAPABILITY.decode("utf-8", "surrogateescape")}
    lower = archive(
        directory("./", mode=0o755),
        directory("etc"),
        entry("etc/owned", b"x", mode=0o4751, uid=123456, gid=7),
        entry("etc/gone", b"x"),
        directory("opaque"),
        entry("opaque/old", b"x"),
        entry("first", b"linked", mode=0o640),
        entry("second", type=tarfile.LNKTYPE, linkname="first"),
        entry("link", type=tarfile.SYMTYPE, linkname="/etc/owned"),
        entry("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
        entry("fifo", type=tarfile.FIFOTYPE, mode=0o600),
        entry("coloured", b"x", pax_headers=pax),
        entry("able", b"x", mode=0o755, pax_headers=capability),
        entry("sparse", bytes(8 << 20) + b"end"),
        directory("sticky", mode=0o1777),
    )
    upper = archive(
        directory("etc"),
        entry("etc/.wh.gone"),
        directory("opaque"),
        entry("opaque/.wh..wh..opq"),
        entry("opaque/new", b"x"),
    )
    return lower, upper


def check_rich(tree: Path, flattened: bool) -> None:
    owned = (tree / "etc/owned").stat()
    assert (owned.st_uid, owned.st_gid) == (123456, 7)
    assert stat.S_IMODE(owned.st_mode) == 0o4751
    assert owned.st_mtime == 1_700_000_000
    assert (tree / "etc/gone").exists() is not flattened
    assert sorted(p.name for p in (tree / "opaque").iterdir()) == ["new" if flattened else "old"]
    first, second = (tree / "first").stat(), (tree / "second").stat()
    assert (first.st_ino, first.st_nlink) == (second.st_ino, 2)
    assert os.readlink(tree / "link") == "/etc/owned"
    null = (tree / "null").stat()
    assert stat.S_ISCHR(null.st_mode)
    assert null.st_rdev == os.makedev(1, 3)
    assert stat.S_ISFIFO((tree / "fifo").stat().st_mode)
    assert os.getxattr(tree / "coloured", "user.colour") == b"blue"
    assert os.getxattr(tree / "able", "security.capability") == CAPABILITY
    assert (tree / "sparse").stat().st_size == (8 << 20) + 3
    assert stat.S_IMODE((tree / "sticky").stat().st_mode) == 0o1777


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
        file.seek(sif.squashfs_offset(ImageConfig()))
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
        await lab.images.remove(image.digest, in_use={image.digest})
    await lab.images.remove("one", in_use={image.digest})
    await lab.images.remove("two:2", force=True, in_use={image.digest})
    assert lab.images.files.path(image.digest).exists()
    await lab.images.remove(image.digest, in_use=set())
    assert not lab.images.files.path(image.digest).exists()
    with pytest.raises(NoSuchImage):
        await lab.images.remove("one", in_use=set())


# Builds


async def test_build(based: Lab, tmp_path: Path) -> None:
    place = context(
        tmp_path / "ctx",
        f"ARG S=bookworm\nFROM debian:$S AS first\nRUN echo made > /made && chown 5:6 /made\n"
        f"FROM {BASE}\nCOPY --from=first /made /copied\nCOPY . /src\nRUN rm /etc/debian_version\n"
        'HEALTHCHECK CMD true\nEXPOSE 80\nENTRYPOINT ["/bin/cat"]\nCMD ["/copied"]\n',
    )
    (place / ".dockerignore").write_text("secret\n")
    (place / "secret").write_text("x")
    image = await based.images.build(place, name="made:1", report=based.report)
    assert image.names == ("made:1",)
    assert image.config.entrypoint == ("/bin/cat",)
    assert image.config.cmd == ("/copied",)
    assert image.config.healthcheck["Test"] == ["CMD-SHELL", "true"]
    assert any(line.endswith(f"FROM {BASE}") for line in based.lines)
    with mounted(based.images.files.path(image.digest), image.offset, tmp_path / "m") as tree:
        assert (tree / "copied").read_text() == "made\n"
        assert (tree / "copied").stat().st_gid == 6
        assert not (tree / "etc/debian_version").exists()
        assert not (tree / "src/secret").exists()
        assert (tree / "src/Containerfile").exists()

    began = time.monotonic()
    again = await based.images.build(str(place), name="made:2")
    assert again.digest == image.digest
    assert time.monotonic() - began < 3

    (place / "Other").write_text("FROM made:1\nRUN test -e /copied\n")
    await based.images.build(place, file=place / "Other", name="derived")
    for name in ("derived", "made:1", "made:2"):
        await based.images.remove(name, in_use=set())
    assert [image.names for image in based.images.all()] == [(BASE,)]


async def test_failing_build(based: Lab, tmp_path: Path) -> None:
    place = context(
        tmp_path / "ctx", f"FROM {BASE}\nRUN echo fine > /x\nRUN echo the reason >&2; exit 3\n"
    )
    with pytest.raises(BuildFailed, match="RUN echo the reason") as caught:
        await based.images.build(place, name="broken")
    assert "the reason" in caught.value.hint
    assert based.images.local("broken") is None


@pytest.mark.parametrize(
    ("text", "error"),
    [("FROM scratch\nCOPY nothing /\n", BuildFailed), ("FROM nonesuch:1\n", PullFailed)],
)
async def test_builds_that_cannot_begin(
    lab: Lab, tmp_path: Path, text: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await lab.images.build(context(tmp_path / "ctx", text))
    with pytest.raises(InvalidArgument):
        await lab.images.build(tmp_path / "nowhere")


async def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def processes(text: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line:
            found.append(line)
    return found


async def test_cancelled_build(based: Lab, tmp_path: Path) -> None:
    place = context(tmp_path / "ctx", f"FROM {BASE}\nRUN echo ready; sleep 98765\n")
    task = asyncio.create_task(based.images.build(place, name="never", report=based.report))
    await until(lambda: "ready" in based.lines or task.done())
    assert processes("sleep 98765")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not processes("sleep 98765"), 5)
    await based.assert_clean()


@pytest.mark.parametrize("delay", [0.02, 0.1, 0.3, 0.6])
async def test_cancelled_import(lab: Lab, bookworm: Path, delay: float) -> None:
    path = bookworm.with_name(f"changed-{delay}.sif")
    shutil.copy(bookworm, path)
    task = asyncio.create_task(lab.images.import_(path, name="never"))
    await asyncio.sleep(delay)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert lab.images.all() == []
    path.unlink()


@pytest.mark.parametrize("delay", [0.01, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6])
async def test_cancelled_anywhere(lab: Lab, tmp_path: Path, registry: str, delay: float) -> None:
    """A build, and a pull, are cancelled; the next one of each succeeds."""
    await lab.images.import_(write(tmp_path / "base.tar", archive(entry("a", b"x"))), name="base")
    place = context(tmp_path / "ctx", "FROM base\nCOPY big /b\nCOPY big /c\n")
    (place / "big").write_bytes(os.urandom(10 << 20))
    layout = make_layout(tmp_path / "layout", archive(entry("big", os.urandom(10 << 20))))
    target = f"{registry}/big:1"
    call("skopeo", "copy", "--dest-tls-verify=false", f"oci:{layout}", f"docker://{target}")
    works = (lambda: lab.images.build(place, name="made"), lambda: lab.images.pull(target))
    for work in works:
        task = asyncio.create_task(work())
        await asyncio.sleep(delay)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await lab.assert_clean()
    for work in works:
        image = await work()
        assert lab.images.files.path(image.digest).exists()


async def test_cancelled_bootstrap(lab: Lab) -> None:
    task = asyncio.create_task(lab.images.pull("debian:trixie", report=lab.report))
    await until(lambda: task.done() or any("extracting" in line for line in lab.lines), 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not processes(str(lab.root))


async def test_leftovers_of_a_killed_daemon(based: Lab, tmp_path: Path) -> None:
    """What a SIGKILL leaves is listed, and `clean` removes it."""
    builds = based.images.builds
    async with builds.opened() as inside:
        from sublet.drivers import run

        argv = inside(builds.buildah("from", "--pull=never", "scratch"))
        await run.run(argv, env=builds.environment)
    (based.root / "tmp" / "image-killed").mkdir(parents=True)
    (based.root / "images" / ("0" * 64 + ".sif")).write_bytes(b"x")
    place = based.root / "build" / "overlay" / "x"
    place.mkdir(parents=True)
    call("mount", "-t", "tmpfs", "tmpfs", place)
    found = {leftover.kind for leftover in await based.images.leftovers()}
    assert found >= {"build container", "mount", "file"}
    await based.images.clean()
    place.rmdir()
    assert await based.images.leftovers() == []
    assert based.images.local(BASE)


KILLED = """
import asyncio, sys
from pathlib import Path
from sublet.domain.config import Config
from sublet.drivers.store.database import Database
from sublet.drivers.store.images import ImageStore
from sublet.engine.images import Images
root, run, place = map(Path, sys.argv[1:])
images = Images(Config(root=root, run=run), ImageStore(Database(root / "sublet.db")))
asyncio.run(images.build(place))
"""


async def test_killed_daemon(based: Lab, tmp_path: Path) -> None:
    place = context(tmp_path / "ctx", f"FROM {BASE}\nRUN sleep 87654\n")
    argv = [sys.executable, "-c", KILLED, str(based.root), str(based.run), str(place)]
    daemon = await asyncio.create_subprocess_exec(*argv)
    await until(lambda: bool(processes("sleep 87654")))
    daemon.kill()
    await daemon.wait()
    await until(lambda: not processes("sleep 87654") and not processes(str(based.run)), 5)
    assert await based.images.leftovers()
    await based.images.clean()
    await based.assert_clean()


# Disk full


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MB, mounted."""
    disk, place = tmp_path / "disk", tmp_path / "tiny"
    place.mkdir()
    disk.touch()
    os.truncate(disk, 40 << 20)
    call("mkfs.ext4", "-q", "-O", "^has_journal", disk)
    call("mount", "-o", "loop", disk, place)
    yield place
    call("umount", place)


async def test_disk_full(tiny: Path, tmp_path: Path, bookworm: Path) -> None:
    lab = Lab(tiny / "root")
    tree = tmp_path / "big"
    tree.mkdir()
    (tree / "noise").write_bytes(os.urandom(60 << 20))
    used = shutil.disk_usage(tiny).used
    for work in (
        lambda: lab.images.pack(str(tree), tmp_path / "x.sif"),
        lambda: lab.images.pack(str(make_layout(tmp_path / "l", noise())), tmp_path / "x.sif"),
        lambda: lab.images.import_(bookworm, trust=True),
        lambda: lab.images.import_(write(tmp_path / "noise.tar", noise())),
        lambda: lab.images.pull("debian:trixie"),
    ):
        with pytest.raises(DiskFull):
            await work()
        await lab.assert_clean()
    with pytest.raises(DiskFull):
        await Lab(tmp_path / "roomy").images.pack(str(tree), tiny / "x.sif")
    assert not list(tiny.glob("*.sif"))
    assert shutil.disk_usage(tiny).used < used + (8 << 20)
    lab.close()


def noise() -> bytes:
    return archive(entry("noise", os.urandom(60 << 20)))


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


# Registries


async def test_pull(lab: Lab, tmp_path: Path, registry: str) -> None:
    layout = make_layout(tmp_path / "layout", *rich_layers(), Cmd=["/x"])
    target = f"docker://{registry}/team/rich:1"
    call("skopeo", "copy", "--dest-tls-verify=false", f"oci:{layout}", target)
    pulls = [lab.images.pull(f"{registry}/team/rich:1") for _ in range(3)]
    images = await asyncio.gather(*pulls)
    assert len({image.digest for image in images}) == 1
    image = images[0]
    assert image.config.cmd == ("/x",)
    with mounted(lab.images.files.path(image.digest), image.offset, tmp_path / "m") as tree:
        check_rich(tree, flattened=True)
    with pytest.raises(NoSuchImage, match="has no image"):
        await lab.images.pull(f"{registry}/team/rich:2")
    with pytest.raises(NoSuchImage, match="has no image"):
        await lab.images.pull(f"{registry}/none:1")


async def test_registries_that_do_not_answer(lab: Lab) -> None:
    with pytest.raises(PullFailed, match="cannot be reached: it refuses"):
        await lab.images.pull(f"127.0.0.1:{free_port()}/x:1")
    with pytest.raises(InvalidArgument):
        await lab.images.pull("UPPER CASE")


async def test_silent_registry(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry that accepts and says nothing is given up in seconds."""
    monkeypatch.setattr(skopeo, "ANSWER", 2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(PullFailed, match="did not answer"):
            await lab.images.pull(f"127.0.0.1:{port}/x:1")
        assert time.monotonic() - began < 8
