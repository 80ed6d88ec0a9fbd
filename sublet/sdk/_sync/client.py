# Made from ../_async/client.py by scripts/unasync.py; edit that file.
"""The client: one method a verb.
"""

from __future__ import annotations

from collections.abc import Iterator, Callable, Sequence

from sublet.domain.errors import (
    InsufficientCapacity,
    NoSuchImage,
    NoSuchInstance,
    SubletError,
)
from sublet.sdk._sync import wire
from sublet.sdk._sync.backups import BackupVerbs
from sublet.sdk._sync.billing import BillingVerbs
from sublet.sdk._sync.calls import Progress, silent
from sublet.sdk._sync.files import FileVerbs
from sublet.sdk._sync.images import ImageVerbs
from sublet.sdk._sync.instances import InstanceVerbs
from sublet.sdk._sync.market import MarketVerbs
from sublet.sdk._sync.networks import NetworkVerbs
from sublet.sdk._sync.pools import PoolVerbs
from sublet.sdk._sync.schedules import ScheduleVerbs
from sublet.sdk._sync.storage import StorageVerbs
from sublet.sdk._http import quote
from sublet.sdk.results import exec_spec, instance_spec

TYPE_CHECKING = False  # typing itself costs milliseconds of every command
if TYPE_CHECKING:
    from typing import Any

    from sublet.sdk._sync.leases import Lease
    from sublet.sdk._sync.services import Services
    from sublet.sdk.outcome import ExecResult


