"""Requests over HTTP by curl, as the user nobody: it has proxies, redirects and resumption.

Everything that it is told goes through its standard input: a token or a password is never
in an argument list. Source: curl(1).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sublet.domain.errors import PullFailed
from sublet.drivers import run
from sublet.drivers.confine import NOBODY

Options = Sequence[tuple[str, str]]
CONNECT, STALLED = 20, 60
"""Seconds within which a connection has to stand, and something has to arrive on it."""

BROKEN = {5, 6, 7, 16, 18, 28, 35, 52, 55, 56, 92}
"""Exit codes of a connection that did not come about or ended early: another try may help."""
NO_RANGE, TOO_LARGE = 33, 63
_REPORT = "%{stderr}%{http_code} %header{www-authenticate}\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """How a request ended: curl's exit code, the status (0: none), the challenge of a 401,
    the body unless it went elsewhere, and what curl complained of."""

    exit_code: int
    status: int
    challenge: str
    body: bytes
    complaint: str


async def get(
    url: str,
    options: Options,
    files: Sequence[tuple[str, bytes]] = (),
    *,
    sink: int | None = None,
    offset: int = 0,
    timeout: float = 60,
) -> Answer:
    """Fetch `url` from the byte `offset` on; into the descriptor `sink`, if one is given.

    `files` are options that name a file, and what is in it.
    """
    lines: list[tuple[str, str]] = [
        ("url", url),
        ("user-agent", "sublet"),
        ("connect-timeout", str(CONNECT)),
        ("speed-limit", "1"),
        ("speed-time", str(STALLED)),
        ("max-redirs", "5"),
        ("write-out", _REPORT),
        *options,
    ]
    if offset:
        lines.append(("continue-at", str(offset)))
    with contextlib.ExitStack() as opened:
        held = [(name, opened.enter_context(_held(data))) for name, data in files]
        lines += [(name, f"/proc/self/fd/{number}") for name, number in held]
        return await _call(lines, sink, timeout, pass_fds=[number for _, number in held])


@contextlib.contextmanager
def _held(data: bytes) -> Iterator[int]:
    """A descriptor of a file in memory that curl may read, wherever other files lie."""
    number = os.memfd_create("sublet")
    try:
        os.fchown(number, NOBODY, NOBODY)
        os.fchmod(number, 0o400)
        with os.fdopen(os.dup(number), "wb") as file:
            file.write(data)
        yield number
    finally:
        os.close(number)


async def _call(lines: Options, sink: int | None, timeout: float, **more: Any) -> Answer:
    switches = b"silent\nshow-error\nfail\nlocation\ngloboff\n"
    config = switches + b"".join(map(_line, lines))
    user = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"]
    # A change of the user makes the kernel forget that the program ends with the daemon.
    argv = ["setpriv", *user, "--pdeathsig=KILL", "--", "curl", "--disable", "--config", "-"]
    result = await run.run(argv, input=config, stdout=sink, check=False, timeout=timeout, **more)
    *said, last = result.stderr.strip().splitlines() or [""]
    status, _, challenge = last.partition(" ")
    number = int(status) if status.isdecimal() else 0
    return Answer(result.code, number, challenge.strip(), result.stdout, "; ".join(said))


def _line(option: tuple[str, str]) -> bytes:
    """One option as a line of a configuration file. Raises PullFailed for what is no text."""
    name, value = option
    if not value:
        return f"{name}\n".encode()
    if not value.replace("\n", "").isprintable():
        raise PullFailed("The registry sent an address that holds control characters.")
    quoted = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{name} = "{quoted}"\n'.encode()
