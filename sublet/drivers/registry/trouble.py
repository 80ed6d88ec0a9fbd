"""What skopeo complains of, in sentences with a hint."""

from __future__ import annotations

import re

from sublet.domain.errors import (
    DiskFull,
    LoginFailed,
    NoSuchImage,
    PullFailed,
    SubletError,
    UntrustedRegistry,
)

_ABSENT = ("manifest unknown", "name unknown", "not found", "repository name not known")
_DENIED = ("unauthorized", "denied", "authentication required")
_UNREACHABLE = {
    "no such host": "its name does not resolve",
    "connection refused": "it refuses connections",
    "network is unreachable": "the network is unreachable",
    "no route to host": "there is no route to it",
}
_INSECURE = "If you trust the network to it, --tls-verify=false does without."
_UNTRUSTED = (
    (
        "signed by unknown authority|self.signed certificate",
        "its certificate is signed by an authority that this host does not know",
        "Put the authority's certificate into /etc/containers/certs.d/{registry}/ca.crt. ",
    ),
    (
        "certificate has expired or is not yet valid",
        "its certificate has expired, or is not valid yet",
        "Have it renewed, and look at this host's clock. ",
    ),
    (
        "certificate is (?:not )?valid for|doesn't contain any|cannot validate certificate",
        "its certificate is for another name",
        "Use the name that the certificate is for. ",
    ),
    ("gave http response to https client", "it speaks plain HTTP, without TLS", ""),
    ("x509:|tls:|remote error", "TLS cannot be set up with it", ""),
)
"""What a complaint has, what it means, what to do."""


def untrusted(stderr: str, registry: str) -> UntrustedRegistry | None:
    """The error, if it is one of certificates."""
    for sign, reason, hint in _UNTRUSTED:
        if re.search(sign, stderr, re.I):
            return UntrustedRegistry(
                f"The registry {registry} cannot be trusted: {reason}.",
                hint=hint.format(registry=registry) + _INSECURE,
            )
    return None


def unreachable(
    stderr: str, registry: str, kind: type[SubletError] = PullFailed
) -> SubletError | None:
    """The error, if the registry is not reached."""
    text = stderr.lower()
    for sign, reason in _UNREACHABLE.items():
        if sign in text:
            return kind(f"The registry {registry} cannot be reached: {reason}.")
    if "deadline exceeded" in text or "timeout" in text:
        return kind(f"The registry {registry} did not answer in time.")
    return untrusted(stderr, registry)


def of_pull(stderr: str, registry: str, name: str) -> SubletError:
    """Why `name` was not delivered."""
    text = stderr.lower()
    if "no space left" in text:
        return DiskFull("No space left on the host for the image's layers.")
    if any(word in text for word in _ABSENT) and "no such host" not in text:
        return NoSuchImage(f"The registry {registry} has no image {name}.")
    if any(word in text for word in _DENIED):
        return NoSuchImage(
            f"The registry {registry} has no image {name}, or wants a login for it.",
            hint=f"Log in with `sublet login {registry}`, or check the name.",
        )
    return unreachable(stderr, registry) or PullFailed(
        f"The registry {registry} did not deliver {name}: {last(stderr)}"
    )


def of_push(stderr: str, registry: str, name: str, kind: type[SubletError]) -> SubletError:
    """Why `name` was not taken."""
    if any(word in stderr.lower() for word in _DENIED):
        return LoginFailed(
            f"The registry {registry} does not let you push {name}.",
            hint=f"Log in with `sublet login {registry}`, as somebody who may write there.",
        )
    return unreachable(stderr, registry, kind) or kind(
        f"The registry {registry} did not take {name}: {last(stderr)}"
    )


def of_login(stderr: str, registry: str) -> SubletError:
    """Why the login failed."""
    if "invalid username/password" in stderr or "unauthorized" in stderr.lower():
        return LoginFailed(
            f"The registry {registry} refuses this user name and password.",
            hint="Mend their spelling; some registries want an access token as password.",
        )
    return unreachable(stderr, registry) or LoginFailed(
        f"The registry {registry} did not take the login: {last(stderr)}"
    )


def last(text: str) -> str:
    """The reason in a failing tool's last line, without its log prefix."""
    line = ([line for line in text.strip().splitlines() if line.strip()] or ["it said nothing"])[-1]
    return (line.partition('msg="')[2].rstrip('"').replace('\\"', '"') or line).rstrip(".") + "."
