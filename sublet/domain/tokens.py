"""Tokens of the metadata service: for whom, until when, and a code that nobody else can make.

Nothing is kept of them: whoever has the key can tell one that it has given.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import struct

KEY = 32
"""Bytes of a key."""

LONGEST = 21600
"""The most seconds that a token is good for, as on EC2."""

_UNTIL = struct.Struct(">d")
_LENGTH = _UNTIL.size + hashlib.sha256().digest_size


def issue(key: bytes, instance_id: str, until: float) -> str:
    """A token for an instance, good until then (seconds since the epoch); 56 characters."""
    head = _UNTIL.pack(until)
    return base64.urlsafe_b64encode(head + _code(key, instance_id, head)).decode()


def remaining(key: bytes, instance_id: str, token: str, now: float) -> float:
    """For how many seconds the token is good, for this instance: 0 for what is none."""
    try:
        raw = base64.b64decode(token.encode("ascii"), b"-_", validate=True)
    except (ValueError, binascii.Error):
        return 0.0
    head, code = raw[: _UNTIL.size], raw[_UNTIL.size :]
    if len(raw) != _LENGTH or not hmac.compare_digest(code, _code(key, instance_id, head)):
        return 0.0
    left = float(_UNTIL.unpack(head)[0]) - now
    return left if 0 < left <= LONGEST else 0.0


def _code(key: bytes, instance_id: str, head: bytes) -> bytes:
    return hmac.digest(key, head + instance_id.encode(), "sha256")
