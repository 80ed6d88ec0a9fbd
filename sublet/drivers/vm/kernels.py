"""The kernels that guests boot: one directory for each version, made by `make setup`.

.venv/libexec/kernels/VERSION/vmlinuz            the distribution's kernel
.venv/libexec/kernels/VERSION/initramfs          our init and the modules that it loads first
.venv/libexec/kernels/VERSION/modules.squashfs   /lib/modules/VERSION
"""

from __future__ import annotations

import functools
import hashlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from sublet.domain.errors import ToolMissing
from sublet.drivers import files

DIRECTORY = Path(sys.executable).parent.parent / "libexec" / "kernels"
"""Where scripts/setup puts them."""

PARTS = ("vmlinuz", "initramfs", "modules.squashfs")
"""The files of each."""

_PART = re.compile(r"\d+|[^\d]+")


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel and what goes with it; `version` as its `uname -r` says."""

    version: str
    directory: Path

    @property
    def vmlinuz(self) -> Path:
        """What QEMU loads (`-kernel`)."""
        return self.directory / "vmlinuz"

    @property
    def initramfs(self) -> Path:
        """The first root, with our init in it (`-initrd`)."""
        return self.directory / "initramfs"

    @property
    def modules(self) -> Path:
        """/lib/modules/VERSION, a squashfs: the guest's disk `modules`."""
        return self.directory / "modules.squashfs"

    @property
    def complete(self) -> bool:
        """Whether all three files are there."""
        return all((self.directory / name).is_file() for name in PARTS)

    @property
    def identity(self) -> str:
        """The version, and a digest of all that a booted guest has from here: a memory image
        goes with no other."""
        parts = [self.directory / name for name in PARTS]
        stamps = tuple((str(file), *_stamp(file)) for file in parts)
        return f"{self.version}-{_digest(stamps)[:16]}"


def found(directory: Path = DIRECTORY) -> list[Kernel]:
    """The complete kernels, the newest version last."""
    kernels = [Kernel(name, directory / name) for name in files.entries(directory)]
    return sorted((k for k in kernels if k.complete), key=lambda k: order(k.version))


def newest(directory: Path = DIRECTORY) -> Kernel:
    """The kernel that new guests boot. Raises ToolMissing where there is none."""
    kernels = found(directory)
    if not kernels:
        raise ToolMissing(f"There is no kernel for VMs in {directory}.")
    return kernels[-1]


def order(version: str) -> list[tuple[int, int | str]]:
    """Sorts versions as people count: 6.1.0-9 comes before 6.1.0-10."""
    parts = _PART.findall(version)
    return [(1, int(part)) if part.isdigit() else (0, part) for part in parts]


def _stamp(file: Path) -> tuple[int, int, int]:
    status = file.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


@functools.lru_cache(maxsize=32)
def _digest(stamps: tuple[tuple[str, int, int, int], ...]) -> str:
    """Of the files' contents; read again only where a file is another one than before."""
    whole = hashlib.sha256()
    for name, *_ in stamps:
        with open(name, "rb") as opened:
            whole.update(hashlib.file_digest(opened, "sha256").digest())
    return whole.hexdigest()
