"""Finding the daemon's socket, and starting the daemon when none answers."""

from __future__ import annotations

import os
import sys
import time

from sublet.domain.errors import DaemonUnavailable

DEADLINE = 30.0
_PAUSE = 0.01


def run_directory() -> str:
    return os.environ.get("SUBLET_RUN") or "/run/sublet"


def socket_path() -> str:
    return f"{run_directory()}/sublet.sock"


def silent(path: str) -> DaemonUnavailable:
    """The error for a socket at which nobody answers."""
    return DaemonUnavailable(f"No daemon answers at {path}.")


class Launch:
    """One attempt at getting the daemon up. `again` is asked after each failed connection."""

    def __init__(self) -> None:
        self._pid = 0
        self._until = 0.0

    def again(self, error: OSError) -> float:
        """Seconds to wait before connecting again; starts the daemon the first time.

        Raises DaemonUnavailable when there is no right to, or when the daemon ended
        or did not answer in time.
        """
        if isinstance(error, PermissionError):
            raise DaemonUnavailable(
                "The daemon's socket may be used by root and the group 'sublet' only.",
                hint="Use sudo, or join the group and log in again.",
            ) from error
        if not isinstance(error, FileNotFoundError | ConnectionRefusedError):
            raise DaemonUnavailable(f"The daemon does not answer: {error}.") from error
        if not self._pid:
            self._start()
        ended, status = os.waitpid(self._pid, os.WNOHANG)
        if ended and os.waitstatus_to_exitcode(status) != 0:
            self._another_or_fail()
        if time.monotonic() > self._until:
            raise self._failure(f"did not answer within {DEADLINE:g} s")
        return _PAUSE

    def _start(self) -> None:
        if os.geteuid() != 0:
            raise DaemonUnavailable(
                "No daemon is running, and only root can start one.", hint="Use sudo."
            )
        os.makedirs(run_directory(), mode=0o711, exist_ok=True)
        log = os.open(self._log(), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-P", "-m", "sublet.daemon"],
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, null, 0),
                    (os.POSIX_SPAWN_DUP2, log, 1),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                ],
                setsid=True,
                setsigmask=(),  # a thread of ours may have all of them blocked
            )
        finally:
            os.close(log)
            os.close(null)
        self._until = time.monotonic() + DEADLINE

    def _another_or_fail(self) -> None:
        """The daemon that was started has ended: perhaps because another one was faster."""
        text = self._tail()
        if "Another daemon already serves" not in text:
            raise self._failure("ended at once")
        self._pid = 0
        if time.monotonic() > self._until:
            raise self._failure("did not answer")

    @staticmethod
    def _log() -> str:
        return f"{run_directory()}/daemon.log"

    def _tail(self) -> str:
        """What the daemon said last: its error, if it ended with one."""
        try:
            with open(self._log(), errors="replace") as file:
                text = file.read()[-4096:]
        except OSError:
            return ""
        _, prefix, error = text.rpartition("\nsublet: ")
        lines = (error if prefix else text).removeprefix("sublet: ").strip().splitlines()
        return " ".join(lines if prefix else lines[-1:])

    def _failure(self, what: str) -> DaemonUnavailable:
        return DaemonUnavailable(
            f"The daemon was started but {what}. {self._tail()}".strip(),
            hint=f"Its log is {self._log()}; `sublet daemon` runs it in the foreground.",
        )
