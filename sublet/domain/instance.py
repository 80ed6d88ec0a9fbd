"""Instances: the states they go through, and what is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from sublet.domain.errors import WrongState
from sublet.domain.health import Health
from sublet.domain.spec import InstanceSpec


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
    State.PAUSED: frozenset(
        {State.RUNNING, State.STOPPING, State.STOPPED, State.HIBERNATING, State.SHUTTING_DOWN}
    ),
    State.STOPPING: frozenset({State.STOPPED, State.SHUTTING_DOWN}),
    State.STOPPED: frozenset({State.PENDING, State.HIBERNATED, State.SHUTTING_DOWN}),
    State.HIBERNATING: frozenset(
        {State.HIBERNATED, State.RUNNING, State.STOPPED, State.SHUTTING_DOWN}
    ),
    State.HIBERNATED: frozenset({State.RUNNING, State.STOPPED, State.SHUTTING_DOWN}),
    State.SHUTTING_DOWN: frozenset({State.TERMINATED}),
    State.TERMINATED: frozenset(),
}
"""The one table of what may follow what. An instance that exits by itself goes from
`running` straight to `stopped`; `stopping` means that somebody asked."""

LIVE = frozenset({State.RUNNING, State.PAUSED, State.STOPPING})
"""States in which the instance has a process."""


HELD = LIVE | {State.HIBERNATING}
"""States in which it holds what a running one does: its machine may be there yet."""


def check_transition(name: str, old: State, new: State) -> None:
    """Raises WrongState unless `new` may follow `old`."""
    if new not in TRANSITIONS[old]:
        raise WrongState(f"{name} is {old}; it cannot become {new}.")


def not_running(name: str, state: State) -> WrongState:
    """The error of what needs a running instance, with the verb that makes it run, if one does."""
    verb = {State.STOPPED: "start", State.HIBERNATED: "wake"}.get(state)
    hint = f"`sublet {verb} {name}` first." if verb else ""
    return WrongState(f"{name} is {state}, not running.", hint=hint)


@dataclass(frozen=True, slots=True)
class Instance:
    """One slice, as the database keeps it.

    `slot` numbers the host's resources (address, user ids); `pid` is the first
    process, `supervisor` its supervisor's pid, each with its start time in clock ticks
    (proc(5), field 22) so that a recycled pid is not mistaken for it; 0 when there is none.
    Times are seconds since the epoch, 0 when it has not happened. `kept`: it stays when its
    start fails, as one that was created or ran before does. `restarts` counts those of its restart
    policy since it was last started by hand; `wanted`: it was started and nobody stopped it.
    `next_…`: the size that a running VM gets when it starts again, 0 where that stays.
    `pool`: the id of the warm pool in which it waits, empty once it is somebody's.
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
    kept: bool = False
    restarts: int = 0
    wanted: bool = False
    health: Health = Health.NONE
    next_cpus: float = 0.0
    next_memory: int = 0
    next_disk: int = 0
    pool: str = ""
