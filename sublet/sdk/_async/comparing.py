"""The same image as containers and as virtual machines, on this host, measured.

The blocking client is made from this file by `scripts/unasync.py`; edit this one.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sublet.domain.comparison import Host, Measured
from sublet.domain.errors import InvalidArgument, NoSuchInstance, WrongState
from sublet.domain.size import Size
from sublet.sdk._async.calls import Progress, silent
from sublet.sdk._async.threads import pause
from sublet.sdk.results import Environment

if TYPE_CHECKING:
    from sublet.sdk._async.client import AsyncClient

LABEL = "io.sublet.compare"
TTL = "1h"
"""When those go that a comparison which was killed has left."""

COLD = 3
"""VMs that are booted one after another, to see how long that takes."""

SETTLED, PATIENCE = 0.01, 20
"""Memory is settled when it changes by less than this part in a second; seconds to wait for it."""

MOST = 200


async def compare(
    client: AsyncClient,
    image: str,
    command: Sequence[str] | None = None,
    *,
    size: str = "",
    count: int = 10,
    env: Environment = (),
    progress: Progress = silent,
) -> dict[str, Any]:
    """Run `count` containers of the image at once, then as many VMs, and measure both.

    `size` as `1x0.5`, empty: the host's default; `env` as for `run`. The command has to go on
    until it is ended. All that was started is removed, however this ends. Raises WrongState when
    an instance ends by itself, InsufficientCapacity when they do not fit.
    """
    if not 1 <= count <= MOST:
        raise InvalidArgument(f"{count} is no number to compare.", hint=f"Give from 1 to {MOST}.")
    trial = _Trial(client, _instance(image, command, size, env), count, progress)
    try:
        await client.ensure(image, progress)
        containers = await trial.containers()
        machines = await trial.machines()
    finally:
        await trial.remove()
    host, sold = await client.host(), trial.size()
    room = Host(host["rentable"]["memory"], host["rentable"]["cpus"], host["disk"]["free"])
    return {
        "image": image,
        "digest": trial.digest,
        "command": list(command or ()),
        "size": str(sold),
        "count": count,
        "host": {key: host[key] for key in ("cpus", "memory", "disk", "kernel", "acceleration")},
        "container": containers.report(sold, room),
        "vm": machines.report(sold, room),
    }


def _instance(
    image: str, command: Sequence[str] | None, size: str, env: Environment
) -> dict[str, Any]:
    """What `run` is given for each. Raises InvalidArgument."""
    asked = Size.parse(size) if size else None
    limits = {"cpus": asked.cpus, "memory": asked.memory} if asked else {}
    return {"image": image, "command": command, "env": env, **limits}


class _Trial:
    """The instances of one comparison, found by a label of its own."""

    def __init__(
        self,
        client: AsyncClient,
        instance: dict[str, Any],
        count: int,
        progress: Progress,
    ) -> None:
        self._client, self._instance = client, instance
        self._count, self._progress = count, progress
        self._mark = secrets.token_hex(6)
        self.digest = ""
        self._limits: dict[str, Any] = {}

    def size(self) -> Size:
        """What each was sold."""
        return Size(self._limits["cpus"], self._limits["memory"])

    async def containers(self) -> Measured:
        """Containers; the image is mounted and all that is made once is there before."""
        await self._start()
        await self.remove()
        return await self._measure()

    async def machines(self) -> Measured:
        """VMs: first some that boot, then those that go on from the template that one made."""
        cold = []
        for number in range(min(COLD, self._count)):
            self._progress(f"booting VM {number + 1} of {min(COLD, self._count)}")
            cold.append(await self._start(vm=True, cold=True))
            await self.remove()
        self._progress("making a template")
        await self._start(vm=True)
        await self.remove()
        return await self._measure(cold, vm=True)

    async def _measure(self, cold: Sequence[float] = (), **options: Any) -> Measured:
        kind = "VM" if options.get("vm") else "container"
        starts = []
        for number in range(self._count):
            self._progress(f"starting {kind} {number + 1} of {self._count}")
            starts.append(await self._start(**options))
        self._progress(f"measuring {self._count} {kind}s")
        found = await self._settled()
        await self.remove()
        return Measured(
            starts=starts,
            cold=cold,
            memory=[each["memory"] for each in found],
            disk=[each["disk"] for each in found],
            processes=[each["processes"] for each in found],
            shared_memory=_united(each["shared_memory"] for each in found),
            shared_disk=_united(each["shared_disk"] for each in found),
        )

    async def _start(self, **options: Any) -> float:
        """Start one; the milliseconds until its command ran."""
        options |= {"labels": {LABEL: self._mark}, "ttl": TTL}
        begin = time.perf_counter()
        made = await self._client.run(**self._instance, **options)
        taken = (time.perf_counter() - begin) * 1000
        if not self._limits:
            seen = await made.inspect()
            self._limits, self.digest = seen["limits"], seen["digest"]
        return taken

    async def _settled(self) -> list[dict[str, Any]]:
        """What each takes, once their memory does not change any more, or patience is over."""
        found, before, until = [], 0.0, time.monotonic() + PATIENCE
        while True:
            await pause(1)
            running = await self._running()
            found = [await self._client.footprint(name) for name in running]
            total = sum(each["memory"] for each in found)
            if abs(total - before) <= SETTLED * total or time.monotonic() > until:
                return found
            before = total

    async def _running(self) -> list[str]:
        """The ids of the instances. Raises WrongState unless all of them run."""
        rows = await self._client.ps(all=True, filters=[f"label={LABEL}={self._mark}"])
        for row in rows:
            if row["state"] != "running":
                raise WrongState(
                    f"{row['name']} is {row['state']} (exit code {row['exit_code']}): it ended"
                    " before it could be measured.",
                    hint="Give a command that goes on: sublet compare IMAGE -- sleep infinity.",
                )
        return [row["id"] for row in rows]

    async def remove(self) -> None:
        """Remove all of this comparison that is there."""
        rows = await self._client.ps(all=True, filters=[f"label={LABEL}={self._mark}"])
        for row in rows:
            try:
                await self._client.remove(row["id"], force=True, volumes=True)
            except NoSuchInstance:
                continue


def _united(each: Any) -> dict[str, int]:
    """What is there once, from what each says that it shares."""
    return {key: size for shared in each for key, size in shared.items()}
