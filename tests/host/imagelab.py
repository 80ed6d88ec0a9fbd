"""What the image tests share: a lab with its own roots, hand-made archives and layouts."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import socket
import stat
import struct
import subprocess
import tarfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sublet.domain.config import Config
from sublet.domain.image import Image
from sublet.drivers.store.database import Database
from sublet.drivers.store.images import ImageStore
from sublet.engine.images import Images

PAX = "SCHILY.xattr."

CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
"""security.capability: cap_net_raw+ep (linux/capability.h, vfs_cap_data)."""


class Lab:
    """`Images` with a root of its own, and what was reported to it."""

    def __init__(self, root: Path, **settings: Any) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self.run = Path("/run") / f"sublet-test-{uuid.uuid4().hex[:8]}"
        self.database = Database(root / "sublet.db")
        self.images = Images(Config(root=root, run=self.run, **settings), ImageStore(self.database))
        self.lines: list[str] = []

    def report(self, line: str) -> None:
        self.lines.append(line)

    async def assert_clean(self) -> None:
        found = await self.images.leftovers()
        assert found == [], found
        assert [p for p in (self.root / "tmp").glob("*") if p.name != "build"] == []
        mounts = Path("/proc/self/mountinfo").read_text()
        assert str(self.root / "build") not in mounts
        assert str(self.run) not in mounts

    def close(self) -> None:
        self.database.close()
        shutil.rmtree(self.run, ignore_errors=True)


def call(*argv: str | Path) -> str:
    """The output of a tool that has to succeed."""
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout


@contextmanager
def mounted(file: Path, offset: int, place: Path) -> Iterator[Path]:
    """The squashfs of an image, mounted by the kernel."""
    place.mkdir(exist_ok=True)
    call("mount", "-t", "squashfs", "-o", f"loop,ro,offset={offset}", file, place)
    try:
        yield place
    finally:
        call("umount", place)


def entry(name: str, data: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mtime = 1_700_000_000
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def directory(name: str, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.DIRTYPE, **{"mode": 0o755, **fields})


def archive(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def make_layout(place: Path, *layers: bytes, **config: Any) -> Path:
    """An OCI layout directory with these layers (tar archives)."""
    blobs = place / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def add(data: bytes, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        media = f"application/vnd.oci.image.{kind}"
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(data)}

    entries = [add(layer, "layer.v1.tar") for layer in layers]
    outer = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [e["digest"] for e in entries]},
        "history": [{"created_by": "test"} for _ in entries],
    }
    made = add(json.dumps(outer).encode(), "config.v1+json")
    manifest = {"schemaVersion": 2, "config": made, "layers": entries}
    index = {
        "schemaVersion": 2,
        "manifests": [add(json.dumps(manifest).encode(), "manifest.v1+json")],
    }
    (place / "index.json").write_text(json.dumps(index))
    (place / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return place


def free_port() -> int:
    """A port that nobody has, nor gets from the kernel meanwhile (ip(7), ip_local_port_range)."""
    while True:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as opened:
            opened.bind(("0.0.0.0", port))
            return port


def context(place: Path, text: str) -> Path:
    place.mkdir(exist_ok=True)
    (place / "Containerfile").write_text(text)
    return place


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


async def make_image(lab: Lab, place: Path, name: str = "") -> Image:
    """A small image with content of its own."""
    path = write(place / f"{uuid.uuid4().hex}.tar", archive(entry("a", os.urandom(90000))))
    return await lab.images.import_(path, name=name)


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
