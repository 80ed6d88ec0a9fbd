"""Published ports: `8080:80`, `127.0.0.1:8080:80/udp`, `8000-8010:80-90`, `80`.

A host port that is 0, empty or left out is for the host to choose.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from sublet.domain.errors import InvalidArgument

_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_HINT = "Write [HOST-IP:]HOST-PORT:PORT[/tcp|/udp], such as 8080:80 or 127.0.0.1:5432:5432."


@dataclass(frozen=True, slots=True)
class Port:
    """One port of an instance that the host answers on. `host_port` 0: the host chooses."""

    container_port: int
    host_port: int = 0
    host_ip: str = "0.0.0.0"
    protocol: str = "tcp"

    def __str__(self) -> str:
        return f"{self.host_ip}:{self.host_port}->{self.container_port}/{self.protocol}"


def parse_ports(text: str) -> list[Port]:
    """The ports that one `-p` names; a range names several.

    Raises InvalidArgument for anything but a port from 1 to 65535, an IPv4
    address, and ranges of one length.
    """
    body, slash, protocol = text.partition("/")
    if slash and protocol not in ("tcp", "udp"):
        raise InvalidArgument(f"'{text}': the protocol is neither tcp nor udp.", hint=_HINT)
    fields = body.split(":")
    if not 1 <= len(fields) <= 3:
        raise InvalidArgument(f"'{text}' is not a port to publish.", hint=_HINT)
    inner = _range(text, fields[-1])
    chosen = len(fields) > 1 and fields[-2] not in ("", "0")
    outer = _range(text, fields[-2]) if chosen else [0] * len(inner)
    if len(inner) != len(outer):
        raise InvalidArgument(f"'{text}': the two port ranges differ in length.", hint=_HINT)
    host_ip = _address(text, fields[0]) if len(fields) == 3 and fields[0] else "0.0.0.0"
    return [
        Port(port, host_port, host_ip, protocol or "tcp")
        for port, host_port in zip(inner, outer, strict=True)
    ]


def check_port(port: Port) -> None:
    """Raises InvalidArgument where a port, its address or its protocol is none."""
    if not (1 <= port.container_port <= 65535 and 0 <= port.host_port <= 65535):
        raise InvalidArgument(f"{port}: ports go from 1 to 65535.")
    if port.protocol not in ("tcp", "udp"):
        raise InvalidArgument(f"{port}: the protocol is neither tcp nor udp.")
    _address(str(port), port.host_ip)


def _range(text: str, field: str) -> list[int]:
    match = _RANGE.fullmatch(field)
    if not match:
        raise InvalidArgument(f"'{text}': '{field}' is not a port.", hint=_HINT)
    first, last = int(match[1]), int(match[2] or match[1])
    if not 1 <= first <= last <= 65535:
        raise InvalidArgument(f"'{text}': ports go from 1 to 65535.", hint=_HINT)
    return list(range(first, last + 1))


def _address(text: str, field: str) -> str:
    try:
        return str(ipaddress.IPv4Address(field))
    except ValueError:
        raise InvalidArgument(f"'{text}': '{field}' is not an IPv4 address.", hint=_HINT) from None
