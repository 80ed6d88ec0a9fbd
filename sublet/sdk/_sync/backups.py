# Made from ../_async/backups.py by scripts/unasync.py; edit that file.
"""The client's verbs on backups.
"""

from __future__ import annotations

from collections.abc import Sequence

from sublet.sdk._sync.calls import Calls, Progress, silent
from sublet.sdk._http import quote

TYPE_CHECKING = False  # typing itself costs milliseconds of every command
if TYPE_CHECKING:
    from typing import Any


class BackupVerbs(Calls):
    """What can be done with backups."""

    def backup(
        self,
        instance: str,
        *,
        repository: str = "",
        paths: Sequence[str] = (),
        progress: Progress = silent,
    ) -> dict[str, Any]:
        """Back up what an instance has written, or of that what is at `paths`, into a repository;
        without one, into the configured one. A running instance is paused for a moment."""
        body = {"repository": repository, "paths": list(paths)}
        return self._operate(f"/v1/instances/{quote(instance)}/backups", body, progress)

    def backups(self, instance: str = "", *, repository: str = "") -> list[dict[str, Any]]:
        """The backups of an instance, or all; the newest first."""
        return list(self.call("GET", "/v1/backups", instance=instance, repository=repository))

    def remove_backup(self, name: str, *, repository: str = "") -> None:
        """Delete a backup; `prune_backups` gives back the room that it took."""
        self.call("DELETE", f"/v1/backups/{quote(name)}", repository=repository)

    def restore(
        self,
        backup: str,
        name: str = "",
        *,
        repository: str = "",
        size: str = "",
        vm: bool = False,
        start: bool | None = None,
        trust: bool = False,
        progress: Progress = silent,
        wait: bool = True,
    ) -> dict[str, Any]:
        """A new instance with what a backup holds: its `ps` entry. It runs if the one that was
        backed up did, unless `start` says otherwise; `vm` makes a VM of a container; `trust`: it
        may mount of this host what it asks for, though another host has made the backup. Where
        only spot instances are in its way, their notice is waited for, unless told not to."""
        texts = {"backup": backup, "name": name, "repository": repository, "size": size}
        body = {**texts, "vm": vm, "start": start, "trust": trust}
        target = "/v1/restore" if wait else "/v1/restore?wait=false"
        return self._operate(target, body, progress)

    def prune_backups(
        self,
        instance: str = "",
        *,
        keep_last: int = 0,
        keep_daily: int = 0,
        keep_weekly: int = 0,
        repository: str = "",
        dry_run: bool = False,
        progress: Progress = silent,
    ) -> list[dict[str, Any]]:
        """Delete the backups of an instance, or of each, that the rules do not keep, and give back
        what no backup needs; with no rule, only that. What is deleted."""
        body = {"instance": instance, "repository": repository, "dry_run": dry_run}
        body |= {"last": keep_last, "daily": keep_daily, "weekly": keep_weekly}
        return list((self._operate("/v1/backups/prune", body, progress))["backups"])

    def verify_backups(
        self, *, repository: str = "", data: bool = False, progress: Progress = silent
    ) -> None:
        """Check a repository, with `data` every byte of it. Raises BackupFailed."""
        self._operate(
            "/v1/backups/verify", {"repository": repository, "data": data}, progress
        )
