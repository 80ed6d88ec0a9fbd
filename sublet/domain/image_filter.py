"""`--filter` of the commands on images: which images a listing shows and a prune takes.

Docker's filters (reference of `docker image ls` and `docker image prune`): `dangling`,
`reference`, `label`, `label!`, `before`, `since` and `until`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from sublet.domain.filters import boolean, given, labelled
from sublet.domain.image import Image
from sublet.domain.moments import moment

KEYS = ("dangling", "reference", "label", "label!", "before", "since", "until")
FOR_PRUNE = ("label", "label!", "until")


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
            and all(labelled(image.config.labels, label) for label in self.labels)
            and not any(labelled(image.config.labels, label) for label in self.without)
            and (
                not self.references
                or any(is_like(name, each) for name in names for each in self.references)
            )
        )


def parse(
    texts: Iterable[str],
    now: float,
    created: Callable[[str], float],
    keys: Collection[str] = KEYS,
) -> ImageFilter:
    """The filter that `KEY=VALUE` texts give. `created` tells when the image of a name was
    made, for `before` and `since`. Raises InvalidArgument."""
    values = given(texts, keys)
    dangling = values.get("dangling", ())
    before = [created(text) for text in values.get("before", ())]
    before += [moment(text, now) for text in values.get("until", ())]
    since = [created(text) for text in values.get("since", ())]
    return ImageFilter(
        dangling=boolean("dangling", dangling[-1]) if dangling else None,
        references=values.get("reference", ()),
        labels=values.get("label", ()),
        without=values.get("label!", ()),
        before=min(before, default=None),
        since=max(since, default=None),
    )


def is_like(name: str, pattern: str) -> bool:
    """Whether the image name `repository:tag` fits a pattern, part by part: `*` spans no `/`.

    A pattern without a tag means every tag.
    """
    if ":" not in pattern.rpartition("/")[2]:
        name = name.rpartition(":")[0]
    parts, patterns = name.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))
