"""Templates: the memory of guests that have booted and know nothing yet, for the next to resume.

`<pool>/templates/KEY` is a memory image; KEY names the shape of its machine, so that one of
another image, size, kernel or QEMU is never taken. It is made of the first guest of its shape
when that has booted and before it is told who it is, for that guest stands still for a fraction of
what its boot took, while a second boot for the template alone would take the host's CPUs from
it for seconds. Starts of the same shape that come meanwhile wait: booting as well, all of
them together would be ready later.

Clones share the pages of a memfd that the daemon makes of the template once. A template goes when
its image goes, when it has become another machine's, or as the least recently used.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sublet.domain.errors import MemoryUnusable, SubletError
from sublet.domain.units import MIB
from sublet.drivers import files
from sublet.drivers.pool import Pool
from sublet.drivers.vm import shelf
from sublet.drivers.vm.memory import PARTIAL, MemoryImage, Source
from sublet.drivers.vm.saving import Saving
from sublet.drivers.vm.shape import Platform, Shape

log = logging.getLogger(__name__)

RETRY = 60.0
"""Seconds for which no template is made after that has failed."""

LOADED, IDLE = 512 * MIB, 600.0
"""Bytes of templates that the daemon keeps in memory at most, and seconds since their last use."""

Background = Callable[[str, Coroutine[Any, Any, None]], object]


@dataclass(slots=True)
class Entry:
    """What the daemon knows of one key: who makes it, its memfd (-1: none), who is using it."""

    image: str = ""
    making: asyncio.Lock = field(default_factory=asyncio.Lock)
    loading: asyncio.Lock = field(default_factory=asyncio.Lock)
    sealed: int = -1
    used: float = 0.0
    failed: float = float("-inf")
    holders: int = 0
    doomed: bool = False

    @property
    def busy(self) -> bool:
        """Whether somebody starts from it, or makes it."""
        return self.holders > 0 or self.making.locked()

    @property
    def loaded(self) -> int:
        """Bytes of memory that it takes."""
        return os.fstat(self.sealed).st_blocks * 512 if self.sealed >= 0 else 0

    def unload(self) -> None:
        """Give the memory back; machines that run keep theirs."""
        if self.sealed >= 0:
            os.close(self.sealed)
            self.sealed = -1


class Turn:
    """One start: from a template (`source`), or by booting; if `makes`, the template is made of
    it: `begin`, and `keep` when the memory is copied."""

    def __init__(
        self, templates: Templates, shape: Shape, source: Source | None = None, makes: bool = False
    ) -> None:
        self._templates, self._shape = templates, shape
        self.source, self.makes = source, makes
        self._saving: Saving | None = None

    async def begin(self, base: Path | None) -> Saving:
        """Where to save the guest that has booted. Raises DiskFull."""
        target = self._templates.directory / self._shape.key
        shape = self._shape
        self._saving = await Saving.begin(target, shape.text, shape.memory, base)
        return self._saving

    def keep(self) -> None:
        """All is copied: put it on the disk in the background, and let others start from it."""
        if self._saving:
            self._templates.keep(self._shape, self._saving)
            self._saving, self.makes = None, False

    async def reject(self) -> None:
        """No machine could be started from the template: it goes."""
        await self._templates.reject(self._shape)

    async def close(self) -> None:
        """The start has ended, well or not."""
        if self.source:
            self.source.close()
        if self._saving:
            await self._saving.discard()
        if self.makes:
            self._templates.give_up(self._shape)


class Templates:
    """The templates of one daemon, `limit` bytes of them; `background` runs its tasks."""

    def __init__(self, pool: Pool, limit: int, background: Background) -> None:
        self._pool, self.limit, self._background = pool, limit, background
        self._entries: dict[str, Entry] = {}

    @property
    def directory(self) -> Path:
        """What holds all of them."""
        return self._pool.directory / "templates"

    @asynccontextmanager
    async def turn(self, shape: Shape) -> AsyncIterator[Turn]:
        """A machine of this shape is started meanwhile. Waits while another one of it boots."""
        entry = self._entry(shape.key)
        entry.image = shape.image
        entry.holders += 1
        try:
            turn = await self._turn(entry, shape)
            try:
                yield turn
            finally:
                await turn.close()
        finally:
            entry.holders -= 1
            if entry.doomed and not entry.busy:
                await self._remove(shape.key)

    async def _turn(self, entry: Entry, shape: Shape) -> Turn:
        began = time.monotonic()
        if not self.limit or began - entry.failed < RETRY:
            return Turn(self, shape, await self._open(entry, shape) if self.limit else None)
        if source := await self._open(entry, shape):
            return Turn(self, shape, source)
        await entry.making.acquire()
        try:
            source = await self._open(entry, shape)
        except BaseException:
            entry.making.release()
            raise
        makes = source is None and entry.failed < began
        if makes:
            entry.doomed = False
        else:
            entry.making.release()
        return Turn(self, shape, source, makes)

    async def _open(self, entry: Entry, shape: Shape) -> Source | None:
        image = MemoryImage(self.directory / shape.key)
        if not image.exists:
            return None
        try:
            image.check(shape.text)
            async with entry.loading:
                if entry.sealed < 0:
                    entry.sealed = await _sealed(image)
            entry.used = time.monotonic()
            os.utime(image.directory)
            return image.share(entry.sealed)
        except (MemoryUnusable, OSError) as error:
            log.warning("a template is not used: %s", error)
            await self.reject(shape)
            return None

    def keep(self, shape: Shape, saving: Saving) -> None:
        """Commit what a turn has saved, then let the waiting ones go on."""
        self._background(f"template {shape.key}", self._commit(shape, saving))

    async def _commit(self, shape: Shape, saving: Saving) -> None:
        entry = self._entry(shape.key)
        try:
            image = await saving.commit()
            async with entry.loading:
                entry.unload()
                entry.sealed = await _sealed(image)
            entry.used = time.monotonic()
        except (SubletError, OSError) as error:
            log.warning("no template could be made: %s", error)
            entry.failed = time.monotonic()
        finally:
            try:
                await saving.discard()
            finally:
                entry.making.release()
        await self.collect(shape.platform)
        if entry.doomed and not entry.busy:
            await self._remove(shape.key)

    def give_up(self, shape: Shape) -> None:
        """The machine that a template was to be made of did not come so far."""
        entry = self._entry(shape.key)
        entry.failed = time.monotonic()
        entry.making.release()

    async def reject(self, shape: Shape) -> None:
        """Drop a template that is of no use, whoever is starting from it."""
        self._entry(shape.key).unload()
        await files.remove(self.directory / shape.key)

    async def remove_image(self, digest: str) -> None:
        """The image is gone: so are its templates, when their last start has ended."""
        making = [k for k, entry in self._entries.items() if entry.busy and entry.image == digest]
        for key in {*shelf.of_image(self.directory, digest), *making}:
            entry = self._entry(key)
            entry.doomed = True
            if not entry.busy:
                await self._remove(key)

    async def collect(self, platform: Platform) -> None:
        """Remove what is of no use on this platform, and the least recently used beyond the
        limit; unload what has not been used for long."""
        keep_out = {key for key, entry in self._entries.items() if entry.busy}
        for key in shelf.surplus(self.directory, platform, self.limit, keep_out):
            await self.remove(key)
        self.unload()

    def sizes(self) -> dict[str, int]:
        """The bytes that each takes on the disk, by key."""
        keys = [key for key in files.entries(self.directory) if not key.endswith(PARTIAL)]
        return {key: MemoryImage(self.directory / key).stored for key in keys}

    def idle(self) -> list[str]:
        """The keys of those that nobody starts from at the moment: the next start boots without."""
        busy = {key for key, entry in self._entries.items() if entry.busy}
        return [key for key in self.sizes() if key not in busy]

    async def remove(self, key: str) -> None:
        """Remove one, unless it is in use. Machines that were started from it go on."""
        entry = self._entries.get(key)
        if entry is None or not entry.busy:
            await self._remove(key)

    def unload(self) -> None:
        """Give back the memory of templates that are idle, or beyond what may be kept."""
        kept, now = 0, time.monotonic()
        for entry in sorted(self._entries.values(), key=lambda e: e.used, reverse=True):
            kept += entry.loaded
            if (kept > LOADED or now - entry.used > IDLE) and not entry.loading.locked():
                kept -= entry.loaded
                entry.unload()

    def making(self) -> set[str]:
        """The keys of those that are being made."""
        return {key for key, entry in self._entries.items() if entry.making.locked()}

    async def _remove(self, key: str) -> None:
        with suppress(KeyError):
            self._entries.pop(key).unload()
        await files.remove(self.directory / key)

    def _entry(self, key: str) -> Entry:
        return self._entries.setdefault(key, Entry())

    def close(self) -> None:
        """Give back all memory."""
        for entry in self._entries.values():
            entry.unload()
        self._entries.clear()


async def _sealed(image: MemoryImage) -> int:
    """The image's memfd, which is the caller's; nobody's thread is left with one, nor when this is
    cancelled. Raises OSError."""
    sealing = asyncio.ensure_future(asyncio.to_thread(image.seal))
    try:
        return await asyncio.shield(sealing)
    except asyncio.CancelledError:
        with suppress(OSError):  # of the thread: it takes milliseconds
            os.close(await sealing)
        raise
