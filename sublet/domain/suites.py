"""Debian and Ubuntu suites: what image references mean, and what apt's sources say.

Pure. Sources: sources.list(5), "THE DEB AND DEB-SRC TYPES" and "DEB822-STYLE FORMAT".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sublet.domain.reference import Reference

_DEBIAN_NUMBERS = {
    "10": "buster", "11": "bullseye", "12": "bookworm", "13": "trixie", "14": "forky",
}  # fmt: skip
_DEBIAN = {*_DEBIAN_NUMBERS.values(), "sid", "oldoldstable", "oldstable", "stable", "testing"}
_DEBIAN |= {"unstable"}
_UBUNTU_NUMBERS = {
    "20.04": "focal", "22.04": "jammy", "24.04": "noble", "25.04": "plucky", "25.10": "questing",
    "26.04": "resolute", "latest": "noble", "rolling": "questing",
}  # fmt: skip
_UBUNTU = set(_UBUNTU_NUMBERS.values())


@dataclass(frozen=True, slots=True)
class Suite:
    """A release of a distribution, by the name of its directory on a mirror."""

    distribution: str
    name: str


@dataclass(frozen=True, slots=True)
class Source:
    """One line of apt's sources: a mirror's address and the suites taken from it."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]

    @property
    def distribution(self) -> str:
        """`debian` or `ubuntu`, by the names of the suites; empty for anything else."""
        names = {suite.partition("-")[0].partition("/")[0] for suite in self.suites}
        if "main" not in self.components:
            return ""
        return "debian" if names & _DEBIAN else "ubuntu" if names & _UBUNTU else ""

    @property
    def is_security(self) -> bool:
        """Whether the line is for security updates."""
        return all("-security" in suite or "/updates" in suite for suite in self.suites)


def suite_of(reference: Reference) -> Suite | None:
    """The suite that `debian:TAG` or `ubuntu:TAG` means; None for any other reference.

    `-slim` is the same tree: what Docker's slim images leave out, minbase does not have.
    """
    tag = reference.tag.removesuffix("-slim").removesuffix("-backports")
    if reference.digest:
        return None
    if reference.repository == "debian":
        name = _DEBIAN_NUMBERS.get(tag.partition(".")[0], "stable" if tag == "latest" else tag)
        return Suite("debian", name) if name in _DEBIAN else None
    if reference.repository == "ubuntu":
        name = _UBUNTU_NUMBERS.get(tag, tag)
        return Suite("ubuntu", name) if name in _UBUNTU else None
    return None


def parse_sources(texts: Iterable[tuple[str, str]]) -> list[Source]:
    """The binary package sources in files of apt's, given as (file name, text)."""
    found: list[Source] = []
    for name, text in texts:
        found += _stanzas(text) if name.endswith(".sources") else _lines(text)
    return found


def mirror_for(suite: Suite, sources: Iterable[Source], security: bool = False) -> str:
    """The mirror that the host uses for this distribution; empty where it names none."""
    for source in sources:
        if source.distribution == suite.distribution and source.is_security == security:
            return source.uri.rstrip("/")
    return ""


def source_line(uri: str, suite: str, distribution: str) -> str:
    """A one-line source for apt."""
    components = "main" if distribution == "debian" else "main universe"
    return f"deb {uri} {suite} {components}"


def _lines(text: str) -> Iterator[Source]:
    for line in text.splitlines():
        words = line.partition("#")[0].replace("[", " [ ").replace("]", " ] ").split()
        if not words or words[0] != "deb":
            continue
        rest = words[words.index("]") + 1 :] if "]" in words else words[1:]
        if len(rest) >= 2 and _usable(rest[0]):
            yield Source(rest[0], (rest[1],), tuple(rest[2:]))


def _stanzas(text: str) -> Iterator[Source]:
    kept = [line for line in text.splitlines() if not line.startswith("#")]
    for stanza in "\n".join(kept).split("\n\n"):
        fields: dict[str, list[str]] = {}
        values: list[str] = []
        for line in stanza.splitlines():
            if line[:1].isspace():
                values += line.split()
            elif ":" in line:
                key, _, value = line.partition(":")
                values = fields.setdefault(key.strip().lower(), [])
                values += value.split()
        if "deb" in fields.get("types", ()) and fields.get("enabled") != ["no"]:
            for uri in filter(_usable, fields.get("uris", ())):
                components = tuple(fields.get("components", ()))
                yield Source(uri, tuple(fields.get("suites", ())), components)


def _usable(uri: str) -> bool:
    """Only what apt can fetch inside an image as well; no spaces, no `cdrom:`."""
    return uri.startswith(("http://", "https://"))
