"""Which instances a listing shows: the filters of `ps`, and those of `prune`.

Source of their meaning: Docker's reference of `docker container ls` and `prune`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from sublet.domain.errors import InvalidArgument
from sublet.domain.filters import Given, given, labelled
from sublet.domain.image import Image
from sublet.domain.instance import Instance, State
from sublet.domain.moments import moment

KEYS = (
    "ancestor before exited health id label name network publish since status until volume"
).split()
FOR_PRUNE = ("label", "label!", "until")
_DOCKER = {"exited": "stopped", "restarting": "pending", "removing": "shutting-down"}
_STATES = frozenset({*State, *_DOCKER, "created"})


@dataclass(frozen=True, slots=True)
class Selection:
    """Instances match one value of each key; of `label`, all, and of `label!`, none. `before`
    and `since` in seconds since the epoch, None: whenever."""

    values: Given
    before: float | None = None
    since: float | None = None

    @property
    def shows_stopped(self) -> bool:
        """Whether it asks for instances that do not run, by their state."""
        return bool(self.values.keys() & {"status", "exited"})

    def matches(self, instance: Instance, image: Image | None = None) -> bool:
        """Whether the instance, made of `image`, is one of those that are meant."""
        if self.before is not None and instance.created >= self.before:
            return False
        if self.since is not None and instance.created <= self.since:
            return False
        labels = {**(image.config.labels if image else {}), **instance.spec.labels}
        if not all(labelled(labels, text) for text in self.values.get("label", ())):
            return False
        if any(labelled(labels, text) for text in self.values.get("label!", ())):
            return False
        return all(
            any(test(instance, image, value) for value in self.values[key])
            for key, test in _TESTS.items()
            if key in self.values
        )


def parse(
    texts: Iterable[str],
    now: float,
    created: Callable[[str], float],
    keys: Iterable[str] = KEYS,
) -> Selection:
    """What `KEY=VALUE` texts select; `created` tells when an instance was made. Raises
    InvalidArgument."""
    values = given(texts, tuple(keys))
    for status in values.get("status", ()):
        if status not in _STATES:
            states = ", ".join(State)
            raise InvalidArgument(f"'{status}' is no state.", hint=f"The states are {states}.")
    for code in values.get("exited", ()):
        if not code.isdecimal():
            raise InvalidArgument(f"'{code}' is no exit code.", hint="Write --filter exited=0.")
    until = [moment(text, now) for text in values.get("until", ())]
    until += [created(text) for text in values.get("before", ())]
    since = [created(text) for text in values.get("since", ())]
    return Selection(values, min(until, default=None), max(since, default=None))


def _status(instance: Instance, _: Image | None, value: str) -> bool:
    never = instance.state is State.STOPPED and not instance.started
    if value in ("created", "exited"):
        return instance.state is State.STOPPED and never is (value == "created")
    return instance.state == _DOCKER.get(value, value)


def _name(instance: Instance, _: Image | None, value: str) -> bool:
    """A part of the name; `^` and `$` stand for its ends."""
    name = f"^{instance.name}$"
    return value.removeprefix("/") in name


def _ancestor(instance: Instance, image: Image | None, value: str) -> bool:
    names = image.names if image else ()
    digest = value if value.startswith("sha256:") else f"sha256:{value}"
    return (
        value in (instance.image, *names)
        or f"{value}:latest" in names
        or (len(value) >= 12 and instance.digest.startswith(digest))
    )


def _volume(instance: Instance, _: Image | None, value: str) -> bool:
    return any(value in (mount.source, mount.destination) for mount in instance.spec.mounts)


def _network(instance: Instance, _: Image | None, value: str) -> bool:
    return value == (instance.spec.network or "default")


def _publish(instance: Instance, _: Image | None, value: str) -> bool:
    """`8080`, `8080/udp`, or `8000-8080`, of the host's ports."""
    text, protocol = value.partition("/")[::2]
    first, last = text.partition("-")[::2]
    if not first.isdecimal() or not (last or first).isdecimal():
        return False
    ports = [p for p in instance.spec.ports if not protocol or p.protocol == protocol]
    return any(int(first) <= port.host_port <= int(last or first) for port in ports)


_TESTS: Mapping[str, Callable[[Instance, Image | None, str], bool]] = {
    "id": lambda instance, _, value: instance.id.startswith(value),
    "name": _name,
    "status": _status,
    "ancestor": _ancestor,
    "health": lambda instance, _, value: instance.health == value,
    "network": _network,
    "volume": _volume,
    "publish": _publish,
    "exited": lambda instance, _, value: (
        instance.state is State.STOPPED and instance.exit_code == int(value)
    ),
}
