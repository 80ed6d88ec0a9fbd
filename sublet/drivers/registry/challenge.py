"""How a registry wants to be authorised, from its `WWW-Authenticate` header.

Source: RFC 9110, 11.6.1; distribution's "Token Authentication Specification".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit

_PARAMETER = re.compile(r'([a-zA-Z]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))(?:\s*,\s*|\s*$)')
_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Challenge:
    """`scheme` is `basic`, `bearer`, or something that is not known here."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse(header: str) -> Challenge:
    """The challenge in a `WWW-Authenticate` header."""
    scheme, _, rest = header.strip().partition(" ")
    found = {
        match[1].lower(): re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3]
        for match in _PARAMETER.finditer(rest)
    }
    return Challenge(scheme.lower(), found)


def token_url(challenge: Challenge, repository: str, *, plain: bool) -> str | None:
    """Where to fetch a token that lets one pull from `repository`; None where no sound place is
    named. It gets the credentials, so it must be HTTPS, unless the registry itself speaks
    plain HTTP (`plain`)."""
    realm = challenge.parameters.get("realm", "")
    try:
        parts = urlsplit(realm)
        usable = bool(parts.hostname) and parts.username is None
    except ValueError:
        return None
    if parts.scheme not in (("https", "http") if plain else ("https",)) or not usable:
        return None
    query = {"scope": challenge.parameters.get("scope") or f"repository:{repository}:pull"}
    if service := challenge.parameters.get("service"):
        query["service"] = service
    return f"{realm}{'&' if parts.query else '?'}{urlencode(query)}"


def token_of(answer: bytes) -> str:
    """The token in the answer of the token server; empty where there is none."""
    try:
        data = json.loads(answer)
        token = data.get("token") or data.get("access_token") or ""
    except (ValueError, AttributeError, RecursionError):
        return ""
    return token if isinstance(token, str) and _TOKEN.fullmatch(token) else ""
