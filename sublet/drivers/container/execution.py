"""Further processes in running containers: `exec`.

The container's supervisor starts them, in the container's cgroups, and ends them when the
connection by which they were asked for ends: none outlives its client, nor the daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sublet.domain.errors import StartFailed, WrongState
from sublet.drivers import descent
from sublet.drivers.container import protocol
from sublet.drivers.container import spec as oci
from sublet.drivers.container.containers import Containers, as_user
from sublet.drivers.container.protocol import Ask, Tell
from sublet.drivers.container.rootfs import Root
from sublet.drivers.container.streams import ConsoleSocket, Pipes, Streams, Terminal
from sublet.drivers.container.supervisor import Supervisor, explain

START_DEADLINE = 20.0
KILLED = 137
"""Exit code of a process whose container ended with it."""


@dataclass(frozen=True, slots=True)
class Execution:
    """One process that was started in a container; `streams` are its input and output."""

    connection: socket.socket
    streams: Streams
    pid: int
    near: Callable[[], Iterable[int]]
    """All processes of its container; pids are those of the host."""

    async def wait(self) -> int:
        """The exit code; 128 + n for signal n."""
        while message := await protocol.receive(self.connection):
            if message.kind == Tell.EXITED:
                return message.number
        return KILLED

    def signal(self, number: int) -> None:
        """Send a signal to the process."""
        with contextlib.suppress(OSError):  # it has ended
            self.connection.send(protocol.numbers(Ask.SIGNAL, number))

    async def kill(self) -> None:
        """Kill the process and all that it has started."""
        await asyncio.to_thread(descent.kill, self.pid, self.near)

    def close(self) -> None:
        """End the process, and its group, if it still runs."""
        self.connection.close()
        self.streams.close()


async def execute(
    containers: Containers, instance_id: str, process: oci.Process, user: str, uid_base: int
) -> Execution:
    """Start `process` in a running container, as `user[:group]` of its image.

    Raises CommandNotFound, CommandNotExecutable or StartFailed where the command could not
    be started, WrongState where the container has just ended.
    """
    at = containers.places(instance_id)
    with Root(at.rootfs, uid_base) as root:
        process = as_user(process, root.user(user, process.join))
    data = json.dumps(oci.process(process, containers.rights)).encode()
    connection = _connect(containers, instance_id)
    ours, theirs = _pipes(uid_base + process.uid)
    pipes, name = Pipes(*ours), str(at.run / f"exec-{secrets.token_hex(4)}")
    console = ConsoleSocket(Path(f"{name}.tty")) if process.tty else None
    try:
        argv = exec_argv(containers.supervisor, instance_id, name, tty=process.tty)
        _ask(connection, protocol.execution(f"{name}.pid", argv), theirs, data)
        pid = await _started(connection, pipes, console)
        near = partial(containers.cgroups.pids, instance_id)
        if console is None:
            return Execution(connection, pipes, pid, near)
        pipes.close()
        return Execution(connection, Terminal(await console.receive()), pid, near)
    except BaseException:
        connection.close()
        pipes.close()
        raise
    finally:
        if console:
            console.close()


def exec_argv(supervisor: Supervisor, instance_id: str, name: str, *, tty: bool) -> list[str]:
    """The runtime's command line. Descriptor 3 will be the OCI process; what else the runtime
    leaves or is given are files that begin with `name`."""
    argv = [supervisor.runtime, *supervisor.options, "exec", "--detach"]
    argv += ["--process=/proc/self/fd/3", f"--pid-file={name}.pid"]
    if tty:
        argv += ["--tty", f"--console-socket={name}.tty"]
    return [*argv, instance_id]


def _connect(containers: Containers, instance_id: str) -> socket.socket:
    try:
        return protocol.connect(containers.places(instance_id).run)
    except OSError as error:
        raise WrongState(f"{instance_id} does not run any more.") from error


def _pipes(owner: int) -> tuple[list[int], list[int]]:
    """Ends of the pipes for standard input, output and errors: ours, and the process's, whose
    owner may open /dev/stdout and its like anew."""
    (input_read, input_write), *outputs = (os.pipe() for _ in range(3))
    theirs = [input_read, *(write for _, write in outputs)]
    for fd in theirs:
        os.fchown(fd, owner, owner)
    return [input_write, *(read for read, _ in outputs)], theirs


def _ask(connection: socket.socket, message: bytes, streams: list[int], process: bytes) -> None:
    """Send the request with the descriptors that belong to it, which are closed here."""
    specification = os.memfd_create("process")
    try:
        with os.fdopen(os.dup(specification), "wb") as file:
            file.write(process)
        os.lseek(specification, 0, os.SEEK_SET)
        socket.send_fds(connection, [message], [*streams, specification])
    finally:
        for fd in (*streams, specification):
            os.close(fd)


async def _started(connection: socket.socket, pipes: Pipes, console: ConsoleSocket | None) -> int:
    """The process runs its command: its pid. Raises the error for which it does not."""
    try:
        async with asyncio.timeout(START_DEADLINE):
            message = await protocol.receive(connection)
            if message and message.kind == Tell.FAILED:
                text = pipes.complaint()
                if console and not text:  # its errors were the terminal already
                    terminal = Terminal(await console.receive())
                    text = terminal.complaint()
                    terminal.close()
                raise explain(text)
    except TimeoutError as error:
        raise StartFailed(f"The runtime did not start it within {START_DEADLINE:g} s.") from error
    if message is None:
        raise WrongState("The container ended before the command ran.")
    return message.number
