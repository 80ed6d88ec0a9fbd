"""`--filter` of the commands on images: which images a listing shows and a prune takes.

Docker's filters (reference of `docker image ls` and `docker image prune`): `dangling`,
`reference`, `label`, `label!`, `before`, `since` and `until`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from sublet.domain.errors import InvalidArgument
from sublet.domain.image import Image
from sublet.domain.moments import moment

KEYS = ("dangling", "reference", "label", "label!", "before", "since", "until")
FOR_PRUNE = ("label", "label!", "until")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class ImageFilter:
    """Images must match one value of each kind given; of labels, all. `before`, `since` and
    `until` are seconds since the epoch."""

    dangling: bool | None = None
    references: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    before: float | None = None
    since: float | None = None

    def matches(self, image: Image) -> bool:
        """Whether the image is one of those that are meant."""
        names = image.names
        return (
            (self.dangling is None or self.dangling is not bool(names))
            and (self.before is None or image.created < self.before)
            and (self.since is None or image.created > self.since)
            and all(_labelled(image, label) for label in self.labels)
            and not any(_labelled(image, label) for label in self.without)
            and (
                not self.references
                or any(is_like(name, each) for name in names for each in self.references)
            )
        )


@dataclass(slots=True)
class _Given:
    """The values of `--filter`, by key."""

    values: dict[str, list[str]] = field(default_factory=dict)

    def last(self, key: str) -> str | None:
        return self.values[key][-1] if key in self.values else None

    def all(self, key: str) -> tuple[str, ...]:
        return tuple(self.values.get(key, ()))


def parse(
    texts: Iterable[str],
    now: float,
    created: Callable[[str], float],
    keys: Collection[str] = KEYS,
) -> ImageFilter:
    """The filter that `KEY=VALUE` texts give. `created` tells when the image of a name was
    made, for `before` and `since`. Raises InvalidArgument."""
    given = _Given()
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not value or key not in keys:
            raise InvalidArgument(
                f"'{text}' is no filter.", hint=f"Write KEY=VALUE; the keys are {', '.join(keys)}."
            )
        given.values.setdefault(key, []).append(value)
    before, since, until = given.last("before"), given.last("since"), given.last("until")
    limits = [created(before)] if before else []
    limits += [moment(until, now)] if until else []
    return ImageFilter(
        dangling=_boolean(given.last("dangling")),
        references=given.all("reference"),
        labels=given.all("label"),
        without=given.all("label!"),
        before=min(limits, default=None),
        since=created(since) if since else None,
    )


def is_like(name: str, pattern: str) -> bool:
    """Whether the image name `repository:tag` fits a pattern, part by part: `*` spans no `/`.

    A pattern without a tag means every tag.
    """
    if ":" not in pattern.rpartition("/")[2]:
        name = name.rpartition(":")[0]
    parts, patterns = name.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def _labelled(image: Image, wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    found = image.config.labels.get(key)
    return found is not None and (not equals or found == value)


def _boolean(text: str | None) -> bool | None:
    if text is None:
        return None
    if text.lower() not in _BOOLEANS:
        raise InvalidArgument(f"dangling={text}: that is neither true nor false.")
    return _BOOLEANS[text.lower()]
