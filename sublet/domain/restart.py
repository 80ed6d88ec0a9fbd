"""Restart policies: whether an instance that has ended is started again, and when."""

from __future__ import annotations

from dataclasses import dataclass

from sublet.domain.errors import InvalidArgument

POLICIES = ("no", "on-failure", "always", "unless-stopped")
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
