"""The image files of this host: SUBLET_ROOT/images/<hex digest>.sif, and what is on its way.

A file comes into its place whole: written as a temporary, synced, renamed.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sublet.domain.errors import CorruptImage, DiskFull, InvalidArgument
from sublet.domain.image import ImageConfig
from sublet.drivers.descriptors import DIRECTORY, opened, sync
from sublet.image import sif

CHUNK = 1 << 30


@contextmanager
def translated() -> Iterator[None]:
    """A full disk becomes DiskFull."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull("No space left on the host for the image.") from error
        raise


def open_regular(path: Path) -> BinaryIO:
    """The user's file, opened for reading; a FIFO or a device is refused, not waited for.

    Raises InvalidArgument.
    """
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror}.") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise InvalidArgument(f"{path} is not a file.")
    return file


class ImageFiles:
    """Places below the daemon's root."""

    def __init__(self, root: Path) -> None:
        self.images, self.temporaries = root / "images", root / "tmp"
        self._open: set[Path] = set()

    def prepare(self) -> None:
        """Make the directories."""
        self.images.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Passable, not readable: apt fetches packages as a user of its own.
        self.temporaries.mkdir(mode=0o711, parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Where the image of this digest lies."""
        return self.images / f"{digest.removeprefix('sha256:')}.sif"

    @contextmanager
    def temporary(self) -> Iterator[Path]:
        """A new directory for what is on its way; it goes with all that is in it."""
        self.prepare()
        path = self.temporaries / f"image-{uuid.uuid4().hex}"
        self._open.add(path)
        try:
            with translated():
                path.mkdir(mode=0o711)
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
            self._open.discard(path)

    def finish(self, file: Path, config: ImageConfig) -> sif.Finished:
        """Complete the file that holds a squashfs; it is on the disk then."""
        with translated(), file.open("r+b") as opened:
            return sif.finish(opened, config)

    def place(self, file: Path, digest: str) -> Path:
        """Move the complete, synced file to where its digest belongs."""
        target = self.path(digest)
        file.chmod(0o444)
        os.rename(file, target)
        sync(target.parent)
        return target

    def remove(self, digest: str) -> None:
        """Delete the file of this digest; no error if it is not there."""
        self.path(digest).unlink(missing_ok=True)

    def digests(self) -> set[str]:
        """The digests of the files that are here."""
        return {f"sha256:{path.stem}" for path in self.images.glob("*.sif")}

    def leftovers(self) -> list[Path]:
        """Temporaries of nobody: a killed daemon's."""
        if not self.temporaries.is_dir():
            return []
        return [p for p in self.temporaries.glob("image-*") if p not in self._open]

    def clean(self) -> None:
        """Remove the temporaries of nobody."""
        for path in self.leftovers():
            shutil.rmtree(path, ignore_errors=True)


def copy(
    source: BinaryIO,
    target: BinaryIO,
    start: int = 0,
    length: int | None = None,
    *,
    offset: int = 0,
) -> None:
    """Copy bytes of `source` from `start` on to `offset` in `target`.

    Blocks are shared where the file system can. Raises DiskFull, CorruptImage.
    """
    end = os.fstat(source.fileno()).st_size if length is None else start + length
    move: Callable[[int, int, int, int, int], int] = os.copy_file_range
    with translated():
        while start < end:
            try:
                done = move(
                    source.fileno(), target.fileno(), min(end - start, CHUNK), start, offset
                )
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                    raise
                if move is _move:
                    raise
                move = _move  # between two file systems
                continue
            if done == 0:
                raise CorruptImage("The file became shorter while it was read.")
            start, offset = start + done, offset + done


def _move(source: int, target: int, count: int, start: int, offset: int) -> int:
    data = os.pread(source, min(count, 1 << 20), start)
    return os.pwrite(target, data, offset) if data else 0


def copy_to(source: BinaryIO, target: Path, start: int = 0, length: int | None = None) -> None:
    """As `copy`, into a new file."""
    with translated(), target.open("xb") as writer:
        copy(source, writer, start, length)


def publish(source: Path, output: Path) -> None:
    """Copy an image to where the user wants it, executable, whole or not at all.

    The copy has no name until it is complete (O_TMPFILE), so a crash leaves nothing.
    Raises InvalidArgument, DiskFull.
    """
    try:
        with (
            translated(),
            source.open("rb") as reader,
            _unnamed(output) as writer,
            opened("/proc/self/fd", DIRECTORY) as descriptors,
        ):
            copy(reader, writer)
            os.fchmod(writer.fileno(), 0o755)
            os.fsync(writer.fileno())
            name = output.with_name(f".{output.name[:200]}.{uuid.uuid4().hex[:8]}")
            # Python calls linkat(2), which alone follows the link, only where a dir_fd is given.
            number = str(writer.fileno())
            os.link(number, name, src_dir_fd=descriptors, follow_symlinks=True)
            try:
                os.rename(name, output)
            except OSError:
                name.unlink()
                raise
        sync(output.parent)
    except OSError as error:
        raise InvalidArgument(f"{output} cannot be written: {error.strerror}.") from error


def _unnamed(output: Path) -> BinaryIO:
    flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
    return os.fdopen(os.open(output.parent, flags, 0o600), "r+b")
