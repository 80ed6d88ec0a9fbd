"""What this daemon's own process may do, and so what it can hand on to an instance.

A capability or a hard limit that the host itself lacks cannot be given: the kernel refuses the
whole start. Sources: capabilities(7), setrlimit(2).
"""

from __future__ import annotations

import re
import resource
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sublet.domain.errors import InvalidArgument
from sublet.domain.privileges import CAPABILITIES, ULIMITS, Ulimit, capabilities

NOFILE = (1024, 524_288)
"""Open files without `--ulimit`: what programs are used to, and as far as they may raise it
(systemd and Docker have the same), however the daemon was started."""

UNLIMITED = (1 << 64) - 1
"""RLIM_INFINITY as the OCI runtime takes it."""


@dataclass(frozen=True, slots=True)
class Rights:
    """`held`: the capabilities of the daemon; `limits`: its hard limits by name (`nofile`), -1 for
    none; `oom_score_adj` as of proc(5)."""

    held: frozenset[str]
    limits: Mapping[str, int] = field(default_factory=dict)
    oom_score_adj: int = 0

    @classmethod
    def own(cls) -> Rights:
        """Those of this process."""
        status = Path("/proc/self/status").read_text()
        numbers = {name: getattr(resource, f"RLIMIT_{name.upper()}", None) for name in ULIMITS}
        limits = {n: resource.getrlimit(k)[1] for n, k in numbers.items() if k is not None}
        return cls(bounding(status), limits, int(Path("/proc/self/oom_score_adj").read_text()))

    def give(self, added: Iterable[str], dropped: Iterable[str]) -> tuple[str, ...]:
        """The capabilities of an instance: those asked for that the host has."""
        return tuple(name for name in capabilities(added, dropped) if name in self.held)

    def lacking(self, added: Iterable[str], dropped: Iterable[str]) -> tuple[str, ...]:
        """The capabilities that were asked for by name or by ALL and cannot be given."""
        more = set(added)
        if not more:
            return ()
        return tuple(n for n in capabilities(more, dropped) if n not in self.held)

    def rlimits(self, ulimits: Iterable[Ulimit]) -> list[dict[str, Any]]:
        """The OCI `rlimits`. Raises InvalidArgument for more than the host can give."""
        most = self._most("nofile")
        hard = NOFILE[1] if most == -1 else min(NOFILE[1], most)
        wanted = {"nofile": Ulimit("nofile", min(NOFILE[0], hard), hard)}
        for limit in ulimits:
            self._check(limit)
            wanted[limit.name] = limit
        return [
            {
                "type": f"RLIMIT_{name.upper()}",
                "soft": _number(each.soft),
                "hard": _number(each.hard),
            }
            for name, each in sorted(wanted.items())
        ]

    def _most(self, name: str) -> int:
        """The highest hard limit that can be given, -1: any."""
        return -1 if "CAP_SYS_RESOURCE" in self.held else self.limits.get(name, -1)

    def _check(self, limit: Ulimit) -> None:
        most = self._most(limit.name)
        if most != -1 and (limit.hard == -1 or limit.hard > most):
            hard = "unlimited" if limit.hard == -1 else limit.hard
            raise InvalidArgument(
                f"The limit {limit.name}={hard} is above this host's own, which is {most}.",
                hint=f"Give --ulimit {limit.name}={most} or less, or raise the daemon's limit.",
            )


def bounding(status: str) -> frozenset[str]:
    """The capabilities in the bounding set that `status` (proc(5), /proc/pid/status) shows."""
    match = re.search(r"^CapBnd:\s*([0-9a-f]+)", status, re.MULTILINE)
    bits = int(match[1], 16) if match else 0
    return frozenset(f"CAP_{name}" for n, name in enumerate(CAPABILITIES) if bits >> n & 1)


def _number(value: int) -> int:
    return UNLIMITED if value == -1 else value
