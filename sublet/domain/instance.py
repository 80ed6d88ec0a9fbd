"""Instances: what is asked for, the states they go through, what is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from sublet.domain.errors import WrongState
from sublet.domain.mounts import Mount
from sublet.domain.ports import Port
from sublet.domain.size import Size


class State(StrEnum):
    """The states of an instance, as EC2 names them, with `paused` and hibernation."""

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    STOPPED = "stopped"
    HIBERNATING = "hibernating"
    HIBERNATED = "hibernated"
    SHUTTING_DOWN = "shutting-down"
    TERMINATED = "terminated"


TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.PENDING: frozenset({State.RUNNING, State.STOPPED, State.SHUTTING_DOWN}),
    State.RUNNING: frozenset(
        {State.PAUSED, State.STOPPING, State.STOPPED, State.HIBERNATING, State.SHUTTING_DOWN}
    ),
    State.PAUSED: frozenset({State.RUNNING, State.STOPPING, State.STOPPED, State.SHUTTING_DOWN}),
    State.STOPPING: frozenset({State.STOPPED, State.SHUTTING_DOWN}),
    State.STOPPED: frozenset({State.PENDING, State.SHUTTING_DOWN}),
    State.HIBERNATING: frozenset({State.HIBERNATED, State.STOPPED, State.SHUTTING_DOWN}),
    State.HIBERNATED: frozenset({State.RUNNING, State.STOPPED, State.SHUTTING_DOWN}),
    State.SHUTTING_DOWN: frozenset({State.TERMINATED}),
    State.TERMINATED: frozenset(),
}
"""The one table of what may follow what. An instance that exits by itself goes from
`running` straight to `stopped`; `stopping` means that somebody asked."""

LIVE = frozenset({State.RUNNING, State.PAUSED, State.STOPPING})
"""States in which the instance has a process."""


def check_transition(name: str, old: State, new: State) -> None:
    """Raises WrongState unless `new` may follow `old`."""
    if new not in TRANSITIONS[old]:
        raise WrongState(f"{name} is {old}; it cannot become {new}.")


class Isolation(StrEnum):
    CONTAINER = "container"
    VM = "vm"


class Market(StrEnum):
    ON_DEMAND = "on-demand"
    SPOT = "spot"


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """What a tenant asks for. Empty values leave the choice to the image.

    `entrypoint` None keeps the image's; `stop_timeout` in seconds, None: 10.
    """

    image: str
    command: tuple[str, ...] = ()
    name: str = ""
    entrypoint: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    hostname: str = ""
    ports: tuple[Port, ...] = ()
    mounts: tuple[Mount, ...] = ()
    size: Size = field(default_factory=lambda: Size(1, 512 << 20))
    pids_limit: int = 2048
    stop_timeout: float | None = None
    stop_signal: str = ""
    tty: bool = False
    stdin: bool = False
    remove: bool = False
    isolation: Isolation = Isolation.CONTAINER
    market: Market = Market.ON_DEMAND


@dataclass(frozen=True, slots=True)
class Instance:
    """One slice, as the database keeps it.

    `slot` numbers the host's resources (address, user ids); `pid` is the first
    process, `supervisor` its supervisor's pid, each with its start time in clock ticks
    (proc(5), field 22) so that a recycled pid is not mistaken for it; 0 when there is none.
    Times are seconds since the epoch, 0 when it has not happened.
    """

    id: str
    name: str
    image: str
    digest: str
    spec: InstanceSpec
    slot: int
    state: State
    created: float
    started: float = 0.0
    finished: float = 0.0
    exit_code: int | None = None
    pid: int = 0
    pid_start: int = 0
    supervisor: int = 0
    supervisor_start: int = 0
    reason: str = ""
