"""The client's verbs on warm pools.

The blocking client is made from this file by `scripts/unasync.py`; edit this one.
"""

from __future__ import annotations

from collections.abc import Sequence

from sublet.domain.errors import NoSuchImage
from sublet.sdk._async.calls import Progress, silent
from sublet.sdk._async.images import AsyncImageVerbs
from sublet.sdk._http import quote
from sublet.sdk.results import instance_spec

TYPE_CHECKING = False  # typing itself costs milliseconds of every command
if TYPE_CHECKING:
    from typing import Any


class AsyncPoolVerbs(AsyncImageVerbs):
    """What can be done with warm pools."""

    async def pools(self) -> list[dict[str, Any]]:
        """The pools of this host, by name; `trouble` tells why one is not full."""
        return list(await self.call("GET", "/v1/pools"))

    async def set_pool(
        self,
        image: str,
        size: int,
        *,
        name: str = "",
        vm: bool = False,
        instance_size: str = "1x0.5",
        egress: str | Sequence[str] = "internet",
        progress: Progress = silent,
        **options: Any,
    ) -> dict[str, Any]:
        """Keep `size` sandboxes ready, as `Sandbox.create` makes them of what is given here; its
        entry. Of such ones there is one pool, which is made, or resized; `name` means another.

        They are made in the background. Further `options` are those of `instance_spec`. An image
        that is not on this host is fetched first.
        """
        spec = instance_spec(
            image,
            ["infinity"],
            entrypoint=["sleep"],
            vm=vm,
            init=not vm,
            size=instance_size,
            egress=egress,
            **options,
        )
        body = {"name": name, "size": size, "spec": spec}
        try:
            return dict(await self.call("POST", "/v1/pools", body))
        except NoSuchImage:
            await self.ensure(image, progress)
            return dict(await self.call("POST", "/v1/pools", body))

    async def remove_pool(self, name: str) -> None:
        """Delete a pool with its sandboxes; those that were handed out stay."""
        await self.call("DELETE", f"/v1/pools/{quote(name)}")
