"""What each request gets, in the order in which EC2 refuses.

Source: EC2 User Guide, "Use the Instance Metadata Service": 400 a malformed PUT, 401 a token that
is missing or no good, 403 refused, 404 nothing there, 405 another method.
"""

from __future__ import annotations

from http import HTTPStatus

from sublet.api.metadata.parse import Request
from sublet.api.metadata.render import Reply, refusal
from sublet.domain.instance import Instance
from sublet.domain.metadata import answer
from sublet.engine.metadata import Metadata

TOKEN = "/latest/api/token"

NOTICE = frozenset({"instance-action", "termination-time", "rebalance"})
"""The last parts of the paths by which an instance hears of its notice."""


def respond(metadata: Metadata, instance: Instance, request: Request, now: float) -> Reply:
    """The reply to an instance's request; `now` in seconds since the epoch."""
    if request.method == "PUT" and request.path == TOKEN:
        return _give(metadata, instance, request, now)
    if request.method not in ("GET", "HEAD") or request.path == TOKEN:
        return refusal(HTTPStatus.METHOD_NOT_ALLOWED)
    left = 0.0
    if request.token is not None:
        left = metadata.remaining(instance, request.token, now)
    if not left and (request.token is not None or not metadata.config.metadata_v1):
        return refusal(HTTPStatus.UNAUTHORIZED)
    text = answer(metadata.view(instance), request.path)
    if text is None:
        return refusal(HTTPStatus.NOT_FOUND)
    if request.path.rpartition("/")[2] in NOTICE:
        metadata.noticed(instance.id)
    return Reply(HTTPStatus.OK, text, left)


def _give(metadata: Metadata, instance: Instance, request: Request, now: float) -> Reply:
    """A token: not through a proxy, which may have been led here by somebody outside."""
    if request.forwarded:
        return refusal(HTTPStatus.FORBIDDEN)
    if not request.ttl:
        return refusal(HTTPStatus.BAD_REQUEST)
    return Reply(HTTPStatus.OK, metadata.token(instance, now, request.ttl), request.ttl, near=True)
