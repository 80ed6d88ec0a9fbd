"""Warm pools: which ready sandbox a request may have, how many there are to be, and when to rest.

Pure: rows are handed in.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from sublet.domain.capacity import Amount, fits
from sublet.domain.errors import InvalidArgument
from sublet.domain.instance import Instance, State
from sublet.domain.names import validate_new_name
from sublet.domain.spec import InstanceSpec, check_spec

LABEL = "io.sublet.pool"
"""The label of a ready sandbox: its pool's name. The bill groups by it."""

MAXIMUM = 1000
"""The most sandboxes that a pool keeps ready."""

AT_ONCE = 2
"""Sandboxes that are made at a time, of all pools together: others are to have the host."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds after a first failure until the next try, and at most; each failure doubles them."""


@dataclass(frozen=True, slots=True)
class Pool:
    """`size` sandboxes as `spec` asks for are to be ready. An `id` stands for one `spec`: a pool
    that is to make other sandboxes gets a new one. `created` in seconds since the epoch."""

    id: str
    name: str
    size: int
    spec: InstanceSpec
    created: float


def key(spec: InstanceSpec) -> InstanceSpec:
    """What a request and a pool must have in common; the image is compared by its digest. Left
    out is what a running sandbox can be given: its name, labels, time to live, lease and the
    environment of the commands to come."""
    unnamed = replace(spec, image="", size_name="", name="", labels={})
    return replace(unnamed, ttl=0.0, lease="", env=())


def check_pool(name: str, size: int, spec: InstanceSpec) -> None:
    """Raises InvalidArgument where there can be no such pool."""
    validate_new_name(name)
    if not 0 <= size <= MAXIMUM:
        raise InvalidArgument(
            f"{size} is no size of a pool.", hint=f"Give --size from 0 to {MAXIMUM}."
        )
    check_spec(spec)
    unwanted = {
        "a name": spec.name,
        "ports": spec.ports,
        "a time to live": spec.ttl,
        "a lease": spec.lease,
        "spot": spec.spot,
        "an environment": spec.env,
    }
    for what, given in unwanted.items():
        if given:
            raise InvalidArgument(
                f"The sandboxes of a pool cannot have {what}.",
                hint="What is asked for when one is handed out belongs there.",
            )


def name_for(image: str, *, vm: bool, taken: Collection[str]) -> str:
    """A name for a pool that was given none: of its image."""
    words = re.sub(r"[^a-z0-9]+", "-", image.rpartition("/")[2].partition("@")[0].lower())
    name = (words.strip("-")[:40] or "pool") + ("-vm" if vm else "")
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{name}-{number}"
    return found


def is_ready(row: Instance) -> bool:
    """Whether it waits in a pool, and runs."""
    return bool(row.pool) and row.state is State.RUNNING


def handed_out(row: Instance, spec: InstanceSpec, now: float) -> Instance:
    """The row of a ready sandbox as that of who asked for it: as if it was made now."""
    given = replace(
        row.spec,
        image=spec.image,
        name=spec.name,
        labels=spec.labels,
        ttl=spec.ttl,
        lease=spec.lease,
        env=spec.env,
    )
    return replace(
        row,
        name=spec.name or row.name,
        image=spec.image,
        spec=given,
        created=now,
        started=now,
        pool="",
    )


@dataclass(frozen=True, slots=True)
class Work:
    """What there is to do for a pool: sandboxes to make, and ids of those to remove."""

    make: int = 0
    remove: tuple[str, ...] = ()


def work(pool: Pool, digest: str, rows: Iterable[Instance], making: int) -> Work:
    """What brings `pool` to its size. `digest` is what its image's name means now, empty: there is
    none; `rows` are its sandboxes; `making` are begun, some of which have rows already."""
    good: list[str] = []
    bad: list[str] = []
    for row in rows:
        if row.state is State.PENDING:
            continue  # one of those that are being made
        fit = row.state is State.RUNNING and row.digest == digest
        (good if fit else bad).append(row.id)
    spare = good[pool.size :]
    lacking = max(0, pool.size - len(good) - making) if digest else 0
    return Work(lacking, (*bad, *spare))


def given_up(rows: Mapping[str, Amount], missing: Amount) -> list[str]:
    """Which ready sandboxes go so that `missing` is free, as few as come first to mind; all that
    help where all are not enough."""
    found: list[str] = []
    for instance_id, amount in rows.items():
        if fits(missing, Amount()):
            break
        if (missing.cpus > 0 and amount.cpus) or (missing.memory > 0 and amount.memory):
            found.append(instance_id)
            missing = missing - amount
            missing = Amount(max(0.0, missing.cpus), max(0, missing.memory))
    return found


@dataclass(frozen=True, slots=True)
class Rest:
    """After failures: `until` when nothing is made (a monotonic clock's seconds), and why."""

    until: float
    pause: float
    reason: str


def rest(before: Rest | None, reason: str, now: float) -> Rest:
    """The pause after a failure, and how long the one before was."""
    pause = min(before.pause * 2, LONGEST_PAUSE) if before else FIRST_PAUSE
    return Rest(now + pause, pause, reason)
