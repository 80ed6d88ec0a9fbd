"""What QEMU is asked while it runs, over its monitor (QMP): to stand still, to go on, and for the
state of its devices. A start needs none of it: a restored machine runs by itself.

One connection for each purpose, closed after it: QEMU answers one at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qemu.qmp import ExecuteError, QMPClient, QMPError

from sublet.domain.errors import ProcessFailed, WrongState
from sublet.drivers.descriptors import connected, opened

DEADLINE = 30.0
"""Seconds that an answer may take: under load a virtual CPU is slow to stand still."""

logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)  # what it complains of, it raises, too


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a virtual CPU may be plugged in: QEMU's name of its kind, and its place."""

    driver: str
    props: tuple[tuple[str, int], ...]

    @property
    def order(self) -> tuple[int, ...]:
        """Sorts them as a machine that boots with them has them."""
        place = dict(self.props)
        names = ("socket-id", "die-id", "cluster-id", "core-id", "thread-id")
        return tuple(place.get(name, 0) for name in names)


class Monitor:
    """A connection to one QEMU. Its verbs raise WrongState where that has ended, ProcessFailed
    where it refuses or does not answer in time."""

    def __init__(self, client: QMPClient) -> None:
        self._client = client

    async def _execute(self, command: str, **arguments: object) -> Any:
        with _translated(command):
            async with asyncio.timeout(DEADLINE):
                return await self._client.execute(command, arguments)

    async def stop(self) -> None:
        """No virtual CPU runs any more, no disk is written to."""
        await self._execute("stop")

    async def resume(self) -> None:
        """They run again."""
        await self._execute("cont")

    async def running(self) -> bool:
        """Whether they run."""
        return bool((await self._execute("query-status"))["running"])

    async def vcpus(self) -> tuple[int, list[Slot]]:
        """How many there are, and where there may be more, in the order in which they come."""
        places = await self._execute("query-hotpluggable-cpus")
        free = [Slot(p["type"], tuple(p["props"].items())) for p in places if "qom-path" not in p]
        return len(places) - len(free), sorted(free, key=lambda slot: slot.order)

    async def memory(self) -> tuple[int, list[int]]:
        """Bytes that it has booted with, and those of what was plugged in since."""
        plugged = await self._execute("query-memory-devices")
        summary = await self._execute("query-memory-size-summary")
        return int(summary["base-memory"]), [int(each["data"]["size"]) for each in plugged]

    async def code(self) -> tuple[int, int] | None:
        """Bytes of translated code, and of all that may be there; None under KVM."""
        try:
            told = await self._execute("x-query-jit")
        except ProcessFailed:
            return None
        found = re.search(r"gen code size\s+(\d+)/(\d+)", told["human-readable-text"])
        return (int(found[1]), int(found[2])) if found else None

    async def plug_vcpu(self, slot: Slot) -> None:
        """One more virtual CPU."""
        await self._execute("device_add", driver=slot.driver, **dict(slot.props))

    async def plug_memory(self, number: int, size: int) -> None:
        """A module of `size` bytes of memory more, in pages of its own; all of it, or nothing."""
        backend = f"more{number}"
        options = {"size": size, "merge": False, "dump": False}
        kind = {"qom-type": "memory-backend-ram", "id": backend}
        await self._execute("object-add", **kind, **options)
        try:
            await self._execute("device_add", driver="pc-dimm", id=f"dimm{number}", memdev=backend)
        except BaseException:
            with contextlib.suppress(ProcessFailed, WrongState):
                await asyncio.shield(self._execute("object-del", id=backend))
            raise

    async def save_devices(self, fd: int) -> None:
        """Write the state of all devices, RAM excepted, into the file; the machine stands still."""
        with opened(f"/proc/self/fd/{fd}", os.O_WRONLY) as writable:  # no other mode is taken
            self._client.send_fd_scm(writable)
            fdset = (await self._execute("add-fd"))["fdset-id"]
        try:
            await self._execute("xen-save-devices-state", filename=f"/dev/fdset/{fdset}")
        finally:
            await self._execute("remove-fd", **{"fdset-id": fdset})


@asynccontextmanager
async def monitor(directory: Path) -> AsyncIterator[Monitor]:
    """The monitor of the machine whose supervisor's files are in the directory.

    Raises WrongState where there is none.
    """
    client = QMPClient()
    with _translated("negotiate"):
        async with asyncio.timeout(DEADLINE):
            await client.connect(connected(directory, "qmp", socket.SOCK_STREAM))
    try:
        yield Monitor(client)
    finally:
        with contextlib.suppress(QMPError, EOFError, OSError):
            await client.disconnect()


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise ProcessFailed(f"QEMU did not {what} within {DEADLINE:g} s.") from error
    except ExecuteError as error:
        raise ProcessFailed(f"QEMU refuses to {what}: {error}.") from error
    except (QMPError, EOFError, OSError) as error:
        raise WrongState("The machine has ended.") from error
