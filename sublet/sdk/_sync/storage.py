# Made from ../_async/storage.py by scripts/unasync.py; edit that file.
"""The client's verbs on volumes and snapshots.
"""

from __future__ import annotations

from collections.abc import Mapping

from sublet.sdk._sync.calls import Calls
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
