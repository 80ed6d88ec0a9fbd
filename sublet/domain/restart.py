"""Restart policies: whether an instance that has ended is started again, and when."""

from __future__ import annotations

from dataclasses import dataclass

from sublet.domain.errors import InvalidArgument

POLICIES = ("no", "on-failure", "always", "unless-stopped")
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 60.0
"""Seconds before the first restart and the most before any: each pause doubles the one before."""

STEADY = 10.0
"""Seconds after which a run counts as one that went well: the next pause is the first again."""

_HINT = "Write --restart no, on-failure[:TIMES], always or unless-stopped."


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """`name` as Docker has them; `maximum` restarts of `on-failure`, 0: without end."""

    name: str = "no"
    maximum: int = 0

    def __str__(self) -> str:
        return f"{self.name}:{self.maximum}" if self.maximum else self.name


def parse_restart(text: str) -> RestartPolicy:
    """The policy that `--restart` names. Raises InvalidArgument."""
    name, colon, maximum = text.partition(":")
    if name not in POLICIES or (colon and (name != "on-failure" or not maximum.isdecimal())):
        raise InvalidArgument(f"'{text}' is not a restart policy.", hint=_HINT)
    return RestartPolicy(name, int(maximum or 0))


def check_restart(policy: RestartPolicy, *, remove: bool) -> None:
    """Raises InvalidArgument for what is no policy, or contradicts `--rm`."""
    if policy.name not in POLICIES or policy.maximum < 0:
        raise InvalidArgument(f"'{policy}' is not a restart policy.", hint=_HINT)
    if remove and policy.name != "no":
        raise InvalidArgument(
            "An instance that is deleted at its end cannot be restarted.",
            hint="Give --rm or --restart, not both.",
        )


@dataclass(frozen=True, slots=True)
class History:
    """Of an instance that does not run: how it ended; whether the user still wants it up, who has
    not stopped it; how often it was restarted since it was started by hand."""

    exit_code: int
    wanted: bool
    restarts: int


def again(policy: RestartPolicy, history: History) -> bool:
    """Whether an instance that has just ended is started again."""
    if not history.wanted:
        return False
    if policy.name == "on-failure":
        left = not policy.maximum or history.restarts < policy.maximum
        return history.exit_code != 0 and left
    return policy.name in ("always", "unless-stopped")


def at_boot(policy: RestartPolicy, history: History) -> bool:
    """Whether an instance that is down when the daemon comes up, and ran before, is started:
    `always` means also one that the user had stopped, as with Docker."""
    return policy.name == "always" or again(policy, history)


def pause(before: float, up: float) -> float:
    """Seconds until the next start, after a pause of `before` (0: none) and `up` seconds of run."""
    if not before or up >= STEADY:
        return FIRST_PAUSE
    return min(before * 2, LONGEST_PAUSE)
