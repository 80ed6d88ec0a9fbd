"""Running containers: crun does the work, conmon watches over it.

conmon keeps the log, hands out the standard streams, and writes the exit code, whether
the daemon lives or not. Both run in a mount namespace of their own, because crun
refuses a mixed cgroup layout unless it sees nothing but a cgroup2 mount, and because it
gives the container's root whatever its standard input is: /dev/null is read-only there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import Callable
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
from sublet.drivers import linux, run

CREATE_DEADLINE = 60.0
_MISSING = ("No such file or directory", "not found in $PATH", "no such file")
_REFUSED = (
    *("Permission denied", "permission denied", "Exec format error", "Is a directory"),
    "open executable: Operation not permitted",  # crun's word for a directory
)


@dataclass(frozen=True, slots=True)
class Created:
    """A container that waits to be started: pids of its first process and of conmon."""

    pid: int
    supervisor: int


@dataclass(frozen=True, slots=True)
class Supervision:
    """What conmon needs for one container: paths, whether it has a terminal and a standard
    input, and the cgroup files to enter."""

    instance_id: str
    directory: Path
    log: Path
    tty: bool
    stdin: bool
    procs_files: list[str]


class Supervisor:
    """Starts and ends supervised containers of one daemon. `state` is the runtime's directory."""

    def __init__(self, state: Path, *, unified: bool) -> None:
        self.state = state
        self.unified = unified
        self.runtime = _find_runtime()
        options = ["--root", str(state)]
        if Path(self.runtime).name == "crun":
            options.append("--cgroup-manager=disabled")
        self.options = options

    def version(self) -> str:
        return Path(self.runtime).name

    def entering(self, procs_files: list[str]) -> Callable[[], None]:
        """For `before_exec`: enter the cgroups, and a mount namespace that crun runs in."""
        unified = self.unified

        def enter() -> None:
            for file in procs_files:
                with open(file, "w") as procs:
                    procs.write("0")
            linux.unshare(linux.CLONE_NEWNS)
            linux.mount("", "/", flags=linux.MS_REC | linux.MS_SLAVE)
            linux.mount("/dev/null", "/dev/null", flags=linux.MS_BIND)
            flags = linux.MS_BIND | linux.MS_REMOUNT | linux.MS_RDONLY
            linux.mount("", "/dev/null", flags=flags)
            if not unified:
                linux.mount("cgroup2", "/sys/fs/cgroup", "cgroup2")

        return enter

    async def create(self, spec: Supervision) -> Created:
        """Start conmon and have it create the container, up to just before its command.

        Raises CommandNotFound, CommandNotExecutable, or StartFailed with the runtime's reason.
        """
        reader, writer = os.pipe()
        try:
            process = await run.spawn(
                conmon_argv(spec, self.runtime, self.options),
                survive=True,
                before_exec=self.entering(spec.procs_files),
                pass_fds=(writer,),
                env={**os.environ, "_OCI_SYNCPIPE": str(writer)},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
        finally:
            os.close(writer)
        answer = await _read_line(reader, CREATE_DEADLINE)
        await process.wait()
        return _created(answer, spec)

    async def start(self, instance_id: str) -> None:
        """Let the created container run its command."""
        argv = [self.runtime, *self.options, "start", instance_id]
        result = await run.run(argv, check=False, timeout=CREATE_DEADLINE)
        if result.code != 0:
            raise explain(result.stderr)

    async def delete(self, instance_id: str) -> None:
        """Drop what the runtime remembers of a container that has ended. Idempotent."""
        await asyncio.to_thread(shutil.rmtree, self.state / instance_id, ignore_errors=True)


def conmon_argv(spec: Supervision, runtime: str, options: list[str]) -> list[str]:
    """conmon's command line for one container (conmon(8))."""
    own, name = spec.directory, spec.instance_id
    argv = ["conmon", "--api-version", "1", "-c", name, "-u", name, "-n", name]
    argv += ["-r", runtime, "-b", str(own), "-p", str(own / "pid")]
    argv += ["-P", str(own / "conmon.pid"), "--exit-dir", str(own / "exit"), "--full-attach"]
    argv += ["-l", f"k8s-file:{spec.log}", "--log-level", "error", "--no-sync-log"]
    for option in options:
        argv += ["--runtime-arg", option]
    return argv + (["-t"] if spec.tty else []) + (["-i"] if spec.stdin else [])


def explain(text: str) -> SubletError:
    """The error that the runtime's complaint amounts to."""
    reason = text.strip().splitlines()[-1] if text.strip() else "the runtime said nothing"
    reason = reason.removeprefix("crun: ").removeprefix("executable file ").strip()
    if "/proc/sys/" in text:
        return InvalidArgument(
            f"A sysctl cannot be set: {reason}.",
            hint="Mend its name and value; some belong to the host alone.",
        )
    about_command = "executable" in text or "exec" in text or "open" in text
    if about_command and any(sign in text for sign in _MISSING):
        return CommandNotFound(f"No such command in the image: {reason}.")
    if about_command and any(sign in text for sign in _REFUSED):
        return CommandNotExecutable(f"The command cannot be executed: {reason}.")
    return StartFailed(f"The container could not be started: {reason}.")


def _created(answer: bytes, spec: Supervision) -> Created:
    try:
        data = json.loads(answer)
    except ValueError:
        raise StartFailed("conmon ended before the container was there.") from None
    pid = int(data.get("data", data.get("pid", -1)))
    if pid <= 0:
        raise explain(str(data.get("message", "")))
    return Created(pid, int((spec.directory / "conmon.pid").read_text()))


async def _read_line(fd: int, deadline: float) -> bytes:
    """One line from a pipe; closes it."""
    loop = asyncio.get_running_loop()
    stream = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(fd, "rb")
    )
    with contextlib.closing(transport):
        try:
            async with asyncio.timeout(deadline):
                return await stream.readline()
        except TimeoutError as error:
            raise StartFailed(f"conmon did not answer within {deadline:g} s.") from error


def _find_runtime() -> str:
    for name in ("crun", "runc"):
        found = shutil.which(name)
        if found:
            return found
    raise ToolMissing("Neither crun nor runc is installed on this host.")
