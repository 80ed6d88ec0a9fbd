"""Memory, CPU and time as people write them."""

from __future__ import annotations

import re

from sublet.domain.errors import InvalidArgument

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
MINIMUM_MEMORY = 6 * MIB
MAXIMUM_MEMORY = (1 << 63) - 1
"""Bytes, the largest number that a cgroup takes."""

YEAR = 366 * 86400.0
"""Seconds of the longest one."""

_MEMORY_UNITS = {"": 1, "b": 1, "k": KIB, "m": MIB, "g": GIB, "t": TIB}
_MEMORY = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([bkmgt]?)(?:i?b)?", re.IGNORECASE)
_DURATION_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[smhd])")
_DURATION = re.compile(rf"(?:{_SPAN.pattern}){{1,5}}")
_LAST = 253402300799.0
"""9999-12-31T23:59:59Z, in seconds since the epoch."""
_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def parse_memory(text: str) -> int:
    """`256m`, `1g`, `1.5GiB` or a count of bytes, in bytes; powers of 1024."""
    match = _MEMORY.fullmatch(text.strip())
    if not match:
        raise InvalidArgument(
            f"'{text}' is not an amount of memory.", hint="Write 512m, 2g or a number of bytes."
        )
    count = float(match[1]) * _MEMORY_UNITS[match[2].lower()]
    return int(min(count, MAXIMUM_MEMORY + 1))


def check_memory(count: int) -> int:
    """`count` bytes, if a process can start with them; else raises InvalidArgument."""
    if count < MINIMUM_MEMORY:
        raise InvalidArgument(
            f"{count} bytes of memory are too few to start a process.", hint="Give at least 6m."
        )
    if count > MAXIMUM_MEMORY:
        raise InvalidArgument("That is more memory than any host has.", hint="Write 512m or 2g.")
    return count


def parse_cpus(text: str) -> float:
    """A number of vCPUs, fractions allowed, greater than zero."""
    try:
        cpus = float(text)
    except ValueError:
        cpus = 0.0
    if not 0 < cpus <= 65536:
        raise InvalidArgument(
            f"'{text}' is not a number of CPUs.", hint="Write a positive number such as 0.5 or 2."
        )
    return cpus


def parse_duration(text: str) -> float:
    """`90s`, `30m`, `2h`, `7d`, `500ms`, `1m30s` or a number of seconds, in seconds."""
    text = text.strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    if not _DURATION.fullmatch(text):
        raise InvalidArgument(f"'{text}' is not a duration.", hint="Write 90s, 30m, 2h or 7d.")
    return sum(float(count) * _DURATION_UNITS[unit] for count, unit in _SPAN.findall(text))


def format_bytes(count: float) -> str:
    """A count of bytes as people read it: `512 B`, `60.2 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def format_cpus(cpus: float) -> str:
    """`1 vCPU`, `0.5 vCPUs`."""
    return f"{cpus:g} vCPU{'' if cpus == 1 else 's'}"


def format_dollars(amount: float) -> str:
    """An amount to the last digit that it was given with: `$5`, `$0.00001`, `$1234567.5`."""
    return "$" + f"{amount:.10f}".rstrip("0").rstrip(".")


def format_age(seconds: float) -> str:
    """A span of time in its largest unit: `5 seconds`, `3 hours`."""
    for name, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {name}{'s' if count != 1 else ''}"
    count = max(0, int(seconds))
    return f"{count} second{'s' if count != 1 else ''}"


def format_left(seconds: float) -> str:
    """A span of time that is yet to pass, rounded: `2 hours`, and `90 minutes`, not `1 hour`."""
    for name, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= 1.99 * length:
            return f"{round(seconds / length)} {name}s"
    return format_age(seconds)


def rfc3339(seconds: float) -> str:
    """Seconds since the epoch as RFC 3339 in UTC, to the millisecond; what is later than its last
    year as that one's end."""
    from datetime import UTC, datetime  # here: `run` has no use for it

    stamp = datetime.fromtimestamp(min(seconds, _LAST), UTC)
    return stamp.strftime("%Y-%m-%dT%H:%M:%S.") + f"{stamp.microsecond // 1000:03d}Z"
