"""The sandboxes of one MCP server: those that it has made, and no other instance of the host."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING

from sublet.domain.agents import Policy, grant
from sublet.domain.errors import InvalidArgument, NoSuchInstance, NotPermitted
from sublet.mcp.answers import Sandbox
from sublet.sdk import AsyncClient, AsyncSandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from typing import Any

OWNER = "io.sublet.mcp"
"""The label that tells whose a sandbox is: the name of a server."""


class Sandboxes:
    """What the tools of one server work on."""

    def __init__(self, policy: Policy, owner: str, client: AsyncClient, lease: str = "") -> None:
        """With `lease` they go when that does."""
        self._policy, self._owner, self._client, self._lease = policy, owner, client, lease
        self._known: dict[str, AsyncSandbox] = {}
        self._made: set[str] = set()
        """What counts as there: neither gone, nor still being made."""
        self._making = 0
        self._counting = asyncio.Lock()

    async def create(
        self, progress: Callable[[str], None], name: str, env: Mapping[str, str], **asked: Any
    ) -> Sandbox:
        """A new one of what the policy gives for what is asked. Raises what `grant` and
        `Sandbox.create` do, and NotPermitted where there are too many."""
        given = grant(self._policy, **asked)
        more: dict[str, Any] = {"lease": self._lease} if self._lease else {}
        more |= {"disk": self._policy.disk} if self._policy.disk else {}
        async with self._room(1):
            box = await AsyncSandbox.create(
                given.image,
                isolation=given.isolation,
                size=given.size,
                ttl=given.ttl,
                egress=given.network,
                env=dict(env),
                name=name,
                labels={OWNER: self._owner},
                progress=progress,
                **more,
            )
            self._made.add(box.id)
        self._known[box.id] = box
        return await self.describe(box)

    async def get(self, text: str) -> AsyncSandbox:
        """The sandbox of this id or name. Raises NoSuchInstance for what is not this server's."""
        if text in self._known:
            return self._known[text]
        row = await self._row(text)
        return self._known.setdefault(row["id"], AsyncSandbox(self._client, row, 60.0))

    async def all(self) -> list[Sandbox]:
        """Those that are there, the newest first."""
        found = []
        for row in await self._rows():
            with suppress(NoSuchInstance):  # it has gone meanwhile
                found.append(_described(await self._client.inspect(row["id"])))
        return found

    async def describe(self, box: AsyncSandbox) -> Sandbox:
        """What a client is told of one."""
        return _described(await self._client.inspect(box.id))

    async def fork(self, text: str, count: int, snapshot: str) -> list[Sandbox]:
        """So many new ones with what one has now, or with what its snapshot has. None lives longer
        than a new one may: what the source was extended to is not inherited."""
        if count < 1:
            raise InvalidArgument(f"{count} is no number of forks.")
        box = await self.get(text)
        async with self._room(count):
            forks = await box.fork(count, snapshot=snapshot)
            self._made.update(fork.id for fork in forks)
            for fork in forks:
                row = await self._client.inspect(fork.id)
                if not row["expires"] or _life(row) > self._policy.max_ttl:
                    await self._client.update(fork.id, ttl=self._policy.max_ttl)
        self._known.update((fork.id, fork) for fork in forks)
        return [await self.describe(fork) for fork in forks]

    async def extend(self, text: str, seconds: float) -> Sandbox:
        """Let it live `seconds` more than it has lived, but no longer than `max_ttl` in all."""
        box = await self.get(text)
        row = await self._client.inspect(box.id)
        life = min(_age(row) + seconds, self._policy.max_ttl)
        await self._client.update(box.id, ttl=life)
        return await self.describe(box)

    async def destroy(self, text: str) -> None:
        """Delete it; one that is gone is fine."""
        try:
            box = await self.get(text)
        except NoSuchInstance:
            return
        self._known.pop(box.id, None)
        await box.close()

    async def _rows(self) -> list[dict[str, Any]]:
        return await self._client.ps(all=True, filters=[f"label={OWNER}={self._owner}"])

    async def _row(self, text: str) -> Mapping[str, Any]:
        """Of another's instance no more is told than of none."""
        with suppress(NoSuchInstance, InvalidArgument):
            if not text or "/" in text:
                raise NoSuchInstance(text)
            row = await self._client.inspect(text)
            if row["labels"].get(OWNER) == self._owner:
                return row
        raise NoSuchInstance(
            f"There is no sandbox '{text}'.", hint="list_sandboxes tells which there are."
        )

    @asynccontextmanager
    async def _room(self, count: int) -> AsyncIterator[None]:
        """Room for so many more. What others are making meanwhile counts, once: it may be listed
        already. Who finds no room takes none from who asks at the same time."""
        async with self._counting:
            making, made, most = self._making, set(self._made), self._policy.most
            there = {row["id"] for row in await self._rows()}
            if not making:
                self._made = made = there
            taken = max(len(there), len(there & made) + making)
            if taken + count > most:
                raise NotPermitted(
                    f"{most} sandboxes are permitted at a time; {taken} there already, "
                    f"and {count} more asked for.",
                    hint="Destroy one that is not needed any more: destroy_sandbox.",
                )
            self._making += count
        try:
            yield
        finally:
            self._making -= count


def _described(row: Mapping[str, Any]) -> Sandbox:
    return Sandbox(
        sandbox=row["id"],
        name=row["name"],
        image=row["image"],
        isolation=row["isolation"],
        size=row["size"],
        state=row["state"],
        network=list(row["egress"] or ()),
        expires=row["expires"] or "never",
    )


def _life(row: Mapping[str, Any]) -> float:
    """Seconds from when it was made to when it goes."""
    ends, begun = (datetime.fromisoformat(row[key]).timestamp() for key in ("expires", "created"))
    return ends - begun


def _age(row: Mapping[str, Any]) -> float:
    """Seconds since it was made."""
    return time.time() - datetime.fromisoformat(row["created"]).timestamp()
