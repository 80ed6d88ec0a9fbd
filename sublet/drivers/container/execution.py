"""Further processes in running containers: `exec`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
from pathlib import Path

from sublet.domain.errors import StartFailed, SubletError
from sublet.drivers import processes, run
from sublet.drivers.container import spec as oci
from sublet.drivers.container.containers import Containers, as_user
from sublet.drivers.container.rootfs import Root
from sublet.drivers.container.streams import (
    STDERR,
    STDOUT,
    ConsoleSocket,
    Emit,
    Pipes,
    Streams,
    Terminal,
)
from sublet.drivers.container.supervisor import explain

START_DEADLINE, TERMINAL_DEADLINE = 10.0, 20.0
_COMPLAINTS = (b"executable file ", b"open executable")
_PATIENCE = 1.0
"""How the runtime's own complaints begin, and how long it has to end after one, in seconds."""


class Execution:
    """One process that was started in a container; `streams` are its input and output."""

    def __init__(self, process: asyncio.subprocess.Process, directory: Path) -> None:
        self._process = process
        self._directory = directory
        self.streams: Streams

    async def wait(self) -> int:
        """The exit code; 128 + n for signal n.

        Raises CommandNotFound, CommandNotExecutable or StartFailed where the command
        could not be started.
        """
        code = await self._process.wait()
        complaint = self._complaint()
        if complaint:
            raise complaint
        return 128 - code if code < 0 else code

    def _complaint(self) -> SubletError | None:
        try:
            text = (self._directory / "errors").read_text(errors="replace")
        except FileNotFoundError:
            return None
        return explain(text) if text.strip() else None

    async def pump(self, emit: Emit) -> None:
        """Hand the process's output to `emit`, but not what the runtime complains of."""

        async def own(stream: int, data: bytes) -> None:
            if stream == STDERR and data.startswith(_COMPLAINTS):
                await asyncio.wait([ended], timeout=_PATIENCE)  # it logs what it also prints
            if stream == STDOUT or not self._complaint():
                await emit(stream, data)

        ended = asyncio.ensure_future(self._process.wait())
        try:
            await self.streams.pump(own)
        finally:
            ended.cancel()

    def signal(self, number: int) -> None:
        """Send a signal to the process."""
        if pid := self._pid():
            processes.send(pid, processes.start_time(pid), number)

    def _pid(self) -> int:
        """The process's pid on the host, 0 as long as the runtime has not left it."""
        try:
            return int((self._directory / "pid").read_text())
        except (FileNotFoundError, ValueError):
            return 0

    async def _started(self) -> None:
        """Wait until the runtime has left the process's pid, or has ended: without it, the
        process would outlive the runtime."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_DEADLINE):
                while self._process.returncode is None and not self._pid():  # noqa: ASYNC110
                    await asyncio.sleep(0.005)

    async def close(self) -> None:
        """End the process if it still runs, and remove what was made for it."""
        if self._process.returncode is None:
            await self._started()
            self.signal(9)
        await run.end(self._process)
        if hasattr(self, "streams"):
            self.streams.close()
        shutil.rmtree(self._directory, ignore_errors=True)


async def execute(
    containers: Containers, instance_id: str, process: oci.Process, user: str, uid_base: int
) -> Execution:
    """Start `process` in a running container, as `user[:group]` of its image."""
    at = containers.places(instance_id)
    directory = at.run / f"exec-{secrets.token_hex(4)}"
    directory.mkdir(mode=0o700)
    try:
        with Root(at.rootfs, uid_base) as root:
            process = as_user(process, root.user(user, process.join))
        data = oci.process(process, containers.rights)
        (directory / "process.json").write_text(json.dumps(data))
        owner = uid_base + process.uid
        return await _launch(containers, instance_id, directory, owner, tty=process.tty)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


async def _launch(
    containers: Containers, instance_id: str, directory: Path, owner: int, *, tty: bool
) -> Execution:
    supervisor = containers.supervisor
    enter = supervisor.entering(containers.cgroups.procs_files(instance_id))

    def prepare() -> None:
        for stream in (0, 1, 2):  # the process may open /dev/stdout and its like anew
            os.fchown(stream, owner, owner)
        enter()

    argv = [supervisor.runtime, *supervisor.options, "--log", str(directory / "errors")]
    argv += ["exec", "--process", str(directory / "process.json")]
    argv += ["--pid-file", str(directory / "pid")]
    # Signals are for the process, and an unlimited wait is what the caller asked for.
    console = ConsoleSocket(directory / "tty") if tty else None
    if console:
        argv += ["--tty", "--console-socket", str(console.path)]
    try:
        child = await run.spawn(
            [*argv, instance_id],
            before_exec=prepare,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        execution = Execution(child, directory)
        try:
            streams = await _terminal(console, execution, child) if console else Pipes(child)
            execution.streams = streams
        except BaseException:
            await execution.close()
            raise
        return execution
    finally:
        if console:
            console.close()


async def _terminal(
    console: ConsoleSocket, execution: Execution, child: asyncio.subprocess.Process
) -> Terminal:
    """The terminal that the runtime hands over, or the error for which it did not."""
    handed = asyncio.ensure_future(console.receive())
    ended = asyncio.ensure_future(child.wait())
    try:
        await asyncio.wait(
            {handed, ended}, timeout=TERMINAL_DEADLINE, return_when=asyncio.FIRST_COMPLETED
        )
        if handed.done():
            return Terminal(handed.result())
        if ended.done():
            await execution.wait()
        raise StartFailed("The runtime handed over no terminal.")
    finally:
        for task in (handed, ended):
            task.cancel()
