"""Requests, as h11 reads them, made plain."""

from __future__ import annotations

from dataclasses import dataclass

import h11

from sublet.domain import tokens


@dataclass(frozen=True, slots=True)
class Request:
    """`path` without the query; `token` and `ttl` as the headers say, None where there is none, and
    `ttl` 0 for what is no number of seconds; `forwarded`: it came through a proxy."""

    method: str
    path: str
    token: str | None = None
    ttl: int | None = None
    forwarded: bool = False


def parse(event: h11.Request) -> Request:
    """What is asked. Header names are in small letters."""
    headers = {bytes(name): bytes(value).decode("latin-1") for name, value in event.headers}
    target = bytes(event.target).decode("latin-1")
    ttl = headers.get(b"x-aws-ec2-metadata-token-ttl-seconds")
    return Request(
        method=bytes(event.method).decode("latin-1"),
        path=target.partition("?")[0],
        token=headers.get(b"x-aws-ec2-metadata-token"),
        ttl=None if ttl is None else _seconds(ttl),
        forwarded=b"x-forwarded-for" in headers,
    )


def _seconds(text: str) -> int:
    """How long a token is to be good; 0 for what is out of EC2's range."""
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(tokens.LONGEST))):
        return 0
    return int(text) if int(text) <= tokens.LONGEST else 0
