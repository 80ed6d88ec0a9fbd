"""Image references: `postgres:15`, `registry:5000/team/app@sha256:…`.

Grammar: the OCI distribution specification, "Pulling manifests". A name is kept
in its short form: what Docker calls `docker.io/library/debian` is `debian` here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from sublet.domain.errors import InvalidArgument

_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_DOMAIN = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?)(?::\d{1,5})?"
_NAME = re.compile(rf"(?:{_DOMAIN}/)?{_COMPONENT}(?:/{_COMPONENT})*")
_REGISTRY = re.compile(_DOMAIN)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
HUB = "docker.io"
"""The registry of names that name none."""

_HINT = "Write NAME[:TAG], such as postgres:15 or registry.example:5000/team/app:1.0."


@dataclass(frozen=True, slots=True)
class Reference:
    """A repository with a tag or a digest. `str()` gives its short form."""

    repository: str
    tag: str = "latest"
    digest: str = ""

    def __str__(self) -> str:
        return (
            f"{self.repository}@{self.digest}" if self.digest else f"{self.repository}:{self.tag}"
        )

    @property
    def registry(self) -> str:
        """Host and port of the registry; `docker.io` where none is named."""
        first, slash, _ = self.repository.partition("/")
        named = slash and ("." in first or ":" in first or first == "localhost")
        return first if named else HUB

    @property
    def qualified(self) -> str:
        """The reference in full, as registries and other tools want it."""
        name = self.repository
        if self.registry == "docker.io" and not name.startswith("docker.io/"):
            name = f"docker.io/{name}" if "/" in name else f"docker.io/library/{name}"
        return f"{name}@{self.digest}" if self.digest else f"{name}:{self.tag}"

    @property
    def path(self) -> str:
        """The repository as its registry calls it, without the registry's name."""
        name = self.qualified.partition("@")[0].partition("/")[2]
        return name if self.digest else name.rpartition(":")[0]

    def at(self, digest: str) -> Reference:
        """The same repository, by digest."""
        return replace(self, tag="latest", digest=digest)

    def via(self, mirror: str) -> Reference:
        """The same image at a mirror: `host[:port][/prefix]` in place of the registry."""
        return replace(self, repository=f"{mirror}/{self.path}")

    @classmethod
    def parse(cls, text: str) -> Reference:
        """The reference that `text` names, tag `latest` if it names none."""
        name, at, digest = text.partition("@")
        repository, colon, tag = name.rpartition(":")
        if not colon or "/" in tag:
            repository, tag = name, "latest"
        for prefix in ("docker.io/library/", "docker.io/"):
            repository = repository.removeprefix(prefix)
        if not _is_valid(repository, tag, at, digest):
            lower = repository.lower()
            meant = text.replace(repository, lower) if lower != repository else ""
            fits = meant and _is_valid(lower, tag, at, digest)
            hint = f"Names of images are in lower case: {meant}." if fits else _HINT
            raise InvalidArgument(f"'{text}' is not an image reference.", hint=hint)
        return cls(repository, tag, digest)


def _is_valid(repository: str, tag: str, at: str, digest: str) -> bool:
    short = Reference(repository).registry == HUB
    return bool(
        len(repository) <= 255
        and not (short and repository != repository.lower())
        and _NAME.fullmatch(repository)
        and _TAG.fullmatch(tag)
        and (not at or _DIGEST.fullmatch(digest))
    )


def parse_registry(text: str) -> str:
    """A registry's host and port, also given as an address; `docker.io` where it is empty.

    Raises InvalidArgument.
    """
    name = text.removeprefix("https://").removeprefix("http://").rstrip("/") or "docker.io"
    if name in ("index.docker.io/v1", "registry-1.docker.io", "index.docker.io"):
        return "docker.io"
    if not _REGISTRY.fullmatch(name):
        raise InvalidArgument(
            f"'{text}' is not a registry.", hint="Write its host name, with :PORT if need be."
        )
    return name


def is_digest(text: str) -> bool:
    """Whether `text` is a whole `sha256:…` digest."""
    return bool(_DIGEST.fullmatch(text))
