"""Instances: what is asked for, the states they go through, what is known of them."""

from __future__ import annotations

import math
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from sublet.domain.errors import InvalidArgument, WrongState
from sublet.domain.mounts import Mount, parse_mount
from sublet.domain.names import validate_hostname, validate_name
from sublet.domain.ports import Port, check_port
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


MAXIMUM_PIDS = 1 << 22
"""The most pids that Linux has (PID_MAX_LIMIT, proc(5), pid_max)."""


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
    cpus: float = 0.0
    memory: int = 0
    disk: int = 0
    pids_limit: int = 2048
    stop_timeout: float | None = None
    stop_signal: str = ""
    tty: bool = False
    stdin: bool = False
    remove: bool = False
    isolation: Isolation = Isolation.CONTAINER
    market: Market = Market.ON_DEMAND

    @property
    def size(self) -> Size:
        """What the instance is sold, once the host's defaults are filled in."""
        return Size(self.cpus, self.memory, self.disk)

    def with_defaults(self, default: Size) -> InstanceSpec:
        """A copy whose size is complete."""
        return replace(
            self,
            cpus=self.cpus or default.cpus,
            memory=self.memory or default.memory,
            disk=self.disk or default.disk,
        )


@dataclass(frozen=True, slots=True)
class ExecSpec:
    """A further process in a running instance. Empty values: as the instance's own."""

    command: tuple[str, ...]
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    tty: bool = False


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


def check_spec(spec: InstanceSpec) -> None:
    """Raises InvalidArgument where a value of the request is malformed or out of range."""
    _check_texts(spec.image, spec.stop_signal)
    if spec.name:
        validate_name(spec.name)
    if spec.hostname:
        validate_hostname(spec.hostname)
    _check_process((*(spec.entrypoint or ()), *spec.command), spec)
    _ = spec.size  # raises InvalidArgument itself
    if not 1 <= spec.pids_limit <= MAXIMUM_PIDS:
        raise InvalidArgument(
            f"{spec.pids_limit} is not a number of processes.",
            hint=f"Give --pids-limit from 1 to {MAXIMUM_PIDS}.",
        )
    for port in spec.ports:
        check_port(port)
    if spec.isolation is not Isolation.CONTAINER:  # never less isolation than was asked for
        raise InvalidArgument("This version runs containers only.", hint="Leave --isolation out.")
    if spec.stop_timeout is not None and not 0 <= spec.stop_timeout < math.inf:
        raise InvalidArgument(f"{spec.stop_timeout} is not a number of seconds to wait.")
    for mount in spec.mounts:
        parse_mount(f"{mount.source}:{mount.destination}:{'ro' if mount.read_only else 'rw'}")


def check_exec(spec: ExecSpec) -> None:
    """Raises InvalidArgument where a value of the request is malformed."""
    if not spec.command:
        raise InvalidArgument("There is no command to execute.")
    _check_process(spec.command, spec)


def _check_process(command: tuple[str, ...], spec: InstanceSpec | ExecSpec) -> None:
    _check_texts(*command, *spec.env, spec.user, spec.working_dir)
    for entry in spec.env:
        if not entry.partition("=")[0]:
            raise InvalidArgument(
                f"'{entry}' is not a variable.", hint="Write NAME=VALUE, or NAME for this shell's."
            )
    if spec.working_dir:
        check_working_dir(spec.working_dir)


def _check_texts(*texts: str) -> None:
    if any("\0" in text for text in texts):
        raise InvalidArgument("A value holds a zero byte.")
    if any("\ud800" <= character <= "\udfff" for text in texts for character in text):
        raise InvalidArgument("A value is not valid Unicode.")


def check_working_dir(path: str) -> None:
    """Raises InvalidArgument unless the path is absolute and not below /proc (CVE-2024-21626)."""
    normal = posixpath.normpath(path)
    if not path.startswith("/") or normal.lstrip("/").split("/")[0] == "proc":
        raise InvalidArgument(
            f"'{path}' cannot be a working directory.", hint="Give an absolute path in the image."
        )
