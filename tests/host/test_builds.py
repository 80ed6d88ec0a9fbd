"""Builds, and what interrupts the making of images: nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import slowly
from imagelab import (
    Lab,
    archive,
    call,
    context,
    entry,
    make_layout,
    mounted,
    processes,
    until,
    write,
)
from registrylab import put

from sublet.domain.errors import (
    BuildFailed,
    DiskFull,
    InvalidArgument,
    PullFailed,
)

BASE = "debian:bookworm"


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

    based.lines.clear()
    again = await based.images.build(str(place), name="made:2", report=based.report)
    assert again.digest == image.digest
    assert any("Using cache" in line for line in based.lines), based.lines  # steps are kept

    (place / "Other").write_text("FROM made:1\nRUN test -e /copied\n")
    await based.images.build(place, file=place / "Other", name="derived")
    for name in ("derived", "made:1", "made:2"):
        await based.images.remove(name, in_use=set)
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


async def test_cancelled_build(based: Lab, tmp_path: Path) -> None:
    place = context(tmp_path / "ctx", f"FROM {BASE}\nRUN echo ready; sleep 98765\n")
    task = asyncio.create_task(based.images.build(place, name="never", report=based.report))
    await until(lambda: "ready" in based.lines or task.done())
    assert processes("sleep 98765")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not processes("sleep 98765"))
    await based.assert_clean()


@pytest.mark.parametrize("delay", [0.1, *slowly(0.02, 0.3, 0.6)])
async def test_cancelled_import(lab: Lab, base_file: Path, tmp_path: Path, delay: float) -> None:
    path = tmp_path / "changed.sif"
    shutil.copy(base_file, path)
    task = asyncio.create_task(lab.images.import_(path, name="never"))
    await asyncio.sleep(delay)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert lab.images.all() == []


@pytest.mark.parametrize("delay", [0.01, 0.1, 0.3, *slowly(0.03, 0.06, 0.15, 0.2, 0.4, 0.6)])
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


@pytest.mark.parametrize("moment", ["running apt-get update", *slowly("extracting")])
async def test_cancelled_bootstrap(lab: Lab, moment: str) -> None:
    task = asyncio.create_task(lab.images.pull("debian:trixie", report=lab.report))
    await until(lambda: task.done() or any(moment in line for line in lab.lines), 240)
    assert processes(str(lab.root))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not processes(str(lab.root)))
    assert not any("creating tarball" in line for line in lab.lines), "it ran to its end"


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
    await until(lambda: not processes("sleep 87654") and not processes(str(based.run)))
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


async def test_disk_full(tiny: Path, tmp_path: Path, base_file: Path) -> None:
    lab = Lab(tiny / "root")
    tree = tmp_path / "big"
    tree.mkdir()
    (tree / "noise").write_bytes(os.urandom(60 << 20))
    used = shutil.disk_usage(tiny).used
    for work in (
        lambda: lab.images.pack(str(tree), tmp_path / "x.sif"),
        lambda: lab.images.pack(str(make_layout(tmp_path / "l", noise())), tmp_path / "x.sif"),
        lambda: lab.images.import_(base_file, trust=True),
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


def noise(size: int = 60 << 20) -> bytes:
    return archive(entry("noise", os.urandom(size)))


@pytest.mark.parametrize("size", [60 << 20, 24 << 20], ids=["download", "unpacking"])
async def test_disk_full_in_a_pull(tiny: Path, tmp_path: Path, registry: str, size: int) -> None:
    """What was fetched does not stay on the full disk."""
    name = put(registry, "big:1", make_layout(tmp_path / "layout", noise(size)))
    lab = Lab(tiny / "root")
    with pytest.raises(DiskFull):
        await lab.images.pull(name)
    assert not list((lab.root / "downloads").glob("*/*"))
    await lab.assert_clean()
    lab.close()
