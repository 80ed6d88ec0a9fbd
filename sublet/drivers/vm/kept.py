"""Kernels that are kept for as long as some memory needs them.

A guest's memory goes on with the very kernel that it was saved with, while `make setup` builds the
initramfs anew, and the distribution replaces its kernels. So what a machine boots is a copy in
`ROOT/kernels/IDENTITY`, which nobody changes: made at its first use, and gone when it is not the
newest any more, and no machine that runs, no template and no saved memory names it.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sublet.domain.config import Config
from sublet.domain.errors import MemoryUnusable, ProcessFailed, ToolMissing
from sublet.drivers import files, reflink
from sublet.drivers.descriptors import sync
from sublet.drivers.pool import Pool
from sublet.drivers.vm.kernels import PARTS, Kernel, found, newest
from sublet.drivers.vm.memory import PARTIAL, MemoryImage
from sublet.drivers.vm.shape import kernel_of

log = logging.getLogger(__name__)


class KeptKernels:
    """The copies of one daemon."""

    def __init__(self, config: Config, pool: Pool) -> None:
        self.directory = config.root / "kernels"
        self._running, self._pool = config.run / "instances", pool
        self._making = asyncio.Lock()

    async def of(self, memory: MemoryImage | None) -> Kernel:
        """What a machine boots: the newest kernel, or the one that its memory was saved with, while
        that is there. Raises ToolMissing, MemoryUnusable."""
        wanted = kernel_of(memory.shape) if memory else ""
        if kept := await self.find(wanted):
            return kept
        installed = found() if wanted else []
        same = (kernel for kernel in installed if kernel.identity == wanted)
        return await self.keep(next(same, None) or newest())

    async def keep(self, kernel: Kernel) -> Kernel:
        """The copy of an installed kernel; that itself where there is no room for one."""
        async with self._making:
            try:
                return await asyncio.to_thread(self._kept, kernel)
            except (OSError, ProcessFailed) as error:
                log.warning("the kernel of VMs is not kept: %s", error)
                return kernel

    async def find(self, identity: str) -> Kernel | None:
        """The copy of that identity, if it is there and is what it was."""
        return await asyncio.to_thread(self._find, identity)

    def _find(self, identity: str) -> Kernel | None:
        if not identity or identity != Path(identity).name or identity.endswith(PARTIAL):
            return None  # it comes from a file beside a memory image
        kernel = Kernel(identity.rpartition("-")[0], self.directory / identity)
        return kernel if kernel.complete and kernel.identity == identity else None

    def _kept(self, kernel: Kernel) -> Kernel:
        identity = kernel.identity
        if found := self._find(identity):
            return found
        target = self.directory / identity
        partial = target.with_name(target.name + PARTIAL)
        try:
            for directory in (partial, target):  # a target that is there is damaged
                shutil.rmtree(directory, ignore_errors=True)
            self._copy(kernel, partial)
            partial.rename(target)
            sync(self.directory)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return self._find(identity) or kernel  # it was replaced while it was copied

    @staticmethod
    def _copy(kernel: Kernel, target: Path) -> None:
        target.mkdir(mode=0o700, parents=True)
        for name in PARTS:
            reflink.copy_file(kernel.directory / name, target / name)
            (target / name).chmod(0o444)  # any QEMU opens it anew
            sync(target / name)
        sync(target)

    async def collect(self) -> None:
        """Remove all but the newest, and those that something names."""
        if files.entries(self.directory):
            async with self._making:
                wanted = {await asyncio.to_thread(_newest), *self._named()}
                for name in set(files.entries(self.directory)) - wanted:
                    await files.remove(self.directory / name)

    def _named(self) -> Iterator[str]:
        """The identities that machines which run, templates and saved memory need."""
        for file in self._running.glob("*/shape"):
            with suppress(OSError):
                yield kernel_of(file.read_text())
        places = ("templates/*/shape", "*/*/memory-image/shape")
        for file in (file for place in places for file in self._pool.directory.glob(place)):
            with suppress(MemoryUnusable, OSError):
                yield kernel_of(MemoryImage(file.parent).shape)

    def half_made(self) -> list[Path]:
        """What a killed daemon left of copies."""
        if self._making.locked():
            return []
        names = files.entries(self.directory)
        return [self.directory / name for name in names if name.endswith(PARTIAL)]


def _newest() -> str:
    with suppress(ToolMissing):
        return newest().identity
    return ""
