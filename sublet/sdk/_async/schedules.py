"""The client's verbs on schedules.

The blocking client is made from this file by `scripts/unasync.py`; edit this one.
"""

from __future__ import annotations

from sublet.domain.errors import NoSuchImage
from sublet.sdk._async.calls import Progress, silent
from sublet.sdk._async.images import AsyncImageVerbs
from sublet.sdk._http import quote

TYPE_CHECKING = False  # typing itself costs milliseconds of every command
if TYPE_CHECKING:
    from typing import Any


class AsyncScheduleVerbs(AsyncImageVerbs):
    """What can be done with schedules."""

    async def schedules(self) -> list[dict[str, Any]]:
        """The schedules of this host, by name."""
        return list(await self.call("GET", "/v1/schedules"))

    async def create_schedule(
        self,
        name: str,
        cron: str,
        spec: dict[str, Any] | None = None,
        *,
        start: str = "",
        progress: Progress = silent,
        **options: Any,
    ) -> dict[str, Any]:
        """Run what `spec` (of `instance_spec`) asks for, or start the instance `start`, whenever
        `cron` says: five fields, @daily and the like, `every 6h`, or `at TIME`.

        Options: `timezone` (UTC), `limit` (the most seconds of a run), `missed` (run, skip),
        `overlap` (skip, queue, replace), `jitter` (seconds), `keep` (ended instances that stay).
        An image that is not on this host is fetched first.
        """
        body = {"name": name, "cron": cron, "spec": spec, "start": start, **options}
        try:
            return dict(await self.call("POST", "/v1/schedules", body))
        except NoSuchImage:
            assert spec is not None
            await self.ensure(spec["image"], progress)
            return dict(await self.call("POST", "/v1/schedules", body))

    async def inspect_schedule(self, name: str) -> dict[str, Any]:
        """All that is known of a schedule, with its next times (`upcoming`) and its `history`."""
        return dict(await self.call("GET", f"/v1/schedules/{quote(name)}"))

    async def run_schedule(self, name: str) -> dict[str, Any]:
        """Begin a run now; its entry in the history."""
        return dict(await self.call("POST", f"/v1/schedules/{quote(name)}/run"))

    async def pause_schedule(self, name: str) -> None:
        """Let no run begin until `resume_schedule`."""
        await self.call("POST", f"/v1/schedules/{quote(name)}/pause")

    async def resume_schedule(self, name: str) -> None:
        """Let runs begin again."""
        await self.call("POST", f"/v1/schedules/{quote(name)}/resume")

    async def remove_schedule(self, name: str, *, force: bool = False) -> None:
        """Delete a schedule, its history and its runs' instances; with `force` also while one of
        them runs."""
        await self.call("DELETE", f"/v1/schedules/{quote(name)}", force=force)
