"""The shelf that images stand on: their files and their rows, kept in step.

A file is in its place before its row is written, and its row gone before the file is
removed: after a crash between the two, the file is one of nobody's, and goes.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from sublet.domain.image import Image, ImageConfig
from sublet.domain.leftover import Leftover
from sublet.drivers.store.files import ImageFiles
from sublet.drivers.store.images import ImageStore
from sublet.image import sif

PROMISE = 30.0


class Shelf:
    """The images of one daemon, and the locks of what is being made for it."""

    def __init__(self, root: Path, store: ImageStore) -> None:
        self.store = store
        self.files = ImageFiles(root)
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}
        self._used: Counter[str] = Counter()
        self._promised: dict[str, float] = {}

    def local(self, text: str) -> Image | None:
        """The image that a name, a digest or a known file's path means, if it is here.

        Takes microseconds: reads the database and stat(2), nothing else.
        """
        if not is_path(text):
            return self.store.find(text)
        try:
            known = self.store.hash_of(os.stat(text))
        except OSError:
            return None
        return self.store.get(known) if known else None

    async def keep(
        self, file: Path, config: ImageConfig, names: tuple[str, ...], source: str = ""
    ) -> Image:
        """Finish a file that this host packed (from `source`), and record it."""
        finished = await asyncio.to_thread(self.files.finish, file, config)
        self.store.mark_packed(finished.digest)
        return self.record(file, finished, names, source)

    def record(
        self, file: Path, finished: sif.Finished, names: tuple[str, ...], source: str = ""
    ) -> Image:
        """Put a complete, synced file in its place, and record it."""
        image = image_of(finished)
        self.files.place(file, image.digest)
        self.store.put(image)
        if source:
            self.store.remember_source(source, image.digest)
        return self.named(image, names)

    def named(self, image: Image, names: tuple[str, ...]) -> Image:
        """The image, with these names as well."""
        for name in names:
            self.store.tag(name, image.digest)
        return self.store.get(image.digest) or image

    def delete(self, image: Image) -> None:
        """Take the image off the shelf."""
        self.store.delete(image.digest)
        self.files.remove(image.digest)

    @contextmanager
    def using(self, digest: str) -> Iterator[None]:
        """While an operation reads the image, nobody removes it."""
        self._used[digest] += 1
        try:
            yield
        finally:
            self._used[digest] -= 1
            if not self._used[digest]:
                del self._used[digest]

    def is_used(self, digest: str) -> bool:
        """Whether an operation reads the image at the moment."""
        return digest in self._used

    def promise(self, digest: str) -> None:
        """Keep the image from being collected until an instance is made of it, which is
        about to happen: for PROMISE seconds at most."""
        now = time.monotonic()
        self._promised = {each: end for each, end in self._promised.items() if end > now}
        self._promised[digest] = now + PROMISE

    def redeem(self, digest: str) -> None:
        """The instance is there, and keeps the image itself."""
        self._promised.pop(digest, None)

    def is_promised(self, digest: str) -> bool:
        return self._promised.get(digest, 0) > time.monotonic()

    def clean(self) -> None:
        """Remove what a killed daemon left, forget images whose file is gone."""
        self.files.prepare()
        self.files.clean()
        here, known = self.files.digests(), {image.digest for image in self.store.every()}
        for digest in here - known:
            self.files.remove(digest)
        for digest in known - here:
            self.store.delete(digest)
        self.store.forget_strays()

    def leftovers(self) -> list[Leftover]:
        """Files that belong to nobody."""
        known = {image.digest for image in self.store.every()}
        strays = [self.files.path(digest) for digest in self.files.digests() - known]
        return [Leftover("file", str(path)) for path in [*self.files.leftovers(), *strays]]

    def taken(self, key: str) -> bool:
        """Whether `alone` would wait for another one."""
        return key in self._locks

    @asynccontextmanager
    async def alone(self, key: str) -> AsyncIterator[bool]:
        """One at a time per key; the value tells whether another one was waited for."""
        lock, users = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = (lock, users + 1)
        waited = lock.locked()
        try:
            async with lock:
                yield waited
        finally:
            _, users = self._locks.pop(key)
            if users > 1:
                self._locks[key] = (lock, users - 1)


def is_path(text: str) -> bool:
    """Whether `text` is the path of a file, and not an image's name."""
    return text.startswith(("/", "./", "../"))


def image_of(finished: sif.Finished) -> Image:
    """What is recorded of a complete file."""
    info = finished.info
    created = sif.epoch(info.config.created) or time.time()
    return Image(finished.digest, info.size, created, info.offset, info.length, info.config)
