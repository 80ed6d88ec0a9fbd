# Made from ../_async/market.py by scripts/unasync.py; edit that file.
"""The client's verbs on the market: sizes, the price, spot requests, reclaims.
"""

from __future__ import annotations

from collections.abc import Sequence

from sublet.sdk._sync.calls import Calls, Progress, silent
from sublet.sdk._http import quote

TYPE_CHECKING = False  # typing itself costs milliseconds of every command
if TYPE_CHECKING:
    from typing import Any


class MarketVerbs(Calls):
    """What can be done on the market."""

    def sizes(self) -> list[dict[str, Any]]:
        """The sizes that have names, and what each costs an hour."""
        return list(self.call("GET", "/v1/sizes"))

    def market(self, *, since: str = "24h", size: str = "1x1") -> dict[str, Any]:
        """The spot price of a size now, and its history since a time, or for as long."""
        return dict(self.call("GET", "/v1/market", since=since, size=size))

    def spot_requests(self) -> list[dict[str, Any]]:
        """Spot requests, the newest first; those that ended up to two days ago too."""
        return list(self.call("GET", "/v1/spot"))

    def spot_request(self, name: str) -> dict[str, Any]:
        """The spot request of this id, or of the instance of this name or id."""
        return dict(self.call("GET", f"/v1/spot/{quote(name)}"))

    def cancel_spot_request(self, name: str) -> dict[str, Any]:
        """Cancel a spot request; its instance goes on."""
        return dict(self.call("DELETE", f"/v1/spot/{quote(name)}"))

    def reclaim(
        self, names: Sequence[str] = (), *, all: bool = False, notice: float | None = None
    ) -> list[dict[str, Any]]:
        """Take back the capacity of spot instances, or of `all`, after `notice` seconds, None: as
        many as always; the notices: `id`, `name`, `action`, `time`, `reason`."""
        body = {"instances": list(names), "all": all, "notice": notice}
        return list(self.call("POST", "/v1/reclaim", body))

    def rehearse(
        self, name: str, *, notice: str = "", progress: Progress = silent
    ) -> dict[str, Any]:
        """Give a running instance a notice that nothing comes of (`notice` as 10s; empty: as long
        as a real one), watch what it does, and tell: `reacted`, `exit_code` of its command,
        `ended`, `backed_up`, `lost_bytes` and others."""
        query = f"?notice={quote(notice)}" if notice else ""
        target = f"/v1/instances/{quote(name)}/rehearse{query}"
        return self._operate(target, None, progress)

    def drain(self, *, notice: float | None = None) -> list[dict[str, Any]]:
        """Let the host start nothing more, and reclaim all spot instances, after `notice`
        seconds; the notices."""
        return list(self.call("POST", "/v1/host/drain", {"notice": notice}))

    def undrain(self) -> None:
        """Let the host start instances again."""
        self.call("POST", "/v1/host/undrain")
