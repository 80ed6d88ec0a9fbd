# Made from ../_async/sandbox.py by scripts/unasync.py; edit that file.
"""Sandboxes: machines for code that one does not trust, made in a moment and gone afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sublet.domain.errors import InvalidArgument, NoSuchInstance, SubletError
from sublet.sdk._sync.client import Client
from sublet.sdk._sync.deadline import deadline, together
from sublet.sdk._sync.sandbox_exec import Process, collected
from sublet.sdk._sync.sandbox_files import SandboxFiles
from sublet.sdk._sync.sandbox_hold import Hold
from sublet.sdk._sync.sandbox_python import Python
from sublet.sdk.results import Environment, exec_spec
from sublet.sdk.sandbox_results import (
    LIMIT,
    Isolation,
    PythonResult,
    Result,
    isolation_of,
    labels_of,
)

if TYPE_CHECKING:
    from typing import Any, Self

CREATION = 600.0
"""Seconds that the making of a sandbox may take: its image may have to be fetched first."""


class Sandbox:
    """A machine of one's own. As a context manager it is deleted at the end.

    Every method takes at most `timeout` seconds: those that it is given, or those of `create`;
    then it raises TimeoutExceeded.
    """

    def __init__(
        self,
        client: Client,
        row: Mapping[str, Any],
        timeout: float,
        held: Hold | None = None,
    ) -> None:
        self._client, self._timeout, self._held = client, timeout, held
        self.id: str = row["id"]
        self.name: str = row["name"]
        self.image: str = row["image"]
        self.isolation = Isolation(row["isolation"])
        self.files = SandboxFiles(client, self.id, timeout)
        self._python = Python(client, self.id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} ({self.id})>"

    @classmethod
    def create(
        cls,
        image: str = "debian:bookworm",
        *,
        isolation: str = Isolation.CONTAINER,
        size: str = "1x0.5",
        ttl: float | str = "1h",
        timeout: float = 60.0,
        creation_timeout: float = CREATION,
        egress: str | Sequence[str] = "internet",
        env: Environment = (),
        name: str = "",
        labels: Mapping[str, str] | None = None,
        ports: Sequence[int | str] = (),
        command: Sequence[str] | None = None,
        lease: bool | str = False,
        socket: str = "",
        **options: Any,
    ) -> Self:
        """A new sandbox, which runs: of a warm pool, where one has what is asked for.

        `isolation`: container (shares the host's kernel) or vm (has its own). `size` as 2x4: vCPUs
        and GiB. `ttl` after which it goes by itself, in seconds or as 30m. `timeout` of each call
        of a method, in seconds, `creation_timeout` of this one. `egress`, whom it may connect to:
        none, internet, names (example.org, *.example.net), or default, as its networks have it.
        `ports` are published on the host: 8080, or 9000:8080. `command` is run in place of a
        process that does nothing. `lease`: it is gone when this process has ended, however that
        came, and so are its forks; or the id of a lease that somebody holds. `socket` is the
        daemon's. Further `options` are those of `sublet.run`: volumes, disk, network.

        Raises NoSuchImage, InsufficientCapacity, StartFailed, InvalidArgument, TimeoutExceeded.
        """
        vm = isolation_of(isolation) is Isolation.VM
        if command is None:
            options = {"entrypoint": ["sleep"], **options}
            command = ["infinity"]
        client = Client(socket)
        held = Hold.open(client) if lease is True else None
        try:
            with deadline(creation_timeout, "The making of the sandbox"):
                instance = client.run(
                    image,
                    command,
                    pooled=True,
                    vm=vm,
                    init=not vm,
                    size=size,
                    ttl=ttl,
                    env=env,
                    name=name,
                    labels=labels_of(labels),
                    ports=[str(port) for port in ports],
                    egress=egress,
                    lease=held.id if held else lease or "",
                    **options,
                )
        except BaseException:
            if held:
                held.leave()
            raise
        row = {"id": instance.id, "name": instance.name, "image": instance.image}
        return cls(client, {**row, "isolation": isolation}, timeout, held)

    @classmethod
    def attach(cls, name: str, *, timeout: float = 60.0, socket: str = "") -> Self:
        """The sandbox, or any instance, of this name or id. Raises NoSuchInstance."""
        client = Client(socket)
        with deadline(timeout, "Finding the sandbox"):
            return cls(client, client.inspect(name), timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Commands

    def exec(
        self,
        command: str | Sequence[str],
        *,
        env: Environment = (),
        cwd: str = "",
        user: str = "",
        input: bytes | str = b"",
        timeout: float | None = None,
        limit: int = LIMIT,
    ) -> Result:
        """Run a command to its end: a list of words, or a text for `sh -c`.

        A text as `input` is UTF-8. Of each stream, `limit` bytes are kept. A command that takes
        longer than `timeout` seconds is killed with all that it has started; that raises
        CommandTimeout, which has what it wrote. An exit code that is not 0 raises nothing.
        """
        process = self.exec_stream(command, env=env, cwd=cwd, user=user, timeout=timeout)
        return collected(process, input.encode() if isinstance(input, str) else input, limit)

    def exec_stream(
        self,
        command: str | Sequence[str],
        *,
        env: Environment = (),
        cwd: str = "",
        user: str = "",
        tty: bool = False,
        timeout: float | None = None,
    ) -> Process:
        """As `exec`, but its output is iterated over as it comes; then `exit_code` is there.

        Its standard input is written to with `write`, and ended with `close_input`. `tty`: it has
        a terminal. A command that takes too long is killed, and the iteration raises
        TimeoutExceeded.
        """
        words = ["sh", "-c", command] if isinstance(command, str) else list(command)
        seconds = self._timeout if timeout is None else timeout
        if not seconds > 0:
            raise InvalidArgument(f"{seconds} is no number of seconds to wait for a command.")
        limit = 0.0 if math.isinf(seconds) else seconds
        spec = exec_spec(words, env=env, user=user, working_dir=cwd, tty=tty, timeout=limit)
        return Process(self._client, self.id, spec)

    def run_python(
        self, code: str, *, timeout: float | None = None, limit: int = LIMIT
    ) -> PythonResult:
        """Run Python code to its end: what it wrote, the value of its last expression, its error.

        One interpreter, the sandbox's python3, runs all of it and keeps what it has defined. Code
        that takes longer than `timeout` seconds is interrupted (KeyboardInterrupt); where it goes
        on, the interpreter is killed. Either raises PythonTimeout, which has what it wrote. What
        the code itself raises is in the result.

        Raises CommandNotFound where there is no python3.
        """
        return self._python.run(code, self._seconds(timeout), limit)

    def restart_python(self) -> None:
        """Let `run_python` go on with an interpreter that knows nothing."""
        self._python.restart()

    # Points in time

    def snapshot(
        self, name: str = "", *, memory: bool | None = None, timeout: float | None = None
    ) -> str:
        """Keep its files as they are now, and a VM's memory, unless told not to; the snapshot's
        id. It is paused for a moment. Snapshots go with their sandbox."""
        wanted = self.isolation is Isolation.VM if memory is None else memory
        with deadline(self._seconds(timeout), "The snapshot"):
            taken = self._client.snapshot(self.id, name, memory=wanted)
        return str(taken["id"])

    def rollback(self, snapshot: str, *, timeout: float | None = None) -> None:
        """Give it back what one of its snapshots, by name or id, has kept. What runs in it ends;
        a VM goes on in the memory that was kept."""
        self._python.restart()
        with deadline(self._seconds(timeout), "The rollback"):
            self._client.rollback(self.id, snapshot)

    def fork(
        self, n: int = 1, *, snapshot: str = "", timeout: float | None = None
    ) -> list[Self]:
        """`n` new sandboxes with what it has now, or with what one of its snapshots has kept.

        A container's files; a VM's memory as well, in which all processes go on. Each has the same
        labels, and a time to live that begins anew; each is closed by itself: the end of this one
        is none of theirs. `run_python` begins anew in each. Where one cannot be made there is none.
        """
        if n < 1:
            raise InvalidArgument(f"{n} is no number of forks.")
        made = together([lambda: self._fork(snapshot, self._seconds(timeout))] * n)
        if failed := [each for each in made if isinstance(each, BaseException)]:
            together([each.close for each in made if not isinstance(each, BaseException)])
            raise failed[0]
        return [each for each in made if not isinstance(each, BaseException)]

    def _fork(self, snapshot: str, seconds: float) -> Self:
        of = self.id if snapshot else ""
        with deadline(seconds, "The fork"):
            row = self._client.fork_of(snapshot or self.id, of=of)
        held = self._held.shared() if self._held else None
        return type(self)(self._client, row, self._timeout, held)

    # The rest

    def url(self, port: int, *, publish: bool = False, timeout: float | None = None) -> str:
        """Where what listens on its `port` answers for this host: http://ADDRESS:PORT.

        `publish`: for others, too, at a port of the host, which `create` was told of in `ports`.
        """
        with deadline(self._seconds(timeout), "Finding its address"):
            row = self._client.inspect(self.id)
        if not publish:
            if not row["address"]:
                raise SubletError(f"{self.name} has no address.", hint="It is on no network.")
            return f"http://{row['address']}:{port}"
        for each in row["ports"]:
            if each["container_port"] == port and each["host_port"]:
                host = each["host_ip"] if each["host_ip"] != "0.0.0.0" else "127.0.0.1"
                return f"http://{host}:{each['host_port']}"
        raise InvalidArgument(
            f"Port {port} of {self.name} is not published.",
            hint=f"Make the sandbox with ports=[{port}].",
        )

    def close(self) -> None:
        """Delete it and all that it has; one that is gone is fine."""
        self._python.close()
        try:
            with deadline(max(self._timeout, 60.0), "The end of the sandbox"):
                self._client.remove(self.id, force=True, volumes=True)
        except NoSuchInstance:
            pass
        held, self._held = self._held, None
        if held:
            held.leave()

    def _seconds(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else timeout
