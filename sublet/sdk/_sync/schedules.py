# Made from ../_async/schedules.py by scripts/unasync.py; edit that file.
"""The client's verbs on schedules.
"""

from __future__ import annotations

from sublet.domain.errors import NoSuchImage
from sublet.sdk._sync.calls import Progress, silent
from sublet.sdk._sync.images import ImageVerbs
from sublet.sdk._http import quote

TYPE_CHECKING = False  # typing itself costs milliseconds of every command
if TYPE_CHECKING:
    from typing import Any


class ScheduleVerbs(ImageVerbs):
    """What can be done with schedules."""

    def schedules(self) -> list[dict[str, Any]]:
        """The schedules of this host, by name."""
        return list(self.call("GET", "/v1/schedules"))

    def create_schedule(
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
            return dict(self.call("POST", "/v1/schedules", body))
        except NoSuchImage:
            assert spec is not None
            self.ensure(spec["image"], progress)
            return dict(self.call("POST", "/v1/schedules", body))

    def inspect_schedule(self, name: str) -> dict[str, Any]:
        """All that is known of a schedule, with its next times (`upcoming`) and its `history`."""
        return dict(self.call("GET", f"/v1/schedules/{quote(name)}"))

    def run_schedule(self, name: str) -> dict[str, Any]:
        """Begin a run now; its entry in the history."""
        return dict(self.call("POST", f"/v1/schedules/{quote(name)}/run"))

    def pause_schedule(self, name: str) -> None:
        """Let no run begin until `resume_schedule`."""
        self.call("POST", f"/v1/schedules/{quote(name)}/pause")

    def resume_schedule(self, name: str) -> None:
        """Let runs begin again."""
        self.call("POST", f"/v1/schedules/{quote(name)}/resume")

    def remove_schedule(self, name: str, *, force: bool = False) -> None:
        """Delete a schedule, its history and its runs' instances; with `force` also while one of
        them runs."""
        self.call("DELETE", f"/v1/schedules/{quote(name)}", force=force)
