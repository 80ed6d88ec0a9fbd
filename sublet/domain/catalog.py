"""The catalogue: images that Sublet can build itself, by the short names that they have elsewhere.

Pure. An entry is a Containerfile in the package (`sublet/catalog/NAME`), which takes the Debian
suite as an argument: a version is what that suite has. `versions` says which that is.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from sublet.domain import containerfile
from sublet.domain.errors import InvalidArgument, NoSuchImage
from sublet.domain.reference import Reference

LABEL = "io.sublet.catalog"
"""Of an image that the catalogue's entry of that name made."""

SERVICE, PORT, URL, SQL = "io.sublet.service", "io.sublet.port", "io.sublet.url", "io.sublet.sql"
"""What an image says of the service in it; anybody's images may."""

SUITE = "SUITE"
"""The build argument that chooses the version."""

Versions = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Entry:
    """An image of the catalogue. `versions`: by suite, the oldest first, what a tag may call the
    version, the most precise last; nothing where tags name suites alone."""

    name: str
    summary: str
    versions: Versions

    def suite_of(self, tag: str) -> str | None:
        """The suite that a tag means: `15`, `bookworm`, `15-bookworm`, `latest`; `-slim` is as
        without it. None for what the catalogue does not have."""
        words = [word for word in tag.split("-") if word != "slim"]
        suites = [word for word in words if word in self.versions]
        rest = [word for word in words if word not in self.versions]
        if len(suites) > 1 or len(rest) > 1:
            return None
        wanted = rest[0] if rest else "latest"
        fitting = [
            suite
            for suite in suites or self.versions
            if wanted == "latest" or wanted in self.versions[suite]
        ]
        return fitting[-1] if fitting else None

    @property
    def tags(self) -> dict[str, str]:
        """By suite, the oldest first, the tag that one would write."""
        return {suite: names[-1] if names else suite for suite, names in self.versions.items()}


@dataclass(frozen=True, slots=True)
class Choice:
    """What a short name means: an entry, and the suite that has the version."""

    entry: Entry
    suite: str


@dataclass(frozen=True, slots=True)
class Offer:
    """What an entry's Containerfile says of itself: the service, its port (0: none), the template
    of its URL, the environment with the credentials, whether it is an SQL database."""

    service: str = ""
    port: int = 0
    url: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    sql: bool = False


def _pair(bookworm: str, trixie: str) -> Versions:
    """Both suites with their versions, each also by its major number."""
    found = {"bookworm": bookworm, "trixie": trixie}
    return MappingProxyType(
        {
            suite: tuple(dict.fromkeys((version.partition(".")[0], version)))
            for suite, version in found.items()
        }
    )


_ANY: Versions = MappingProxyType({"bookworm": (), "trixie": ()})

ENTRIES = (
    Entry("postgres", "PostgreSQL", _pair("15", "17")),
    Entry("mariadb", "MariaDB", _pair("10.11", "11.8")),
    Entry("redis", "Redis", _pair("7.0", "8.0")),
    Entry("valkey", "Valkey", MappingProxyType({"trixie": ("8", "8.1")})),
    Entry("rabbitmq", "RabbitMQ", _pair("3.10", "4.0")),
    Entry("nginx", "nginx, a web server", _pair("1.22", "1.26")),
    Entry("python", "Python with pip", _pair("3.11", "3.13")),
    Entry("node", "Node.js with npm", _pair("18.20", "20.19")),
    Entry("golang", "Go with git and a C compiler", _pair("1.19", "1.24")),
    Entry("chromium", "Chromium, headless", _ANY),
    Entry("firefox-esr", "Firefox ESR, headless", _ANY),
    Entry("dev-machine", "A machine to work on, with SSH, git and a compiler", _ANY),
)

_BY_NAME = {entry.name: entry for entry in ENTRIES}
_BY_NAME |= {"go": _BY_NAME["golang"], "firefox": _BY_NAME["firefox-esr"]}

_ABSENT = {
    ("mongo", "mongodb", "ferretdb"): "Debian has neither MongoDB nor FerretDB, so the catalogue "
    "has no such database.",
    ("mysql",): "Debian has no MySQL; what the catalogue has is mariadb.",
}


def entry(text: str) -> Entry:
    """The entry of this name, which may have one of its tags. Raises NoSuchImage."""
    name, _, tag = text.partition(":")
    found = _BY_NAME.get(name)
    if found and (not tag or found.suite_of(tag)):
        return found
    raise NoSuchImage(
        f"The catalogue has no '{text}'.",
        hint=advice(text) or "`sublet catalog ls` lists what it has.",
    )


def find(text: str) -> Choice | None:
    """What a short name, one without registry, namespace and digest, means; None where the
    catalogue does not have it."""
    known = _known(text)
    suite = known[0].suite_of(known[1]) if known else None
    return Choice(known[0], suite) if known and suite else None


def advice(text: str) -> str:
    """What the catalogue has instead of a name that nobody could deliver; empty: nothing."""
    if known := _known(text):
        found = known[0]
        unknown = found.suite_of(known[1]) is None
        return f"The catalogue has {found.name} {_listed(found)}." if unknown else ""
    name, colon, tag = text.partition(":")
    if absent := _absent(name):
        return absent
    close = difflib.get_close_matches(name.lower(), (*_BY_NAME, "debian"), n=1, cutoff=0.75)
    return f"Do you mean {close[0]}{colon}{tag}?" if close and close[0] != name else ""


def is_other(text: str, labels: Mapping[str, str]) -> bool:
    """Whether a name is written out, as `docker.io/library/postgres:15`, and an image with these
    labels, though it has the name's short form, is the catalogue's: not what is asked for."""
    return LABEL in labels and "/" in text and "/" not in Reference.parse(text).repository


def offer(text: str) -> Offer:
    """What a Containerfile offers."""
    labels = containerfile.pairs(text, "LABEL")
    environment = containerfile.pairs(text, "ENV")
    used = {key: value for key, value in environment.items() if _is_setting(key, labels)}
    return Offer(labels.get(SERVICE, ""), int(labels.get(PORT, "0")), labels.get(URL, ""), used)


def filled(offered: Offer, host: str) -> str:
    """The URL with an entry's default credentials; empty where it has none."""
    values = {**offered.environment, "host": host, "port": str(offered.port)}
    return offered.url.format_map(values)


def _is_setting(key: str, labels: Mapping[str, str]) -> bool:
    """Whether a variable is for the user: named as the service's settings are."""
    return "{" + key + "}" in labels.get(URL, "") or key.endswith(("_PASSWORD", "_KEY"))


def _known(text: str) -> tuple[Entry, str] | None:
    """The entry and the tag of a short name."""
    if "/" in text or "@" in text:
        return None
    try:
        reference = Reference.parse(text)
    except InvalidArgument:
        return None
    found = _BY_NAME.get(reference.repository)
    return (found, reference.tag) if found else None


def _listed(found: Entry) -> str:
    texts = [f"{tag} ({suite})" if tag != suite else suite for suite, tag in found.tags.items()]
    return " and ".join(texts)


def _absent(name: str) -> str:
    return next((text for names, text in _ABSENT.items() if name in names), "")
