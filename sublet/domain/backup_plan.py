"""When an instance is backed up by itself: `--backup on-notice,on-stop,every=6h`."""

from __future__ import annotations

from dataclasses import dataclass, field

from sublet.domain.errors import InvalidArgument
from sublet.domain.retention import Keep, parse_keep
from sublet.domain.units import parse_duration

_HINT = "Write --backup on-notice,on-stop,every=6h."


@dataclass(frozen=True, slots=True)
class BackupPlan:
    """When an instance is backed up by itself: when it is given notice, whenever it has stopped,
    and `every` so many seconds while it runs, 0: never. `keep`: what stays of its backups."""

    on_notice: bool = False
    on_stop: bool = False
    every: float = 0.0
    keep: Keep = field(default_factory=Keep)

    @property
    def moments(self) -> bool:
        """Whether it names any."""
        return bool(self.on_notice or self.on_stop or self.every)


LAST_SECONDS = 3.0
"""What of a notice no backup uses."""

LEAST_PERIOD = 60.0
"""Seconds between two backups at least."""


def check_plan(plan: BackupPlan, *, remove: bool = False) -> None:
    """Raises InvalidArgument for a plan that plans nothing, or too much, or contradicts `--rm`."""
    if plan.on_stop and remove:
        raise InvalidArgument(
            "--rm deletes what --backup on-stop is to copy.", hint="Leave one of them out."
        )
    if not plan.moments:
        raise InvalidArgument("The backup plan names no moment.", hint=_HINT)
    if plan.every and not LEAST_PERIOD <= plan.every < float("inf"):
        raise InvalidArgument(
            f"A backup every {plan.every:g} s is too often.", hint="Give every=1m at least."
        )
    plan.keep.check()


def due(plan: BackupPlan, since: float, now: float) -> float:
    """Seconds until the next regular backup of an instance whose last one was at `since`, or that
    came up then; 0 where it is due. Only for plans that have a period."""
    return max(0.0, min(plan.every, since + plan.every - now))


def cut(given: float, deadline: float) -> float:
    """When a backup that began at a notice is cut off: some seconds before the deadline, so that
    restic can end in good order; of a short notice, a tenth before."""
    return deadline - min(LAST_SECONDS, (deadline - given) / 10)


def parse_plan(texts: list[str], keep: str = "") -> BackupPlan:
    """The plan that `--backup` (as often as it is given) and `--backup-keep` name. Raises
    InvalidArgument."""
    words = [word.strip() for text in texts for word in text.split(",")]
    on_notice, on_stop, every = False, False, 0.0
    for word in words:
        key, _, value = word.partition("=")
        if word == "on-notice":
            on_notice = True
        elif word == "on-stop":
            on_stop = True
        elif key == "every" and value:
            every = parse_duration(value)
        else:
            raise InvalidArgument(f"'{word}' is no moment for a backup.", hint=_HINT)
    plan = BackupPlan(on_notice, on_stop, every, parse_keep(keep) if keep else Keep())
    check_plan(plan)
    return plan