class Client(
    InstanceVerbs,
    FileVerbs,
    ScheduleVerbs,
    PoolVerbs,
    ImageVerbs,
    NetworkVerbs,
    StorageVerbs,
    BillingVerbs,
    MarketVerbs,
    BackupVerbs,
):
    """Talks to this environment's daemon (`SUBLET_RUN`), or to the one at `socket`.

    Without `socket` the daemon is started when none answers. Every method raises
    SubletError or one of its kinds.
    """

    # Instances

    def run(
        self,
        image: str,
        command: Sequence[str] | None = None,
        *,
        progress: Progress = silent,
        wait: bool = True,
        pooled: bool = False,
        **options: Any,
    ) -> Instance:
        """Start an instance in the background; options as of `instance_spec`.

        An image that is not on this host is fetched first. Where only spot instances are in its
        way, their notice is waited for, unless told not to (`wait`). `pooled`: it may be one that
        a pool has ready. The instance is a context manager that deletes it at the end.
        """
        spec = instance_spec(image, command, **options)
        return Instance(self, self.launch(spec, progress, wait=wait, pooled=pooled))

    def create(
        self,
        image: str,
        command: Sequence[str] | None = None,
        *,
        progress: Progress = silent,
        **options: Any,
    ) -> Instance:
        """As `run`, but it is not started."""
        spec = instance_spec(image, command, **options)
        return Instance(self, self.launch(spec, progress, start=False))

    def launch(
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
            return dict(self.call("POST", "/v1/instances", spec, **query))
        except NoSuchImage:
            if not fetch:
                raise
            self.ensure(spec["image"], progress)
            return self.launch(spec, progress, start=start, fetch=False, wait=wait)
        except InsufficientCapacity:
            if not wait or not start:
                raise
            return self._operate("/v1/instances?follow=true", spec, progress)

    def output(
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
        session, _ = self.foreground(spec, progress)
        return self._collect(session, input)

    def foreground(
        self,
        spec: dict[str, Any],
        progress: Progress = silent,
        *,
        fetch: bool = True,
        wait: bool = True,
        confirm: bool = False,
    ) -> tuple[wire.Session, dict[str, Any]]:
        """Start an instance with its streams: the session and the instance's `ps` entry. With
        `confirm` the start is taken back, unless the session has been sent something when it
        ends, such as `taken`."""
        target = f"/v1/run?wait={int(wait)}&confirm={int(confirm)}"
        try:
            return self._session(target, spec, progress)
        except NoSuchImage:
            if not fetch:
                raise
            self.ensure(spec["image"], progress)
            return self._session(target, spec, progress)

    def _session(
        self, target: str, spec: dict[str, Any], progress: Progress = silent
    ) -> tuple[wire.Session, dict[str, Any]]:
        session = wire.Session.open(target, spec, path=self._path)
        try:
            first = session.receive()
            while isinstance(first, dict) and first["type"] == "waiting":
                progress(first["text"])
                first = session.receive()
            assert isinstance(first, dict)
            return session, first.get("instance", {})
        except BaseException:
            session.close()
            raise

    def exec(
        self, name: str, command: Sequence[str], *, input: bytes = b"", **options: Any
    ) -> ExecResult:
        """Run a further process in an instance to its end; options as of `exec_spec`."""
        session = self.exec_session(name, exec_spec(command, **options))
        return self._collect(session, input)

    def exec_session(self, name: str, spec: dict[str, Any]) -> wire.Session:
        """Start a further process in an instance, with its streams."""
        session, _ = self._session(f"/v1/instances/{quote(name)}/exec", spec)
        return session

    def attach(
        self, name: str, progress: Progress = silent, *, start: bool = False, wait: bool = True
    ) -> tuple[wire.Session, dict[str, Any]]:
        """The streams of an instance's first process, from now on; with `start`, it is started
        first if it is stopped."""
        target = f"/v1/instances/{quote(name)}/attach" + ("" if wait else "?wait=false")
        return self._session(target, {"start": start}, progress)

    def _collect(self, session: wire.Session, input: bytes) -> ExecResult:
        """Feed the process, gather its output, and wait for its end."""
        from sublet.sdk.outcome import ExecResult

        written: dict[int, list[bytes]] = {1: [], 2: []}
        try:
            for start in range(0, len(input), 65536):
                session.send_input(input[start : start + 65536])
            session.close_input()
            while True:
                message = session.receive()
                if isinstance(message, bytes):
                    written[message[0]].append(message[1:])
                elif message["type"] == "exit":
                    return ExecResult(
                        int(message["code"]), b"".join(written[1]), b"".join(written[2])
                    )
        finally:
            session.close()

    def get(self, name: str) -> Instance:
        """The instance of this name or id."""
        return Instance(self, self.inspect(name))

    def export(self, name: str) -> Iterator[bytes]:
        """An instance's file system as a tar stream."""
        target = f"/v1/instances/{quote(name)}/export"
        for piece in wire.stream("GET", target, path=self._path):
            yield piece

    def lease(self, told: Callable[[SubletError], None] = lambda error: None) -> Lease:
        """A lease, as a context manager, or with `open` and `close`: instances that are made with
        its id (`run(…, lease=lease.id)`) are gone when it ends, or this process does. `told` is
        called when it is lost."""
        from sublet.sdk._sync.leases import Lease

        return Lease(self._path, told)

    def services(self, services: Sequence[str], **options: Any) -> Services:
        """Services such as `postgres:15` or `db=postgres:15`, as a context manager: started all at
        once, healthy when it is entered, gone when it is left; options as of `Services`."""
        from sublet.sdk._sync.services import Services

        return Services(self, services, **options)

    # Host

    def host(self) -> dict[str, Any]:
        """Capacity, kernel, cgroup layout, runtime."""
        return dict(self.call("GET", "/v1/host"))

    def version(self) -> dict[str, Any]:
        """The daemon's version, pid and root directory."""
        return dict(self.call("GET", "/v1/version"))

    def shutdown(self) -> None:
        """End the daemon; instances go on running."""
        self.call("POST", "/v1/shutdown")

    def audit(self, *, fix: bool = False) -> list[dict[str, str]]:
        """What is left on the host and belongs to nobody; with `fix`, what was removed."""
        if fix:
            return list(self.call("POST", "/v1/audit/fix"))
        return list(self.call("GET", "/v1/audit"))


class Instance:
    """One instance. As a context manager it is deleted at the end."""

    def __init__(self, client: Client, data: dict[str, Any]) -> None:
        self._client = client
        self.id: str = data["id"]
        self.name: str = data["name"]
        self.image: str = data["image"]
        self.ports: list[dict[str, Any]] = data["ports"]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} ({self.id})>"

    def __enter__(self) -> Instance:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove(force=True)

    def exec(
        self, command: Sequence[str], *, input: bytes = b"", **options: Any
    ) -> ExecResult:
        """Run a further process to its end; options as of `exec_spec`."""
        return self._client.exec(self.id, command, input=input, **options)

    def exec_session(self, spec: dict[str, Any]) -> wire.Session:
        """Start a further process in it, with its streams."""
        return self._client.exec_session(self.id, spec)

    def inspect(self) -> dict[str, Any]:
        """All that is known of it: state, address, pid, limits."""
        return self._client.inspect(self.id)

    def address(self) -> str:
        """Its address on the network."""
        return str((self.inspect())["address"])

    def logs(self, **options: Any) -> Iterator[dict[str, Any]]:
        """What it wrote; see `Client.logs`."""
        for line in self._client.logs(self.id, **options):
            yield line

    def start(self) -> None:
        """Start it, when it is stopped."""
        self._client.start(self.id)

    def restart(self, timeout: float | None = None) -> None:
        """Stop it, if it runs, and start it."""
        self._client.restart(self.id, timeout)

    def pause(self) -> None:
        """Freeze its processes."""
        self._client.pause(self.id)

    def unpause(self) -> None:
        """Let its processes go on."""
        self._client.unpause(self.id)

    def hibernate(self) -> None:
        """Keep its memory on disk and end it; it must be a VM."""
        self._client.hibernate(self.id)

    def wake(self) -> None:
        """Let it go on where it was when it was hibernated."""
        self._client.wake(self.id)

    def update(self, **options: Any) -> None:
        """Change its limits, restart policy or time to live; see `Client.update`."""
        self._client.update(self.id, **options)

    def copy_to(self, source: str, path: str, **options: Any) -> dict[str, Any]:
        """Copy a file or directory of this host into it; see `Client.copy_to`."""
        return self._client.copy_to(self.id, source, path, **options)

    def copy_from(self, path: str, destination: str, **options: Any) -> dict[str, Any]:
        """Copy a file or directory of it to this host; see `Client.copy_from`."""
        return self._client.copy_from(self.id, path, destination, **options)

    def stop(self, timeout: float | None = None) -> None:
        """Ask it to end, and end it after `timeout` seconds."""
        self._client.stop(self.id, timeout)

    def kill(self, signal: str = "SIGKILL") -> None:
        """Send a signal to its first process."""
        self._client.kill(self.id, signal)

    def wait(self, condition: str = "stopped") -> int:
        """Wait for its end; its exit code. Or for another condition: see `Client.wait`."""
        return self._client.wait(self.id, condition)

    def remove(self, *, force: bool = False) -> None:
        """Delete it and all that it had, volumes without a name as well; one that is gone is
        fine with `force`."""
        try:
            self._client.remove(self.id, force=force, volumes=True)
        except NoSuchInstance:
            if not force:
                raise


def run(image: str, command: Sequence[str] | None = None, **options: Any) -> Instance:
    """Start an instance with this environment's daemon; see `Client.run`."""
    return Client().run(image, command, **options)
