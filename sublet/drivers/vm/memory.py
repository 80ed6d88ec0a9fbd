"""Memory images: a machine that stands still, in files, from which others go on.

A directory with three files:

    memory    the guest's RAM, raw and as large as it is; pages of zeros are holes
    devices   the state of all other devices, as QEMU wrote it (docs/devel/migration)
    shape     what machine it goes on in, the sizes of the other two, and a digest of `devices`

One mechanism serves templates, snapshots with memory, forks and hibernation. RAM is always a
private mapping of some file, its base, so a save copies the base with shared blocks, and over it
only the pages that the guest has changed. An image that belongs to one instance is opened as it
is; a template's is shared by many, and handed out as a sealed memfd that none of them can change.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from sublet.domain.errors import MemoryUnusable
from sublet.drivers.descriptors import opened
from sublet.drivers.reflink import extents
from sublet.drivers.vm.shape import differences

PARTIAL = ".partial"
"""What the name of an image ends with while it is made."""

MAGIC = b"QEVM"
"""How a state of devices begins (QEMU_VM_FILE_MAGIC)."""

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


@dataclass(frozen=True, slots=True)
class Source:
    """A memory image opened for one machine: descriptors of RAM and devices; `inode` is what
    /proc/PID/maps shows of the RAM, `base` a file of the same content."""

    memory: int
    devices: int
    base: Path
    disk: Path | None = None
    """A template's: the new disk that the guest had joined to its image by then."""

    @property
    def inode(self) -> int:
        """Of what will be mapped."""
        return os.fstat(self.memory).st_ino

    def close(self) -> None:
        """The machine has them, or never will."""
        os.close(self.memory)
        os.close(self.devices)


@dataclass(frozen=True, slots=True)
class MemoryImage:
    """The memory image in a directory, whether it is there or not."""

    directory: Path

    @property
    def memory(self) -> Path:
        return self.directory / "memory"

    @property
    def devices(self) -> Path:
        return self.directory / "devices"

    @property
    def disk(self) -> Path:
        """Beside a template's memory: the writable disk as it was then, if that was new."""
        return self.directory / "disk"

    @property
    def exists(self) -> bool:
        """Whether one has been saved here; it is whole then, unless something damaged it."""
        return (self.directory / "shape").exists()

    @property
    def shape(self) -> str:
        """The text of its machine's shape. Raises MemoryUnusable."""
        return str(self._described()["shape"])

    @property
    def stored(self) -> int:
        """The bytes that it takes on the disk, shared ones included."""
        with contextlib.suppress(FileNotFoundError):
            return sum(file.stat().st_blocks * 512 for file in self.directory.iterdir())
        return 0

    def check(self, shape: str) -> None:
        """See that it is whole and goes on in a machine of this shape. Raises MemoryUnusable."""
        described = self._described()
        if described["shape"] != shape:
            unlike = ", ".join(differences(str(described["shape"]), shape))
            raise MemoryUnusable(
                f"The memory in {self.directory} was saved from a machine that was different: "
                f"{unlike}."
            )
        for name in ("memory", "devices", *(["disk"] if "disk" in described else [])):
            file = self.directory / name
            size = file.stat().st_size if file.exists() else None
            if size != described[name]:
                what = "is missing" if size is None else f"has {size} of {described[name]} bytes"
                raise MemoryUnusable(f"The saved memory is not whole: {file} {what}.")
        if digest(self.devices) != described["digest"]:
            raise MemoryUnusable(f"The saved memory is damaged: {self.devices} has changed.")

    def _described(self) -> dict[str, object]:
        try:
            described = json.loads((self.directory / "shape").read_bytes())
            if described.keys() >= {"shape", "memory", "devices", "digest"}:
                return dict(described)
        except FileNotFoundError:
            raise MemoryUnusable(f"There is no saved memory in {self.directory}.") from None
        except (ValueError, AttributeError):
            pass
        raise MemoryUnusable(f"The saved memory is damaged: {self.directory}/shape is not ours.")

    def open(self, shape: str, uid: int) -> Source:
        """For the one machine that it belongs to, whose QEMU runs as `uid`.

        Raises MemoryUnusable.
        """
        self.check(shape)
        os.chown(self.memory, uid, uid)  # QEMU opens it anew, to write, and never does
        return self._opened(os.open(self.memory, os.O_RDWR | os.O_CLOEXEC))

    def share(self, sealed: int) -> Source:
        """For one of many machines; `sealed` is from `seal`, and stays the caller's."""
        return self._opened(fcntl.fcntl(sealed, fcntl.F_DUPFD_CLOEXEC, 3))

    def _opened(self, memory: int) -> Source:
        try:
            devices = os.open(self.devices, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            os.close(memory)
            raise
        return Source(memory, devices, self.memory, self.disk if self.disk.exists() else None)

    def seal(self) -> int:
        """A memfd with the RAM, which nobody can change any more (memfd_create(2)).

        Private mappings of it may be written to. It takes some milliseconds: use a thread.
        """
        fd = os.memfd_create("sublet-template", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with opened(self.memory) as source:
                os.ftruncate(fd, os.fstat(source).st_size)
                for start, end in extents(source):
                    os.lseek(fd, start, os.SEEK_SET)
                    while start < end:
                        start += os.sendfile(fd, source, start, end - start) or end - start
                os.posix_fadvise(source, 0, 0, os.POSIX_FADV_DONTNEED)  # it is here now
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        except OSError:
            os.close(fd)
            raise
        return fd


def digest(file: Path) -> str:
    """Of the state of devices, which has 0.3 MB. To read all of the RAM would take longer than a
    start: there, a changed byte shows no sooner than the guest meets it."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
