"""Parts of downloads, kept so that a broken pull goes on where it broke off.

SUBLET_ROOT/downloads/<algorithm>/<hex> is a blob that is whole and has its digest,
<hex>.part one that is on its way. They go when the image is packed; what a broken pull
leaves is kept for a week, and 10 GiB of it at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from sublet.domain.disk_usage import Usage
from sublet.domain.errors import CorruptImage

PART = ".part"
KEPT_SECONDS = 7 * 86400
KEPT_BYTES = 10 << 30


class Downloads:
    """The blobs of one daemon that are not in an image yet."""

    def __init__(self, root: Path) -> None:
        self.directory = root / "downloads"
        self._used: Counter[str] = Counter()
        self._locks: dict[str, asyncio.Lock] = {}

    def blob(self, digest: str) -> Path:
        """Where the blob of this (well-formed) digest lies when it is whole."""
        algorithm, _, value = digest.partition(":")
        return self.directory / algorithm / value

    def part(self, digest: str) -> Path:
        """Where it lies before."""
        whole = self.blob(digest)
        return whole.with_name(whole.name + PART)

    @contextmanager
    def using(self, digests: Collection[str]) -> Iterator[None]:
        """While a pull works with these blobs, nobody removes them."""
        self.trim()
        self._used.update(digests)
        for digest in digests:
            self.blob(digest).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            yield
        finally:
            self._used.subtract(digests)
            self._used = +self._used
            self._locks = {key: lock for key, lock in self._locks.items() if key in self._used}

    @asynccontextmanager
    async def alone(self, digest: str) -> AsyncIterator[None]:
        """One download at a time per blob."""
        async with self._locks.setdefault(digest, asyncio.Lock()):
            yield

    def keep(self, digest: str) -> None:
        """The part is complete: it becomes the blob, if it has its digest.

        Otherwise it goes. Raises CorruptImage.
        """
        part = self.part(digest)
        algorithm, _, value = digest.partition(":")
        with part.open("rb") as file:
            found = hashlib.file_digest(file, algorithm).hexdigest()
        if found != value:
            part.unlink()
            raise CorruptImage(
                f"The blob {digest[:19]} that the registry sent does not have its digest.",
                hint="Pull again; if that does not help, the registry's copy is damaged.",
            )
        part.rename(self.blob(digest))

    def drop(self, digests: Collection[str]) -> None:
        """Remove these blobs, but for those that another pull works with."""
        for digest in digests:
            if self._used[digest] <= 1:
                for path in (self.blob(digest), self.part(digest)):
                    path.unlink(missing_ok=True)

    def trim(self, *, seconds: float = KEPT_SECONDS, size: int = KEPT_BYTES) -> int:
        """Remove what is older than `seconds`, then the oldest until no more than `size` bytes
        are left, of what no pull works with; bytes freed."""
        found = sorted((stat.st_mtime, stat.st_blocks * 512, path) for path, stat in self._unused())
        total, freed, now = sum(entry[1] for entry in found), 0, time.time()
        for changed, length, path in found:
            if now - changed >= seconds or total - freed > size:
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
                freed += length
        return freed

    def reclaimable(self) -> int:
        """Bytes on the disk that no pull works with."""
        return sum(stat.st_blocks * 512 for _, stat in self._unused())

    def usage(self) -> Usage:
        """What all of them take."""
        sizes = [path.stat().st_blocks * 512 for path in self._files()]
        unused = [stat.st_blocks * 512 for _, stat in self._unused()]
        return Usage("downloads", len(sizes), len(sizes) - len(unused), sum(sizes), sum(unused))

    def _unused(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self._files():
            if f"{path.parent.name}:{path.name.removesuffix(PART)}" not in self._used:
                with contextlib.suppress(FileNotFoundError):
                    yield path, path.stat()

    def _files(self) -> Iterator[Path]:
        return self.directory.glob("*/*")
