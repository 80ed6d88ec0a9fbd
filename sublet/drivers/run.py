"""The one seam through which programs are called.

Argument lists only, never a shell. A program runs in a session of its own, is
killed with its children when the caller is cancelled, and (unless `survive`)
when the daemon dies. A failure is logged as a command that one can paste.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sublet.domain.errors import DiskFull, ProcessFailed, ToolMissing
from sublet.drivers import linux

log = logging.getLogger(__name__)

HELPER = Path(sys.executable).parent.parent / "libexec" / "sublet-supervisor"
"""The one program of our own (`supervisor/`), built into .venv by scripts/setup."""

KEPT_OUTPUT = 64 * 1024
OnLine = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Result:
    """What a program left: its exit code (negative: the signal that ended it) and its output."""

    code: int
    stdout: bytes
    stderr: str


def die_with_parent() -> None:
    """For `before_exec`: SIGKILL when the parent thread ends (prctl(2), PR_SET_PDEATHSIG)."""
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)


def alone(argv: Sequence[str]) -> list[str]:
    """`argv` in mount and pid namespaces of its own: its mounts and children end with it.

    For tools that mount, or that leave children when they are killed (unshare(1)). What the host
    unmounts meanwhile goes here, too, if it is shared: a copy would keep its disk busy.
    """
    options = ["--mount", "--propagation=slave", "--pid", "--fork"]
    options += ["--kill-child=KILL", "--mount-proc"]
    return ["unshare", *options, "--", *argv]


async def spawn(
    argv: Sequence[str],
    *,
    survive: bool = False,
    before_exec: Callable[[], None] | None = None,
    **options: Any,
) -> asyncio.subprocess.Process:
    """Start a program; `options` as for `asyncio.create_subprocess_exec`.

    `before_exec` runs in the child just before exec. Raises ToolMissing where the
    program is not installed, FileNotFoundError where the directory `cwd` is not there.
    """

    def prepare() -> None:
        if not survive:
            die_with_parent()
        if before_exec:
            before_exec()

    if shutil.which(argv[0]) is None:
        raise ToolMissing(f"{argv[0]} is not installed on this host.")
    log.debug("run: %s", shlex.join(argv))
    try:
        return await asyncio.create_subprocess_exec(
            *argv,
            start_new_session=True,
            preexec_fn=prepare if (before_exec or not survive) else None,
            **options,
        )
    except FileNotFoundError as error:
        if options.get("cwd") is not None and not os.path.isdir(options["cwd"]):
            raise  # it was removed meanwhile; the program is there
        raise ToolMissing(f"{argv[0]} cannot be started: {error}.") from error


def launch(
    argv: list[str], descriptors: Sequence[int] = (), env: Mapping[str, str] | None = None
) -> int:
    """Start a program that outlives the daemon (asyncio would kill its own when the loop is
    closed); its pid, which somebody has to wait for (`reap_later`, `reap`).

    `descriptors` become its 3, 4 and so on; its standard streams are /dev/null, its
    environment is PATH and `env`. The daemon is not copied for it (posix_spawn(3)), which with
    many megabytes takes longer than the program.
    """
    log.debug("launch: %s", shlex.join(argv))
    actions: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0)]
    actions += [(os.POSIX_SPAWN_DUP2, 0, number) for number in (1, 2)]
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64) for fd in descriptors]
    actions += [(os.POSIX_SPAWN_DUP2, fd, 3 + number) for number, fd in enumerate(high)]
    environment = {"PATH": os.environ.get("PATH", os.defpath), **(env or {})}
    try:
        pid = os.posix_spawnp(
            argv[0],
            argv,
            environment,
            file_actions=actions,
            setsid=True,
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # which Python ignores
        )
    except FileNotFoundError as error:
        raise ToolMissing(f"{argv[0]} cannot be started: {error}.") from error
    finally:
        for fd in high:
            os.close(fd)
    return pid


def is_child(pid: int) -> bool:
    """Whether the process was launched here, and nobody has waited for it: it has its pid still."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def reap_later(pid: int) -> None:
    """Wait in the background for the end of what was launched."""
    loop, fd = asyncio.get_running_loop(), os.pidfd_open(pid)

    def reap() -> None:
        loop.remove_reader(fd)
        os.close(fd)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)

    loop.add_reader(fd, reap)


