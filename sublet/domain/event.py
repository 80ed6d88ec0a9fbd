"""What happened, for whoever wants to know."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from sublet.domain.filters import Given, given, labelled

KEYS = ("type", "event", "instance", "container", "image", "label")
LABEL = "label:"
"""What an event's details about an instance's labels begin with."""


@dataclass(frozen=True, slots=True)
class Event:
    """`time` in seconds since the epoch; `type` such as `instance.running`; `instance` an id,
    empty where it concerns none; `id` grows with each event."""

    time: float
    type: str
    instance: str = ""
    detail: Mapping[str, str] = field(default_factory=dict)
    id: int = 0


def parse(texts: Iterable[str]) -> Given:
    """The filters of `events`. Raises InvalidArgument."""
    return given(texts, KEYS)


def matches(event: Event, wanted: Given) -> bool:
    """Whether an event is one of those that are meant; of labels, it must have all."""
    labels = {k.removeprefix(LABEL): v for k, v in event.detail.items() if k.startswith(LABEL)}
    if not all(labelled(labels, text) for text in wanted.get("label", ())):
        return False
    return all(
        any(test(event, value) for value in wanted[key])
        for key, test in _TESTS.items()
        if key in wanted
    )


def _instance(event: Event, value: str) -> bool:
    return event.detail.get("name") == value or bool(value and event.instance.startswith(value))


_TESTS: Mapping[str, Callable[[Event, str], bool]] = {
    "type": lambda event, value: event.type.partition(".")[0] == value,
    "event": lambda event, value: value in (event.type, event.type.partition(".")[2]),
    "instance": _instance,
    "container": _instance,
    "image": lambda event, value: event.detail.get("image") == value,
}
