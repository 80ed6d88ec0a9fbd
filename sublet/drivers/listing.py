"""Processes as ps(1) lists them, read from /proc (proc(5))."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_LONGEST = 4096
"""Bytes of a command line that are read."""


@dataclass(frozen=True, slots=True)
class Process:
    """`pid` and `parent` as seen inside, `host_pid` outside; `cpu` in seconds, `memory` in bytes;
    `state` is a letter: R runs, S sleeps, Z has ended."""

    user: str
    pid: int
    host_pid: int
    parent: int
    state: str
    cpu: float
    memory: int
    command: str


def processes(
    pids: Iterable[int], user: Callable[[int], str], *, nested: bool = True
) -> list[Process]:
    """What these processes (host pids) are, but for those that have ended; by pid inside.

    With `nested`, those of a pid namespace of their own only: a supervisor is none of them.
    """
    found = {pid: seen for pid in pids if (seen := _read(pid))}
    seen_as = {pid: status["NSpid"].split() for pid, (status, _, _) in found.items()}
    inside = {pid: int(each[-1]) for pid, each in seen_as.items() if len(each) > nested}
    made = [
        Process(
            user=user(int(status["Uid"].split()[1])),
            pid=inside[pid],
            host_pid=pid,
            parent=inside.get(int(fields[1]), 0),
            state=fields[0],
            cpu=(int(fields[11]) + int(fields[12])) / _TICK,
            memory=int(fields[21]) * _PAGE,
            command=command,
        )
        for pid, (status, fields, command) in found.items()
        if pid in inside
    ]
    return sorted(made, key=lambda process: process.pid)


def _read(pid: int) -> tuple[dict[str, str], list[str], str] | None:
    """Status, the fields of stat from the state on, and command line; None where it is gone."""
    directory = Path(f"/proc/{pid}")
    try:
        lines = (directory / "status").read_text(errors="replace").splitlines()
        text = (directory / "stat").read_text(errors="replace")
        with (directory / "cmdline").open("rb") as file:
            words = file.read(_LONGEST)
    except OSError:
        return None
    status = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
    command = words.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    return status, text[text.rindex(")") + 2 :].split(), command or f"[{status['Name']}]"


def user_names(passwd: str) -> dict[int, str]:
    """Names by user id, by the text of passwd(5); the first name of an id counts."""
    names: dict[int, str] = {}
    for line in passwd.splitlines():
        fields = line.split(":")
        if len(fields) >= 7 and fields[2].isascii() and fields[2].isdecimal():
            names.setdefault(int(fields[2][:10]), fields[0])
    return names
