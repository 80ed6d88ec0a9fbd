# Made from ../_async/storage.py by scripts/unasync.py; edit that file.
"""The client's verbs on volumes and snapshots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sublet.sdk._sync.calls import Calls, Progress, silent
from sublet.sdk._http import quote

TYPE_CHECKING = False  # typing itself costs milliseconds of every command
if TYPE_CHECKING:
    from typing import Any


class StorageVerbs(Calls):
    """What can be done with volumes and snapshots."""

    def volumes(self) -> list[dict[str, Any]]:
        """The volumes of this host."""
        return list(self.call("GET", "/v1/volumes"))

    def create_volume(
        self, name: str = "", *, size: int = 0, labels: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Make a volume, of at most `size` bytes unless that is 0."""
        body = {"name": name, "size": size, "labels": dict(labels or {})}
        return dict(self.call("POST", "/v1/volumes", body))

    def inspect_volume(self, name: str) -> dict[str, Any]:
        """All that is known of a volume."""
        return dict(self.call("GET", f"/v1/volumes/{quote(name)}"))

    def remove_volume(self, name: str) -> None:
        """Delete a volume and all that is in it."""
        self.call("DELETE", f"/v1/volumes/{quote(name)}")

    def prune_volumes(self, *, all: bool = False, dry_run: bool = False) -> dict[str, Any]:
        """Delete volumes that no instance has, with `all` those with a name too: `volumes`
        and `size` (bytes freed)."""
        body = {"all": all, "dry_run": dry_run}
        return dict(self.call("POST", "/v1/volumes/prune", body))

    def snapshot(
        self, instance: str, name: str = "", *, memory: bool = False, progress: Progress = silent
    ) -> dict[str, Any]:
        """Keep an instance's files as they are now, with `memory` a running VM's memory, too; a
        running one is paused for a moment."""
        body = {"name": name, "memory": memory}
        return self._operate(f"/v1/instances/{quote(instance)}/snapshots", body, progress)

    def snapshots(self, instance: str = "") -> list[dict[str, Any]]:
        """The snapshots of an instance, or all; the newest first."""
        return list(self.call("GET", "/v1/snapshots", instance=instance))

    def inspect_snapshot(self, name: str) -> dict[str, Any]:
        """All that is known of a snapshot."""
        return dict(self.call("GET", f"/v1/snapshots/{quote(name)}"))

    def remove_snapshot(self, name: str) -> None:
        """Delete a snapshot; what was forked of it stays."""
        self.call("DELETE", f"/v1/snapshots/{quote(name)}")

    def fork_of(
        self,
        source: str,
        name: str = "",
        *,
        of: str = "",
        ports: Sequence[str] = (),
        lease: str | None = None,
        progress: Progress = silent,
        wait: bool = True,
    ) -> dict[str, Any]:
        """A new instance with the files that an instance has now, or that a snapshot has kept:
        its `ps` entry. With `of`, `source` is a snapshot of that instance and nobody else's.
        `ports` as `-p`; without, those of the source on other host ports. With a `lease` it lasts
        as long as that, not as its source's; with an empty one, until it is deleted. Where only
        spot instances are in its way, their notice is waited for, unless told not to."""
        body: dict[str, Any] = {"source": source, "name": name}
        body |= {"of": of} if of else {}
        if lease is not None:
            body["lease"] = lease
        if ports:
            from sublet.sdk._parsed import ports_of

            body["ports"] = ports_of(ports)
        return self._operate("/v1/fork" if wait else "/v1/fork?wait=false", body, progress)

    def rollback(
        self, instance: str, snapshot: str, *, progress: Progress = silent
    ) -> dict[str, Any]:
        """Give an instance back the files of one of its snapshots; its `ps` entry."""
        return self._operate(
            f"/v1/instances/{quote(instance)}/rollback", {"snapshot": snapshot}, progress
        )
