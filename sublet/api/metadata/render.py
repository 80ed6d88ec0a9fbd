"""Replies, and the events of h11 that send them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus

import h11


@dataclass(frozen=True, slots=True)
class Reply:
    """`left`: the seconds that the caller's token is good, 0 where there is none. `near`: it is for
    the instance itself, not for what the instance forwards it to."""

    status: HTTPStatus
    text: str = ""
    left: float = 0.0
    near: bool = False


def refusal(status: HTTPStatus) -> Reply:
    """What EC2 says where it has nothing else to say: the status, as a page."""
    title = f"{status.value} - {status.phrase}"
    page = f"<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\n"
    return Reply(status, page)


def events(reply: Reply, *, head: bool, last: bool) -> Iterator[h11.Event]:
    """`head`: without the body, though its length is told; `last`: no further request is read."""
    body = reply.text.encode()
    plain = reply.status is HTTPStatus.OK
    headers = [
        ("Content-Type", "text/plain" if plain else "text/html"),
        ("Content-Length", str(len(body))),
        ("Server", "sublet"),
    ]
    if reply.left:
        seconds = str(math.ceil(reply.left))
        headers.append(("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", seconds))
    if reply.status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers.append(("Allow", "GET, HEAD, PUT"))
    if last:
        headers.append(("Connection", "close"))
    yield h11.Response(status_code=reply.status.value, headers=headers, reason=reply.status.phrase)
    if body and not head:
        yield h11.Data(data=body)
    yield h11.EndOfMessage()
