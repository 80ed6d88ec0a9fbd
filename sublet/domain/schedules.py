"""Schedules: what runs when, for how long, and what is done about runs that were missed."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from enum import StrEnum

from sublet.domain.errors import InvalidArgument
from sublet.domain.names import validate_name, validate_new_name
from sublet.domain.restart import RestartPolicy
from sublet.domain.spec import InstanceSpec, check_spec
from sublet.domain.timers import Timer
from sublet.domain.units import YEAR

GRACE = 60.0
"""Seconds that a run may be late, because the host was busy, before it counts as missed."""

CORRECTION = 3 * 3600.0
"""Seconds by which a clock may be set back without anything running twice; set back by more, it
was wrong before, and the new time counts (as Debian's cron has it, cron(8))."""

LONGEST = YEAR
"""Seconds that a run may last, or be put off, at most."""

HISTORY = 100
"""Runs of a schedule that are remembered."""

LABEL = "schedule"
"""The label of a schedule's instances; its value is the schedule's name."""


class Missed(StrEnum):
    """What to do about runs whose time passed while the host was off: run once, or not."""

    RUN = "run"
    SKIP = "skip"


class Overlap(StrEnum):
    """What to do when a run's time comes and the one before goes on: skip the new one, run it
    after the old one, or stop the old one for it."""

    SKIP = "skip"
    QUEUE = "queue"
    REPLACE = "replace"


class Outcome(StrEnum):
    """What became of a run. `stopped`: its time was up, or somebody stopped it; `failed`: it
    could not be started."""

    QUEUED = "queued"
    RUNNING = "running"
    EXITED = "exited"
    STOPPED = "stopped"
    REPLACED = "replaced"
    FAILED = "failed"
    SKIPPED = "skipped"
    MISSED = "missed"


OPEN = frozenset({Outcome.QUEUED, Outcome.RUNNING})
"""Outcomes of runs that are not over."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A rule. `spec` is what each run makes an instance of; or `start` is the id of an instance
    that is started. `limit`: the most seconds that a run lasts, 0: any; `jitter`: the most
    seconds by which a run is put off; `keep`: how many ended runs' instances stay; `handled`: the
    time (as all, seconds since the epoch) up to which all runs have been decided on."""

    id: str
    name: str
    when: str
    timezone: str = "UTC"
    spec: InstanceSpec | None = None
    start: str = ""
    limit: float = 0.0
    missed: Missed = Missed.RUN
    overlap: Overlap = Overlap.SKIP
    jitter: float = 0.0
    keep: int = 3
    enabled: bool = True
    created: float = 0.0
    handled: float = 0.0

    @property
    def timer(self) -> Timer:
        return Timer(self.when, self.timezone, self.created)


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a schedule: `due` when it was to begin; `instance` an id and `name` its name;
    `ended` 0 while it goes on; `cost` in dollars; `reason` says more."""

    id: int
    schedule: str
    due: float
    outcome: Outcome
    began: float = 0.0
    ended: float = 0.0
    instance: str = ""
    name: str = ""
    exit_code: int | None = None
    cost: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """`run`: the time of the run that is to begin now, if one is; `missed`: that of the last one
    that never will, if there are any; `handled`: the schedule's from now on; `wake`: when to
    decide again, None: never."""

    run: float | None
    missed: float | None
    handled: float
    wake: float | None


def decide(schedule: Schedule, now: float) -> Decision:
    """What is to be done about a schedule now, whatever happened since it was last looked at."""
    timer, handled = schedule.timer, schedule.handled
    if handled > now + CORRECTION:
        handled = now
    due = timer.latest(handled, now)
    if due is None:
        return Decision(None, None, handled, _begin(schedule, timer.next(handled)))
    begin = _begin(schedule, due) or due
    before = timer.latest(handled, math.nextafter(due, 0))
    if begin > now:  # put off; the ones before it are missed all the same
        return Decision(None, before, before or handled, begin)
    wake = _begin(schedule, timer.next(now))
    if now - begin > GRACE and schedule.missed is Missed.SKIP:
        return Decision(None, due, due, wake)
    return Decision(due, before, due, wake)


def begins_again(schedule: Schedule, run: Run, now: float) -> bool:
    """Whether a run that was to begin, and that no daemon has come to start, begins now: as one
    that was missed, for which there is the grace. Where the time of another has come meanwhile,
    that one makes up for both."""
    if schedule.enabled and schedule.timer.latest(schedule.handled, now) is not None:
        return False
    return schedule.missed is Missed.RUN or now - run.began <= GRACE


def _begin(schedule: Schedule, due: float | None) -> float | None:
    """When the run of that time begins: put off by the jitter, the same whoever asks, and never
    so far that it meets the next one."""
    if due is None or not schedule.jitter:
        return due
    following = schedule.timer.next(due)
    most = schedule.jitter if following is None else min(schedule.jitter, following - due)
    digest = hashlib.sha256(f"{schedule.id} {due:.3f}".encode()).digest()
    return due + most * (int.from_bytes(digest[:6], "big") / (1 << 48))


def upcoming(schedule: Schedule, now: float, count: int) -> list[float]:
    """When the next runs begin; none of a schedule that is paused."""
    if not schedule.enabled:
        return []
    times = schedule.timer.following(max(schedule.handled, now), count)
    return [_begin(schedule, time) or time for time in times]


def meeting(overlap: Overlap, open_runs: list[Run]) -> Overlap | None:
    """What to do with a run whose time has come: None where no other goes on. One waits at most."""
    if not open_runs:
        return None
    waiting = any(run.outcome is Outcome.QUEUED for run in open_runs)
    return Overlap.SKIP if waiting else overlap


def check_schedule(schedule: Schedule, now: float) -> None:
    """Raises InvalidArgument where a part of it is malformed, or parts contradict each other."""
    validate_name(schedule.name, "a schedule")
    validate_new_name(schedule.name)
    schedule.timer.check(now)
    if bool(schedule.start) == (schedule.spec is not None):
        raise InvalidArgument(
            "A schedule runs an image or starts an instance.",
            hint="Write `-- IMAGE COMMAND`, or --start INSTANCE.",
        )
    for name in ("limit", "jitter"):
        if not 0 <= getattr(schedule, name) <= LONGEST:
            raise InvalidArgument(
                f"A {name} of {getattr(schedule, name)} seconds cannot be kept to.",
                hint="Give a year at most, such as 90s or 2h.",
            )
    if not 0 <= schedule.keep < HISTORY:
        raise InvalidArgument(
            f"{schedule.keep} instances cannot be kept.",
            hint=f"Give --keep from 0 to {HISTORY - 1}.",
        )
    if schedule.spec is not None:
        _check_spec(schedule.spec)


def _check_spec(spec: InstanceSpec) -> None:
    check_spec(spec)
    refused = {
        "--name": (spec.name, "Each run gets a name of its own, after the schedule's."),
        "--user-data": (spec.user_data, "`sublet create` it with that, and use --start."),
        "--restart": (spec.restart != RestartPolicy(), "The schedule starts it again."),
        "lease": (spec.lease, "No client is there when it runs."),
        "--wake": (spec.wake, "The schedule starts it again."),
        "--persistent": (spec.spot and spec.spot.persistent, "The schedule starts it again."),
    }
    for flag, (given, hint) in refused.items():
        if given:
            raise InvalidArgument(f"A schedule's runs take no {flag}.", hint=hint)
