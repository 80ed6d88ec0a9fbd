"""Questions for names, and answers to them, as they travel (RFC 1035, 4.1). Pure.

What instances send is taken for hostile: one question in plain labels is read, and nothing else of
it is passed on. Answers are made anew, of addresses alone.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

A, IN = 1, 1
NO_ERROR, SERVER_FAILURE, NO_SUCH_NAME, REFUSED = 0, 2, 3, 5
_HEADER = struct.Struct(">6H")
_RESPONSE, _OPCODE, _RECURSION, _AVAILABLE = 0x8000, 0x7800, 0x0100, 0x0080
_LONGEST_ANSWER = 512


@dataclass(frozen=True, slots=True)
class Question:
    """Who asks numbers it; `text` are the bytes of the question, as they were written."""

    number: int
    name: str
    kind: int
    text: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What a resolver says: its code, and addresses with the seconds that they hold for."""

    number: int
    name: str
    code: int
    addresses: tuple[tuple[IPv4Address, int], ...]


def question(packet: bytes) -> Question | None:
    """The question that somebody asks; None for what is no such thing."""
    try:
        number, flags, count, *_ = _HEADER.unpack_from(packet)
        name, end = _name(packet, _HEADER.size)
        kind, family = struct.unpack_from(">2H", packet, end)
    except (struct.error, IndexError, ValueError):
        return None
    if flags & (_RESPONSE | _OPCODE) or count != 1 or family != IN:
        return None
    return Question(number, name, kind, packet[_HEADER.size : end + 4])


def asked(number: int, name: str) -> bytes:
    """A question for the addresses of a name."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    head = _HEADER.pack(number, _RECURSION, 1, 0, 0, 0)
    return head + labels + b"\0" + struct.pack(">2H", A, IN)


def answer(packet: bytes) -> Answer | None:
    """What a resolver answers; None for what is no answer. Names of the addresses do not count:
    the resolver has followed the aliases."""
    try:
        number, flags, questions, count, *_ = _HEADER.unpack_from(packet)
        if not flags & _RESPONSE or questions != 1:
            return None
        name, end = _name(packet, _HEADER.size)
        found = tuple(_addresses(packet, end + 4, count))
    except (struct.error, IndexError, ValueError):
        return None
    return Answer(number, name, flags & 15, found)


def reply(to: Question, code: int, addresses: Sequence[tuple[IPv4Address, int]] = ()) -> bytes:
    """The answer to a question, with as many addresses as fit."""
    most = (_LONGEST_ANSWER - _HEADER.size - len(to.text)) // 16
    given = addresses[:most]
    flags = _RESPONSE | _RECURSION | _AVAILABLE | code
    head = _HEADER.pack(to.number, flags, 1, len(given), 0, 0)
    records = [
        struct.pack(">3HIH", 0xC000 | _HEADER.size, A, IN, seconds, 4) + address.packed
        for address, seconds in given
    ]
    return head + to.text + b"".join(records)


def _addresses(packet: bytes, at: int, count: int) -> list[tuple[IPv4Address, int]]:
    found = []
    for _ in range(count):
        at = _past_name(packet, at)
        kind, family, seconds, length = struct.unpack_from(">2HIH", packet, at)
        data = packet[at + 10 : at + 10 + length]
        at += 10 + length
        if (kind, family, len(data)) == (A, IN, 4):
            found.append((IPv4Address(data), seconds))
    return found


def _name(packet: bytes, at: int) -> tuple[str, int]:
    """A name in plain labels, in lower case, and where it ends. Raises ValueError, IndexError."""
    labels: list[str] = []
    begin = at
    while length := packet[at]:
        label = packet[at + 1 : at + 1 + length]
        if length > 63 or len(label) < length or b"." in label or at + length - begin > 253:
            raise ValueError("no plain name")
        labels.append(label.decode("ascii").lower())
        at += 1 + length
    return ".".join(labels), at + 1


def _past_name(packet: bytes, at: int) -> int:
    while length := packet[at]:
        if length >= 0xC0:
            return at + 2
        at += 1 + length
    return at + 1
