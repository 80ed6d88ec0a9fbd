"""Running containers: crun does the work, a supervisor of our own watches over each.

The supervisor (`supervisor/`, one static C program) starts the container, keeps the log,
hands out the standard streams, and writes the exit code, whether the daemon lives or not.
Supervisors and runtimes work in a mount namespace that the daemon makes once, because crun
refuses a mixed cgroup layout unless it sees nothing but a cgroup2 mount, and because it
gives the container's root whatever its standard input is: /dev/null is read-only there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from sublet.domain.errors import (
    CommandNotExecutable,
    CommandNotFound,
    InvalidArgument,
    StartFailed,
    SubletError,
    ToolMissing,
)
from sublet.drivers import namespaces, run
from sublet.drivers.cgroup import Entrances
from sublet.drivers.container import protocol
from sublet.drivers.container.protocol import Tell
from sublet.drivers.container.streams import Attachment

START_DEADLINE, END_DEADLINE = 60.0, 5.0
_LOGGED = re.compile(r'msg="(.*)"$')
"""How runc says what went wrong."""

_MISSING = ("No such file or directory", "not found in $PATH", "no such file")
_REFUSED = (
    *("Permission denied", "permission denied", "Exec format error", "Is a directory"),
    *("exec format error", "is a directory"),
    "open executable: Operation not permitted",  # crun's word for a directory
)


@dataclass(frozen=True, slots=True)
class Started:
    """A container that runs its command: pids of its first process and of the supervisor; its
    streams from the first byte on, where they were asked for."""

    pid: int
    supervisor: int
    streams: Attachment | None


@dataclass(frozen=True, slots=True)
class Supervision:
    """What the supervisor needs for one container.

    Its directory, the log (None: there is none), that one's size in bytes before it is
    rotated and how many files of it there may be, whether it has a terminal and a standard
    input, the cgroups that it enters itself, and those that the container enters.
    """

    instance_id: str
    directory: Path
    log: Path | None
    log_size: int
    log_files: int
    tty: bool
    stdin: bool
    own_cgroups: Entrances
    cgroups: Entrances


class Supervisor:
    """Starts supervised containers of one daemon. `state` is the runtime's directory."""

    def __init__(self, state: Path, *, unified: bool) -> None:
        self.state = state
        self.unified = unified
        self.runtime = _find_runtime()
        options = ["--root", str(state)]
        if Path(self.runtime).name == "crun":
            options.append("--cgroup-manager=disabled")
        self.options = options
        self._namespace = -1

    def setup(self) -> None:
        """Make the mount namespace of supervisors and runtimes. Those of an earlier daemon keep
        theirs."""
        if not run.HELPER.exists():
            raise ToolMissing(f"{run.HELPER} is missing.", hint="Run `make setup`.")
        if self._namespace < 0:
            self._namespace = namespaces.mounts_for_runtimes(cgroup2=not self.unified)

    def close(self) -> None:
        """Let go of the mount namespace; it ends with its last supervisor."""
        if self._namespace >= 0:
            os.close(self._namespace)
            self._namespace = -1

    def version(self) -> str:
        return Path(self.runtime).name

    async def start(self, spec: Supervision, *, attach: bool) -> Started:
        """Run the container whose bundle is in the directory.

        Raises CommandNotFound, CommandNotExecutable, or StartFailed with the runtime's reason;
        then, and when it is cancelled, the supervisor has ended.
        """
        ours, theirs = protocol.pair()
        if attach:
            ours.send(protocol.packet(protocol.Ask.ATTACH))
        with theirs:
            pid = run.launch(
                supervisor_argv(spec, self.runtime, self.options, self.state),
                descriptors=(theirs.fileno(), self._namespace),
            )
        run.reap_later(pid)
        try:
            pid, supervisor = await _answer(ours)
        except BaseException:
            await _gone(ours)
            raise
        if attach:
            return Started(pid, supervisor, Attachment(ours))
        ours.close()
        return Started(pid, supervisor, None)

    def filter(self, instance_id: str) -> bytes:
        """The seccomp filter that crun compiled for a container; nothing where it left none."""
        with contextlib.suppress(OSError):
            return (self.state / instance_id / "seccomp.bpf").read_bytes()
        return b""

    def delete(self, instance_id: str) -> None:
        """Drop what the runtime remembers of a container that has ended. Idempotent."""
        shutil.rmtree(self.state / instance_id, ignore_errors=True)


def supervisor_argv(spec: Supervision, runtime: str, options: list[str], state: Path) -> list[str]:
    """The supervisor's command line for one container, which the runtime keeps in `state`."""
    own = str(spec.directory)
    argv = [str(run.HELPER), f"--directory={own}"]
    if spec.log:
        argv += [f"--log={spec.log}", f"--log-size={spec.log_size}"]
        argv.append(f"--log-files={spec.log_files}")
    argv += spec.cgroups.options(spec.own_cgroups)
    argv += (["--terminal"] if spec.tty else []) + (["--input"] if spec.stdin else [])
    argv.append(f"--gate={state / spec.instance_id / 'exec.fifo'}")
    argv += ["--", runtime, *options, "create", f"--bundle={own}"]
    argv.append(f"--pid-file={own}/pid")
    if spec.tty:
        argv.append(f"--console-socket={own}/console")
    return [*argv, spec.instance_id]


def explain(text: str) -> SubletError:
    """The error that the runtime's complaint amounts to."""
    reason = text.strip().splitlines()[-1] if text.strip() else "the runtime said nothing"
    logged = _LOGGED.search(reason)
    if logged:
        reason = logged[1].replace('\\"', "'")
    reason = reason.removeprefix("crun: ").removeprefix("executable file ").strip()
    if "/proc/sys/" in text:
        return InvalidArgument(
            f"A sysctl cannot be set: {reason}.",
            hint="Mend its name and value; some belong to the host alone.",
        )
    if reason.startswith("chdir"):
        why = reason.rpartition(": ")[2]
        return CommandNotExecutable(
            f"The command cannot be executed: its working directory cannot be entered: {why}."
        )
    about_command = "executable" in text or "exec" in text or "open" in text
    if about_command and any(sign in text for sign in _MISSING):
        return CommandNotFound(f"No such command in the image: {reason}.")
    if about_command and any(sign in text for sign in _REFUSED):
        return CommandNotExecutable(f"The command cannot be executed: {reason}.")
    return StartFailed(f"The container could not be started: {reason}.")


async def _gone(connection: socket.socket) -> None:
    """Take a start back: nothing more is said to the supervisor, which ends. Closes."""
    with contextlib.closing(connection), contextlib.suppress(TimeoutError, OSError):
        connection.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(END_DEADLINE):
            while await protocol.receive(connection):
                pass


async def _answer(connection: socket.socket) -> tuple[int, int]:
    """The pids of the container's first process and of the supervisor, or the error for which
    there are none."""
    try:
        async with asyncio.timeout(START_DEADLINE):
            message = await protocol.receive(connection)
    except TimeoutError as error:
        raise StartFailed(f"The runtime did not start it within {START_DEADLINE:g} s.") from error
    if message is None:
        raise StartFailed("The supervisor ended before the container was there.")
    if message.kind != Tell.STARTED:
        raise explain(message.data.decode(errors="replace"))
    pid, supervisor = message.numbers
    return pid, supervisor


def _find_runtime() -> str:
    for name in ("crun", "runc"):
        found = shutil.which(name)
        if found:
            return found
    raise ToolMissing("Neither crun nor runc is installed on this host.")
