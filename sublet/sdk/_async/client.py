"""The client: one method a verb.

The blocking client is made from this file by `scripts/unasync.py`; edit this one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

from sublet.domain.errors import (
    InsufficientCapacity,
    NoSuchImage,
    NoSuchInstance,
    SubletError,
)
from sublet.sdk._async import wire
from sublet.sdk._async.backups import AsyncBackupVerbs
from sublet.sdk._async.billing import AsyncBillingVerbs
from sublet.sdk._async.calls import Progress, silent
from sublet.sdk._async.files import AsyncFileVerbs
from sublet.sdk._async.images import AsyncImageVerbs
from sublet.sdk._async.instances import AsyncInstanceVerbs
from sublet.sdk._async.market import AsyncMarketVerbs
from sublet.sdk._async.networks import AsyncNetworkVerbs
from sublet.sdk._async.pools import AsyncPoolVerbs
from sublet.sdk._async.schedules import AsyncScheduleVerbs
from sublet.sdk._async.storage import AsyncStorageVerbs
from sublet.sdk._http import quote
from sublet.sdk.results import exec_spec, instance_spec

TYPE_CHECKING = False  # typing itself costs milliseconds of every command
if TYPE_CHECKING:
    from typing import Any

    from sublet.sdk._async.leases import AsyncLease
    from sublet.sdk._async.services import AsyncServices
    from sublet.sdk.outcome import ExecResult


class AsyncClient(
    AsyncInstanceVerbs,
    AsyncFileVerbs,
    AsyncScheduleVerbs,
    AsyncPoolVerbs,
    AsyncImageVerbs,
    AsyncNetworkVerbs,
    AsyncStorageVerbs,
    AsyncBillingVerbs,
    AsyncMarketVerbs,
    AsyncBackupVerbs,
):
    """Talks to this environment's daemon (`SUBLET_RUN`), or to the one at `socket`.

    Without `socket` the daemon is started when none answers. Every method raises
    SubletError or one of its kinds.
    """

    # Instances

    async def run(
        self,
        image: str,
        command: Sequence[str] | None = None,
        *,
        progress: Progress = silent,
        wait: bool = True,
        pooled: bool = False,
        **options: Any,
    ) -> AsyncInstance:
        """Start an instance in the background; options as of `instance_spec`.

        An image that is not on this host is fetched first. Where only spot instances are in its
        way, their notice is waited for, unless told not to (`wait`). `pooled`: it may be one that
        a pool has ready. The instance is a context manager that deletes it at the end.
        """
        spec = instance_spec(image, command, **options)
        return AsyncInstance(self, await self.launch(spec, progress, wait=wait, pooled=pooled))

    async def create(
        self,
        image: str,
        command: Sequence[str] | None = None,
        *,
        progress: Progress = silent,
        **options: Any,
    ) -> AsyncInstance:
        """As `run`, but it is not started."""
        spec = instance_spec(image, command, **options)
        return AsyncInstance(self, await self.launch(spec, progress, start=False))

    async def launch(
        self,
        spec: dict[str, Any],
        progress: Progress = silent,
        *,
        start: bool = True,
        fetch: bool = True,
        wait: bool = True,
        pooled: bool = False,
    ) -> dict[str, Any]:
        """As `run` or `create`, from a finished request; the new instance's `ps` entry.

        Without `fetch`, an image that is not on this host is an error; without `wait`, a host that
        only spot instances fill.
        """
        query = {"wait": False} if start else {"start": False}
        if pooled:
            query["pooled"] = True
        try:
            return dict(await self.call("POST", "/v1/instances", spec, **query))
        except NoSuchImage:
            if not fetch:
                raise
            await self.ensure(spec["image"], progress)
            return await self.launch(spec, progress, start=start, fetch=False, wait=wait)
        except InsufficientCapacity:
            if not wait or not start:
                raise
            return await self._operate("/v1/instances?follow=true", spec, progress)

    async def output(
        self,
        image: str,
        command: Sequence[str] | None = None,
        *,
        input: bytes = b"",
        progress: Progress = silent,
        **options: Any,
    ) -> ExecResult:
        """Run an instance to its end, delete it, and give what it wrote."""
        spec = instance_spec(image, command, remove=True, stdin=bool(input), **options)
        session, _ = await self.foreground(spec, progress)
        return await self._collect(session, input)

    async def foreground(
        self,
        spec: dict[str, Any],
        progress: Progress = silent,
        *,
        fetch: bool = True,
        wait: bool = True,
        confirm: bool = False,
    ) -> tuple[wire.AsyncSession, dict[str, Any]]:
        """Start an instance with its streams: the session and the instance's `ps` entry. With
        `confirm` the start is taken back, unless the session has been sent something when it
        ends, such as `taken`."""
        target = f"/v1/run?wait={int(wait)}&confirm={int(confirm)}"
        try:
            return await self._session(target, spec, progress)
        except NoSuchImage:
            if not fetch:
                raise
            await self.ensure(spec["image"], progress)
            return await self._session(target, spec, progress)

    async def _session(
        self, target: str, spec: dict[str, Any], progress: Progress = silent
    ) -> tuple[wire.AsyncSession, dict[str, Any]]:
        session = await wire.AsyncSession.open(target, spec, path=self._path)
        try:
            first = await session.receive()
            while isinstance(first, dict) and first["type"] == "waiting":
                progress(first["text"])
                first = await session.receive()
            assert isinstance(first, dict)
            return session, first.get("instance", {})
        except BaseException:
            await session.close()
            raise

    async def exec(
        self, name: str, command: Sequence[str], *, input: bytes = b"", **options: Any
    ) -> ExecResult:
        """Run a further process in an instance to its end; options as of `exec_spec`."""
        session = await self.exec_session(name, exec_spec(command, **options))
        return await self._collect(session, input)

    async def exec_session(self, name: str, spec: dict[str, Any]) -> wire.AsyncSession:
        """Start a further process in an instance, with its streams."""
        session, _ = await self._session(f"/v1/instances/{quote(name)}/exec", spec)
        return session

    async def attach(
        self, name: str, progress: Progress = silent, *, start: bool = False, wait: bool = True
    ) -> tuple[wire.AsyncSession, dict[str, Any]]:
        """The streams of an instance's first process, from now on; with `start`, it is started
        first if it is stopped."""
        target = f"/v1/instances/{quote(name)}/attach" + ("" if wait else "?wait=false")
        return await self._session(target, {"start": start}, progress)

    async def _collect(self, session: wire.AsyncSession, input: bytes) -> ExecResult:
        """Feed the process, gather its output, and wait for its end."""
        from sublet.sdk.outcome import ExecResult

        written: dict[int, list[bytes]] = {1: [], 2: []}
        try:
            for start in range(0, len(input), 65536):
                await session.send_input(input[start : start + 65536])
            await session.close_input()
            while True:
                message = await session.receive()
                if isinstance(message, bytes):
                    written[message[0]].append(message[1:])
                elif message["type"] == "exit":
                    return ExecResult(
                        int(message["code"]), b"".join(written[1]), b"".join(written[2])
                    )
        finally:
            await session.close()

    async def get(self, name: str) -> AsyncInstance:
        """The instance of this name or id."""
        return AsyncInstance(self, await self.inspect(name))

    async def export(self, name: str) -> AsyncIterator[bytes]:
        """An instance's file system as a tar stream."""
        target = f"/v1/instances/{quote(name)}/export"
        async for piece in wire.stream("GET", target, path=self._path):
            yield piece

    def lease(self, told: Callable[[SubletError], None] = lambda error: None) -> AsyncLease:
        """A lease, as a context manager, or with `open` and `close`: instances that are made with
        its id (`run(…, lease=lease.id)`) are gone when it ends, or this process does. `told` is
        called when it is lost."""
        from sublet.sdk._async.leases import AsyncLease

        return AsyncLease(self._path, told)

    def services(self, services: Sequence[str], **options: Any) -> AsyncServices:
        """Services such as `postgres:15` or `db=postgres:15`, as a context manager: started all at
        once, healthy when it is entered, gone when it is left; options as of `AsyncServices`."""
        from sublet.sdk._async.services import AsyncServices

        return AsyncServices(self, services, **options)

    # Host

    async def host(self) -> dict[str, Any]:
        """Capacity, kernel, cgroup layout, runtime."""
        return dict(await self.call("GET", "/v1/host"))

    async def version(self) -> dict[str, Any]:
        """The daemon's version, pid and root directory."""
        return dict(await self.call("GET", "/v1/version"))

    async def shutdown(self) -> None:
        """End the daemon; instances go on running."""
        await self.call("POST", "/v1/shutdown")

    async def audit(self, *, fix: bool = False) -> list[dict[str, str]]:
        """What is left on the host and belongs to nobody; with `fix`, what was removed."""
        if fix:
            return list(await self.call("POST", "/v1/audit/fix"))
        return list(await self.call("GET", "/v1/audit"))


