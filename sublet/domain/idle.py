"""Idleness: when an instance counts as used, and when it has not been for so long that its rule
acts. Pure: the caller hands in what it saw, and the times of a steady clock.

Use is CPU time, traffic, attached sessions and an explicit keep-alive. What cannot be read counts
as use. A look compares two readings: an interval counts as used or unused as a whole, so that a
stuck process that burns no CPU and a connection on which nothing is said are no use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sublet.domain.errors import HibernateNeedsVm, InvalidArgument
from sublet.domain.notice import Action
from sublet.domain.ports import Port
from sublet.domain.units import format_bytes

LOOKS = 6
"""Looks in a window."""

LONGEST_PAUSE = 300.0
"""Seconds between looks, at most: a mean over hours would hide an hour's work."""

CPU, EMULATED_CPU = 0.05, 0.25
"""The share of one CPU below which CPU time is no use: a database that waits, and its health
check, take less. An emulated guest takes some ten times the time for the same."""

TRAFFIC = 64.0
"""Bytes a second below which traffic is no use: keep-alives, DNS and NTP take less."""

EMPTY_FRAME = 66
"""Bytes of a TCP segment without data (Ethernet 14, IPv4 20, TCP with timestamps 32). An ARP
message is smaller: neither counts."""

SHORTEST = 1.0
"""Seconds that a window has at least."""


@dataclass(frozen=True, slots=True)
class Idle:
    """The rule: after so many seconds without use, the action is taken."""

    after: float
    action: Action = Action.STOP


def check_idle(idle: Idle, *, vm: bool, network: str) -> None:
    """Raises InvalidArgument, HibernateNeedsVm."""
    if not SHORTEST <= idle.after < math.inf:
        raise InvalidArgument(
            f"{idle.after:g} s is no time to be idle for.", hint="Give at least 1s, such as 30m."
        )
    if idle.action is Action.HIBERNATE and not vm:
        raise HibernateNeedsVm("A container cannot hibernate when it is idle.")
    if network == "host":
        raise InvalidArgument(
            "Nobody can tell the traffic of an instance on the host's network from the host's.",
            hint="Leave out --idle, or --network host.",
        )


def check_wake(ports: tuple[Port, ...], *, remove: bool) -> None:
    """Raises InvalidArgument where nothing could wake it, or nothing would be left to wake."""
    if not ports:
        raise InvalidArgument(
            "A connection to a published port wakes an instance, and it has none.",
            hint="Add -p PORT, or leave out --wake.",
        )
    if remove:
        raise InvalidArgument(
            "An instance that is deleted at its end cannot be woken.",
            hint="Give --rm or --wake, not both.",
        )


@dataclass(frozen=True, slots=True)
class Traffic:
    """What went one way."""

    bytes: int
    packets: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What was seen at a time: CPU seconds, what was received and sent; None: it cannot be read."""

    time: float
    cpu: float | None = None
    received: Traffic | None = None
    sent: Traffic | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """Since when an instance is unused, and why it was not before the last look."""

    since: float
    last: Reading
    because: tuple[str, ...] = ()


def begin(reading: Reading) -> Standing:
    """An instance that is watched from now on."""
    return Standing(reading.time, reading)


def following(
    standing: Standing, reading: Reading, limit: float, others: Sequence[str] = ()
) -> Standing:
    """After one more look at an instance whose CPU time counts as use from `limit` on. `others`
    are further reasons why it was used since the last one: a session, a keep-alive."""
    because = (*_measured(standing.last, reading, limit), *others)
    since = reading.time if because else standing.since
    return Standing(since, reading, because)


def acts_at(idle: Idle, standing: Standing) -> float:
    """When the rule acts if nothing happens until then."""
    return standing.since + idle.after


def due(idle: Idle, standing: Standing) -> bool:
    """Whether the rule acts now, after the last look."""
    return not standing.because and acts_at(idle, standing) <= standing.last.time + _GRAIN


def pause(idle: Idle) -> float:
    """Seconds until the next look."""
    return min(idle.after / LOOKS, LONGEST_PAUSE)


def busy_cpu(cpus: float, *, emulated: bool = False) -> float:
    """The share of one CPU from which on an instance of `cpus` vCPUs is in use: a small one can
    reach it, too. `emulated`: a VM without KVM."""
    return min(EMULATED_CPU if emulated else CPU, cpus / 2)


_GRAIN = 1e-6
"""Seconds: six sixths of a window are the whole of it, whatever floating point says."""


def _measured(before: Reading, now: Reading, limit: float) -> list[str]:
    """Why the interval between two readings counts as used, as far as they tell."""
    span = now.time - before.time
    if span <= 0:
        return ["no time has passed since the last look"]
    return [*_by_cpu(before, now, span, limit), *_by_traffic(before, now, span)]


def _by_cpu(before: Reading, now: Reading, span: float, limit: float) -> list[str]:
    if before.cpu is None or now.cpu is None or now.cpu < before.cpu:
        return ["its CPU time cannot be read"]
    share = (now.cpu - before.cpu) / span
    return [f"it uses {share:.0%} of a CPU"] if share >= limit else []


def _by_traffic(before: Reading, now: Reading, span: float) -> list[str]:
    found = []
    pairs = (("receives", before.received, now.received), ("sends", before.sent, now.sent))
    for verb, old, new in pairs:
        if old is None or new is None or new.bytes < old.bytes or new.packets < old.packets:
            return ["its traffic cannot be read"]
        rate = content(old, new) / span
        if rate >= TRAFFIC:
            found.append(f"it {verb} {format_bytes(rate)} a second")
    return found


def content(old: Traffic, new: Traffic) -> int:
    """Bytes that went between two readings beyond frames that carry nothing."""
    return max(0, new.bytes - old.bytes - EMPTY_FRAME * (new.packets - old.packets))
