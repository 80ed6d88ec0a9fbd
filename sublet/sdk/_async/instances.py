"""The client's verbs on instances, but for those with streams.

The blocking client is made from this file by `scripts/unasync.py`; edit this one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from sublet.domain.errors import InsufficientCapacity
from sublet.domain.units import check_memory, parse_cpus, parse_duration, parse_memory
from sublet.sdk._async import wire
from sublet.sdk._async.calls import AsyncCalls, Progress, silent
from sublet.sdk._http import query_of, quote

TYPE_CHECKING = False  # typing itself costs milliseconds of every command
if TYPE_CHECKING:
    from typing import Any


class AsyncInstanceVerbs(AsyncCalls):
    """What can be done with instances."""

    async def inspect(self, name: str) -> dict[str, Any]:
        """All that is known of an instance."""
        return dict(await self.call("GET", f"/v1/instances/{quote(name)}"))

    async def footprint(self, name: str) -> dict[str, Any]:
        """What an instance takes of its host, in bytes: `memory` (the proportional set size of its
        `processes`) and `disk`; `shared_memory` and `shared_disk` are there once for all that
        have it."""
        return dict(await self.call("GET", f"/v1/instances/{quote(name)}/footprint"))

    async def ps(
        self,
        *,
        all: bool = False,
        filters: Sequence[str] = (),
        last: int = 0,
        written: bool = False,
    ) -> list[dict[str, Any]]:
        """The running instances, or all of them; the newest first. `filters` as of `ps
        --filter`; only the newest `last`; with `written`, the bytes that each wrote."""
        query = {"all": all, "filter": list(filters), "last": last, "written": written}
        return list(await self.call("GET", "/v1/instances", **query))

    async def top(self, name: str) -> list[dict[str, Any]]:
        """The processes of a running instance."""
        return list(await self.call("GET", f"/v1/instances/{quote(name)}/top"))

    async def stats(
        self, names: Sequence[str] = (), *, all: bool = False, stream: bool = True
    ) -> AsyncIterator[list[dict[str, Any]]]:
        """What instances use, each second; without `stream`, once."""
        query = query_of({"name": list(names), "all": all, "stream": stream})
        async for line in wire.lines("GET", f"/v1/stats{query}", path=self._path):
            yield line["instances"]

    async def logs(
        self,
        name: str,
        *,
        follow: bool = False,
        since: str = "",
        until: str = "",
        tail: int | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """What an instance wrote: `time`, `stream` (1 or 2) and `data`, bytes that are no UTF-8
        as surrogates (PEP 383). `since` and `until`: RFC 3339, seconds since the epoch, or an
        age such as 10m; `tail`: the last so many lines of what is there."""
        query = query_of({"follow": follow, "since": since, "until": until, "tail": tail})
        target = f"/v1/instances/{quote(name)}/logs{query}"
        async for line in wire.lines("GET", target, path=self._path):
            yield line

    async def events(
        self,
        *,
        since: float | str = "",
        until: float | str = "",
        after: int = 0,
        filters: Sequence[str] = (),
        follow: bool = False,
    ) -> AsyncIterator[dict[str, Any]]:
        """What happened, times as of `logs`. A reader that comes back gives the last `id` that
        it saw as `after`, and loses none."""
        query = {"since": since, "until": until, "after": after, "filter": list(filters)}
        target = f"/v1/events{query_of({**query, 'follow': follow})}"
        async for line in wire.lines("GET", target, path=self._path):
            yield line

    async def stop(self, name: str, timeout: float | None = None) -> None:
        """Ask an instance to end, and end it after `timeout` seconds (default: its own, or 10)."""
        await self.call("POST", f"/v1/instances/{quote(name)}/stop", timeout=timeout)

    async def kill(self, name: str, signal: str = "SIGKILL") -> None:
        """Send a signal to an instance's first process."""
        await self.call("POST", f"/v1/instances/{quote(name)}/kill", signal=signal)

    async def wait(self, name: str, condition: str = "stopped") -> int:
        """Wait for an instance's end; its exit code. Or until it is `running`, `healthy` or
        `removed`: NotHealthy is raised where that cannot come any more."""
        target = f"/v1/instances/{quote(name)}/wait"
        answer = await self.call("POST", target, condition=condition)
        return int(answer["exit_code"])

    async def remove(self, name: str, *, force: bool = False, volumes: bool = False) -> None:
        """Delete an instance and all that it had, with `volumes` its volumes without a name too."""
        target = f"/v1/instances/{quote(name)}"
        await self.call("DELETE", target, force=force, volumes=volumes)

    async def start(
        self, name: str, progress: Progress = silent, *, wait: bool = True
    ) -> dict[str, Any]:
        """Start an instance that is stopped; its `ps` entry. One that runs is fine. Where only
        spot instances are in its way, their notice is waited for, unless told not to."""
        target = f"/v1/instances/{quote(name)}/start"
        try:
            return dict(await self.call("POST", target, wait=False))
        except InsufficientCapacity:
            if not wait:
                raise
            return await self._operate(f"{target}?follow=true", None, progress)

    async def restart(self, name: str, timeout: float | None = None) -> None:
        """Stop an instance, if it runs, and start it."""
        await self.call("POST", f"/v1/instances/{quote(name)}/restart", timeout=timeout)

    async def pause(self, name: str) -> None:
        """Freeze all processes of an instance."""
        await self.call("POST", f"/v1/instances/{quote(name)}/pause")

    async def unpause(self, name: str) -> None:
        """Let a paused instance go on."""
        await self.call("POST", f"/v1/instances/{quote(name)}/unpause")

    async def hibernate(self, name: str) -> None:
        """Keep the memory of a running VM on disk and end it; `wake` lets it go on."""
        await self.call("POST", f"/v1/instances/{quote(name)}/hibernate")

    async def wake(self, name: str, progress: Progress = silent, *, wait: bool = True) -> None:
        """Let a hibernated VM go on where it was."""
        target = f"/v1/instances/{quote(name)}/wake"
        try:
            await self.call("POST", target, wait=False)
        except InsufficientCapacity:
            if not wait:
                raise
            await self._operate(f"{target}?follow=true", None, progress)

    async def keepalive(self, name: str, seconds: float = 0.0) -> None:
        """Let an instance with a rule for idleness count as used now, and for `seconds` more."""
        await self.call("POST", f"/v1/instances/{quote(name)}/keepalive", seconds=seconds)

    async def attend(self, name: str) -> AsyncIterator[dict[str, Any]]:
        """Let an instance count as one with an SSH session for as long as this is not closed; it
        does from the first item on, the only one."""
        target = f"/v1/instances/{quote(name)}/attendance"
        async for line in wire.lines("GET", target, path=self._path):
            yield line

    async def rename(self, name: str, new: str) -> None:
        """Give an instance another name."""
        await self.call("POST", f"/v1/instances/{quote(name)}/rename", new=new)

    async def update(
        self,
        name: str,
        *,
        cpus: float | str | None = None,
        memory: int | str | None = None,
        disk: int | str | None = None,
        pids_limit: int | None = None,
        restart: str | None = None,
        ttl: float | str | None = None,
        idle: float | str | None = None,
        idle_action: str | None = None,
        budget: str | None = None,
        wake: bool | None = None,
        backup: Sequence[str] = (),
        backup_keep: str = "",
        egress: str | Sequence[str] = (),
        lease: str | None = None,
        progress: Progress = silent,
        wait: bool = True,
    ) -> dict[str, Any]:
        """Change an instance's limits (those of a running one at once), restart policy, time to
        live, rule for idleness, budget, backup plan, egress or whether a connection wakes it,
        written as for `run`, 0 or none for none any more, of `egress` default; with an empty
        `lease` it stays when its client ends. Its `ps` entry, with `warnings`. Where only spot
        instances are in its way, their notice is waited for, unless told not to (`wait`)."""
        change: dict[str, Any] = {}
        if cpus is not None:
            change["cpus"] = parse_cpus(str(cpus))
        if memory is not None:
            change["memory"] = check_memory(parse_memory(str(memory)))
        if disk is not None:
            change["disk"] = parse_memory(str(disk))
        if pids_limit is not None:
            change["pids_limit"] = pids_limit
        if ttl is not None:
            change["ttl"] = parse_duration(str(ttl))
        if idle is not None:
            change["idle_after"] = parse_duration(str(idle))
        if idle_action is not None:
            change["idle_action"] = idle_action
        if budget is not None:
            from sublet.sdk._parsed import budget_of

            change["budget"] = budget_of(budget)
        if backup or backup_keep:
            from sublet.sdk._parsed import plan_of

            change["backup"] = plan_of(() if "none" in backup else backup, backup_keep, none=True)
        if egress:
            from sublet.sdk._parsed import egress_of

            change["egress"] = egress_of(egress) or ["default"]
        if wake is not None:
            change["wake"] = wake
        if lease is not None:
            change["lease"] = lease
        if restart is not None:
            from sublet.domain.restart import parse_restart

            policy = parse_restart(restart)
            change["restart"] = {"name": policy.name, "maximum": policy.maximum}
        target = f"/v1/instances/{quote(name)}"
        try:
            return dict(await self.call("PATCH", target, change, wait=False))
        except InsufficientCapacity:
            if not wait:
                raise
            return await self._operate(f"{target}?follow=true", change, progress, "PATCH")

    async def prune(
        self, *, filters: Sequence[str] = (), dry_run: bool = False
    ) -> list[dict[str, Any]]:
        """Delete stopped instances: `kind`, `ids`, `size` (bytes freed). Or only tell."""
        body = {"filters": list(filters), "dry_run": dry_run}
        return list(await self.call("POST", "/v1/instances/prune", body))

    async def prune_system(
        self,
        *,
        all: bool = False,
        volumes: bool = False,
        filters: Sequence[str] = (),
        dry_run: bool = False,
    ) -> list[dict[str, Any]]:
        """Delete what nobody needs, as `sublet system prune`; answers as `prune`."""
        body = {"all": all, "volumes": volumes, "filters": list(filters), "dry_run": dry_run}
        return list(await self.call("POST", "/v1/prune", body))

    async def usage(self) -> list[dict[str, Any]]:
        """What takes room on the disk: `kind`, `count`, `active`, `size`, `reclaimable`."""
        return list(await self.call("GET", "/v1/usage"))
