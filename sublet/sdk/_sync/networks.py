# Made from ../_async/networks.py by scripts/unasync.py; edit that file.
"""The client's verbs on networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sublet.sdk._sync.calls import Calls
from sublet.sdk._http import quote

TYPE_CHECKING = False  # typing itself costs milliseconds of every command
if TYPE_CHECKING:
    from typing import Any


class NetworkVerbs(Calls):
    """What can be done with networks."""

    def networks(self, filters: Sequence[str] = ()) -> list[dict[str, Any]]:
        """The networks of this host, the default one first; `filters` are `name=…`, `id=…`,
        `label=…`, `internal=true`."""
        return list(self.call("GET", "/v1/networks", filter=list(filters)))

    def create_network(
        self,
        name: str,
        *,
        subnet: str = "",
        gateway: str = "",
        internal: bool = False,
        labels: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Make a network, in a free subnet unless one is given; `internal`: no way out of it."""
        body = {"name": name, "subnet": subnet, "gateway": gateway, "internal": internal}
        return dict(self.call("POST", "/v1/networks", {**body, "labels": dict(labels or {})}))

    def inspect_network(self, name: str) -> dict[str, Any]:
        """All that is known of a network, and which instances are on it."""
        return dict(self.call("GET", f"/v1/networks/{quote(name)}"))

    def remove_network(self, name: str) -> None:
        """Delete a network that no instance is on."""
        self.call("DELETE", f"/v1/networks/{quote(name)}")

    def prune_networks(self) -> list[str]:
        """Delete every network that no instance is on; their names."""
        return list(self.call("POST", "/v1/networks/prune"))

    def connect(
        self, network: str, instance: str, *, aliases: Sequence[str] = (), address: str = ""
    ) -> None:
        """Put an instance on a further network; `aliases` are further names of it there."""
        body = {"instance": instance, "aliases": list(aliases), "address": address}
        self.call("POST", f"/v1/networks/{quote(network)}/connect", body)

    def disconnect(self, network: str, instance: str, *, force: bool = False) -> None:
        """Take an instance off a network; with `force` one that is not on it is fine."""
        body = {"instance": instance, "force": force}
        self.call("POST", f"/v1/networks/{quote(network)}/disconnect", body)