def reap(pid: int) -> bool:
    """Whether a program that was launched has ended; if it has, its entry is gone."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:  # an earlier daemon's, or reaped
        return not Path(f"/proc/{pid}").exists()


async def run(
    argv: Sequence[str],
    *,
    check: bool = True,
    timeout: float = 600,
    input: bytes | None = None,
    stdin: int | None = None,
    stdout: int | None = None,
    on_line: OnLine | None = None,
    env: Mapping[str, str] | None = None,
    before_exec: Callable[[], None] | None = None,
    grace: float = 0,
    most: int | None = None,
    **options: Any,
) -> Result:
    """Run a program to its end.

    `input` is fed to it; `stdin`/`stdout` are descriptors used instead of pipes.
    `on_line` gets each line of standard error (and of standard output, unless it is
    redirected) as it comes. `env` is added to the environment. `timeout` in seconds. A program
    whose caller is cancelled gets SIGINT, and `grace` seconds to end in good order. `most` bytes
    of standard output are taken.

    Raises ProcessFailed if it exits other than 0 (unless not `check`), runs too
    long or writes more, DiskFull if it says that there is no space left, ToolMissing.
    """
    process = await spawn(
        argv,
        before_exec=before_exec,
        stdin=stdin if stdin is not None else asyncio.subprocess.PIPE,
        stdout=stdout if stdout is not None else asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **env} if env else None,
        **options,
    )
    try:
        async with asyncio.timeout(timeout):
            out, err, _ = await asyncio.gather(
                _collect(process.stdout, on_line, None, most),
                _collect(process.stderr, on_line, KEPT_OUTPUT),
                _feed(process.stdin, input),
            )
            code = await process.wait()
    except TimeoutError as error:
        raise ProcessFailed(
            f"{argv[0]} did not end within {timeout:g} s.", hint=f"Command: {shlex.join(argv)}"
        ) from error
    finally:
        await end(process, grace)
    result = Result(code, out, err.decode(errors="replace"))
    if check and code != 0:
        raise failure(argv, result)
    return result


def failure(argv: Sequence[str], result: Result) -> ProcessFailed | DiskFull:
    """The error that `result` amounts to; logs the command for pasting."""
    log.warning("failed with %s: %s\n%s", result.code, shlex.join(argv), result.stderr[-4000:])
    last = [line for line in result.stderr.strip().splitlines() if line.strip()][-3:]
    why = "; ".join(last) or "it said nothing"
    if "no space left" in result.stderr.lower():
        return DiskFull(f"No space left on the host while {argv[0]} was writing.")
    return ProcessFailed(f"{argv[0]} failed ({result.code}): {why}")


async def end(process: asyncio.subprocess.Process, grace: float = 0) -> None:
    """Kill the program and its session's process group, if it still runs, and reap it; with
    `grace`, interrupt it first and let it end by itself for so many seconds."""
    if process.returncode is None and grace:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        await asyncio.shield(asyncio.wait([asyncio.ensure_future(process.wait())], timeout=grace))
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.shield(process.wait())


async def _feed(stream: asyncio.StreamWriter | None, data: bytes | None) -> None:
    if stream is None:
        return
    try:
        if data:
            stream.write(data)
            await stream.drain()
        stream.close()
        await stream.wait_closed()
    except (BrokenPipeError, ConnectionResetError):
        pass


async def _collect(
    stream: asyncio.StreamReader | None,
    on_line: OnLine | None,
    keep: int | None,
    most: int | None = None,
) -> bytes:
    """Everything the stream gives (the last `keep` bytes), lines passed on as they come."""
    if stream is None:
        return b""
    kept, partial = bytearray(), b""
    while chunk := await stream.read(65536):
        kept += chunk
        if most is not None and len(kept) > most:
            raise ProcessFailed(f"A program wrote more than {most} bytes.")
        if keep is not None and len(kept) > 2 * keep:
            del kept[:-keep]
        if on_line:
            *lines, partial = (partial + chunk).replace(b"\r", b"\n").split(b"\n")
            for line in lines:
                if line.strip():
                    on_line(line.decode(errors="replace").rstrip())
    if on_line and partial.strip():
        on_line(partial.decode(errors="replace").rstrip())
    return bytes(kept)
