"""What nftables keeps of instances' policies for connections outwards. Pure.

Each address of such an instance leads, by a map of the `inet` table, to the chain of its policy, on
its way out and to the host; its cables are isolated in the `bridge` table, from all others on their
bridge. What is on lists by address is in `permitted`, what our resolver has told an instance in
`granted`, for a time. Replies to connections that others began pass in any case.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from sublet.domain import egress
from sublet.domain.egress import Egress
from sublet.drivers.network.identity import veth
from sublet.drivers.network.rules import Element, joined


@dataclass(frozen=True, slots=True)
class Grant:
    """What an instance's address may connect to for so many seconds: our resolver named it."""

    owner: str
    source: IPv4Address
    target: IPv4Address
    seconds: int

    @property
    def key(self) -> str:
        return f"{self.source} . {self.target}"


def elements(
    instance_id: str, policy: Egress | None, address: IPv4Address, interface: int
) -> list[Element]:
    """What keeps an instance to its policy at one of its places."""
    if policy is None:
        return []
    found = [
        Element("inet", "egress", str(address), f"jump {_chain(policy)}", instance_id),
        Element("inet", "confined", str(address), "", instance_id),
        Element("bridge", "isolated", f'"{veth(instance_id, interface)}"', "", instance_id),
    ]
    if egress.asks_us(policy):
        found.append(Element("inet", "asking", str(address), "", instance_id))
    for subnet in egress.allowed_subnets(policy):
        target = str(subnet) if subnet.prefixlen < 32 else str(subnet.network_address)
        found.append(Element("inet", "permitted", f"{address} . {target}", "", instance_id))
    return found


def _chain(policy: Egress) -> str:
    named: dict[Egress, str] = {
        (egress.NONE,): "egress_none",
        (egress.INTERNET,): "egress_internet",
    }
    return named.get(policy, "egress_listed")


def grant(table: str, grants: Iterable[Grant]) -> str:
    """Commands that let connections pass; what was granted before lasts as long as said now."""
    return "".join(_granted(table, each) for each in grants)


def _granted(table: str, what: Grant) -> str:
    place = f"element inet {table} granted"
    add = f'add {place} {{ {what.key} timeout {what.seconds}s comment "{what.owner}" }}\n'
    return f"{add}delete {place} {{ {what.key} }}\n{add}"


def revoke(table: str, keys: Iterable[str]) -> str:
    """Commands that let none of these pass any more."""
    return "".join(f"delete element inet {table} granted {{ {key} }}\n" for key in keys)


def grants(listing: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Owner and key of all that is granted, of the JSON of `list set`."""
    found = []
    for entry in listing:
        container = entry.get("set") or {}
        for item in container.get("elem", []) if container.get("name") == "granted" else []:
            inner = item.get("elem", {"val": item})
            found.append((inner.get("comment", ""), joined(inner["val"])))
    return found