class AsyncInstance:
    """One instance. As a context manager it is deleted at the end."""

    def __init__(self, client: AsyncClient, data: dict[str, Any]) -> None:
        self._client = client
        self.id: str = data["id"]
        self.name: str = data["name"]
        self.image: str = data["image"]
        self.ports: list[dict[str, Any]] = data["ports"]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} ({self.id})>"

    async def __aenter__(self) -> AsyncInstance:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.remove(force=True)

    async def exec(
        self, command: Sequence[str], *, input: bytes = b"", **options: Any
    ) -> ExecResult:
        """Run a further process to its end; options as of `exec_spec`."""
        return await self._client.exec(self.id, command, input=input, **options)

    async def exec_session(self, spec: dict[str, Any]) -> wire.AsyncSession:
        """Start a further process in it, with its streams."""
        return await self._client.exec_session(self.id, spec)

    async def inspect(self) -> dict[str, Any]:
        """All that is known of it: state, address, pid, limits."""
        return await self._client.inspect(self.id)

    async def address(self) -> str:
        """Its address on the network."""
        return str((await self.inspect())["address"])

    async def logs(self, **options: Any) -> AsyncIterator[dict[str, Any]]:
        """What it wrote; see `AsyncClient.logs`."""
        async for line in self._client.logs(self.id, **options):
            yield line

    async def start(self) -> None:
        """Start it, when it is stopped."""
        await self._client.start(self.id)

    async def restart(self, timeout: float | None = None) -> None:
        """Stop it, if it runs, and start it."""
        await self._client.restart(self.id, timeout)

    async def pause(self) -> None:
        """Freeze its processes."""
        await self._client.pause(self.id)

    async def unpause(self) -> None:
        """Let its processes go on."""
        await self._client.unpause(self.id)

    async def hibernate(self) -> None:
        """Keep its memory on disk and end it; it must be a VM."""
        await self._client.hibernate(self.id)

    async def wake(self) -> None:
        """Let it go on where it was when it was hibernated."""
        await self._client.wake(self.id)

    async def update(self, **options: Any) -> None:
        """Change its limits, restart policy or time to live; see `AsyncClient.update`."""
        await self._client.update(self.id, **options)

    async def copy_to(self, source: str, path: str, **options: Any) -> dict[str, Any]:
        """Copy a file or directory of this host into it; see `AsyncClient.copy_to`."""
        return await self._client.copy_to(self.id, source, path, **options)

    async def copy_from(self, path: str, destination: str, **options: Any) -> dict[str, Any]:
        """Copy a file or directory of it to this host; see `AsyncClient.copy_from`."""
        return await self._client.copy_from(self.id, path, destination, **options)

    async def stop(self, timeout: float | None = None) -> None:
        """Ask it to end, and end it after `timeout` seconds."""
        await self._client.stop(self.id, timeout)

    async def kill(self, signal: str = "SIGKILL") -> None:
        """Send a signal to its first process."""
        await self._client.kill(self.id, signal)

    async def wait(self, condition: str = "stopped") -> int:
        """Wait for its end; its exit code. Or for another condition: see `AsyncClient.wait`."""
        return await self._client.wait(self.id, condition)

    async def remove(self, *, force: bool = False) -> None:
        """Delete it and all that it had, volumes without a name as well; one that is gone is
        fine with `force`."""
        try:
            await self._client.remove(self.id, force=force, volumes=True)
        except NoSuchInstance:
            if not force:
                raise


async def run(image: str, command: Sequence[str] | None = None, **options: Any) -> AsyncInstance:
    """Start an instance with this environment's daemon; see `AsyncClient.run`."""
    return await AsyncClient().run(image, command, **options)
