"""A command of this host that one of ours waits for: `sublet with … -- COMMAND`."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Mapping

from sublet.domain.errors import CommandNotExecutable, CommandNotFound

_FORWARDED = frozenset(
    (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
)
_SI_KERNEL = 0x80
"""Of a signal that a terminal has sent (sigaction(2)), to the command as well."""


def run(argv: list[str], env: Mapping[str, str]) -> int:
    """Run it to its end; its exit code, 128 + N where signal N has ended it. Signals that others
    send are handed on. Raises CommandNotFound, CommandNotExecutable."""
    watched = _FORWARDED | {signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    try:
        return _follow(_spawn(argv, env, before), watched)
    finally:
        while signal.sigtimedwait(watched, 0):  # what was for the command is not for us
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def check(argv: list[str]) -> None:
    """Find out that there is no such command before anything is started, or built, for it. Raises
    CommandNotFound, CommandNotExecutable."""
    name = argv[0]
    if os.path.dirname(name):
        found = name if os.path.exists(name) else None
    else:
        found = shutil.which(name) or shutil.which(name, os.F_OK)
    if not found:
        raise _absent(name)
    if os.path.isdir(found) or not os.access(found, os.X_OK):
        raise _not_executable(found, errno.EACCES)


def _absent(name: str) -> CommandNotFound:
    return CommandNotFound(
        f"There is no command '{name}' on this host.",
        hint="It runs here, not in a service: mend its spelling, or install it.",
    )


def _not_executable(name: str, number: int) -> CommandNotExecutable:
    return CommandNotExecutable(
        f"'{name}' cannot be executed: {os.strerror(number)}.",
        hint="Make it executable (`chmod +x`), or name its interpreter first.",
    )


def _spawn(argv: list[str], env: Mapping[str, str], mask: set[signal.Signals | int]) -> int:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # who started us may have had it ignored
    ours = [signal.SIGPIPE, signal.SIGXFSZ]  # Python ignores them; the command need not
    try:
        return os.posix_spawnp(argv[0], argv, env, setsigmask=mask, setsigdef=ours)
    except FileNotFoundError as error:
        raise _absent(argv[0]) from error
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.ENOEXEC, errno.ENOTDIR, errno.EISDIR):
            raise
        raise _not_executable(argv[0], error.errno or errno.EACCES) from error


def _follow(pid: int, watched: frozenset[signal.Signals]) -> int:
    while True:
        told = signal.sigwaitinfo(watched)
        if told.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
        elif told.si_code != _SI_KERNEL:
            os.kill(pid, told.si_signo)
