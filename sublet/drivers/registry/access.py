"""How a registry is spoken to: its address, the credentials, the certificates.

Credentials are kept as containers-auth.json(5) says, certificates are looked for where
containers-certs.d(5) says, so that skopeo and our own downloads use the same.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sublet.domain.reference import Reference

CERTIFICATES = (Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))
SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
DOCKER_HUB, DOCKER_HUB_HOST = "docker.io", "registry-1.docker.io"
_OLD_KEYS = {DOCKER_HUB: ("https://index.docker.io/v1/", "index.docker.io")}


@dataclass(frozen=True, slots=True)
class Access:
    """`verify`: its certificate must be right; otherwise any will do, and plain HTTP as well."""

    registry: str
    authfile: Path
    verify: bool

    def flags(self, side: str = "") -> list[str]:
        """For skopeo; `side` is `src-` or `dest-` of a copy."""
        tls = [] if self.verify else [f"--{side}tls-verify=false"]
        return [f"--{side}authfile", str(self.authfile), *tls]

    @property
    def host(self) -> str:
        """Host and port that answer for the registry."""
        return DOCKER_HUB_HOST if self.registry == DOCKER_HUB else self.registry


class Credentials:
    """The credentials of one daemon: SUBLET_ROOT/auth.json, for root alone."""

    def __init__(self, root: Path) -> None:
        self.path = root / "auth.json"

    def prepare(self) -> None:
        """Make the file, empty: without it the tools would take the host's own credentials."""
        try:
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return
        with os.fdopen(file, "w") as opened:
            opened.write("{}\n")

    def access(self, registry: str, tls_verify: bool | None = None) -> Access:
        """Access to a registry. By default certificates are verified, but for loopback."""
        self.prepare()
        verify = not is_loopback(registry) if tls_verify is None else tls_verify
        return Access(registry, self.path, verify)

    def basic(self, reference: Reference) -> str:
        """The stored `user:password` for the reference's repository, in base 64 as for HTTP;
        empty where there is none."""
        try:
            stored = json.loads(self.path.read_text())["auths"]
            found = [stored[key] for key in _keys(reference) if key in stored]
            text = str(found[0]["auth"])
            base64.b64decode(text, validate=True)
        except (OSError, ValueError, LookupError, TypeError, binascii.Error):
            return ""
        return text


def _keys(reference: Reference) -> Iterable[str]:
    """Where credentials may be stored, the most particular place first."""
    name = reference.qualified.partition("@")[0]
    if not reference.digest:
        name = name.rpartition(":")[0]
    while name:
        yield name
        name = name.rpartition("/")[0]
    yield from _OLD_KEYS.get(reference.registry, ())


def is_loopback(registry: str) -> bool:
    """Whether the registry runs on this machine: plain HTTP will do then, as for Docker."""
    host = registry.rpartition(":")[0] or registry
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def certificates(registry: str) -> list[tuple[str, bytes]]:
    """Whom to trust for the registry besides whom the host trusts, and who we are to it:
    curl's options and what is in the files that they name."""
    files = [file for top in CERTIFICATES for file in _files(top / registry)]
    trusted = [file for file in files if file.suffix == ".crt"]
    found = []
    if trusted:
        known = [file for file in (SYSTEM_CERTIFICATES, *trusted) if file.is_file()]
        found.append(("cacert", b"\n".join(file.read_bytes() for file in known)))
    own = next((file for file in files if file.suffix == ".cert"), None)
    if own and own.with_suffix(".key") in files:
        found += [("cert", own.read_bytes()), ("key", own.with_suffix(".key").read_bytes())]
    return found


def _files(directory: Path) -> list[Path]:
    return sorted(directory.iterdir()) if directory.is_dir() else []
