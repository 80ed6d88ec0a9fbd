"""The nftables rules of one daemon's network, as text. Pure.

Two tables. `inet` translates and filters what is routed: instances reach the internet and
each other, not the host; what is new from outside reaches only published ports.
`bridge` lets a cable send only from its own MAC and IPv4 address. Which ports are
published, and which addresses belong to which cable, are elements of maps and sets: an
instance's coming and going changes elements, never rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from sublet.domain import subnets
from sublet.domain.ports import Port
from sublet.drivers.network.identity import Identity, Plan, owner, veth

_RULES = """
add table inet {table}
add map inet {table} published {{ type inet_proto . inet_service : ipv4_addr . inet_service ; }}
add map inet {table} published_at {{ type ipv4_addr . inet_proto . inet_service \
: ipv4_addr . inet_service ; }}
add chain inet {table} prerouting {{ type nat hook prerouting priority dstnat ; }}
add chain inet {table} postrouting {{ type nat hook postrouting priority srcnat ; }}
add chain inet {table} forward {{ type filter hook forward priority filter ; }}
add chain inet {table} input {{ type filter hook input priority filter ; }}
add chain inet {table} from_instances
add chain inet {table} to_instances
add chain inet {table} to_host
flush table inet {table}

add rule inet {table} prerouting iifname {bridge} ip daddr {gateway} accept
add rule inet {table} prerouting fib daddr type local \
dnat ip to meta l4proto . th dport map @published
add rule inet {table} prerouting dnat ip to ip daddr . meta l4proto . th dport map @published_at

add rule inet {table} postrouting ip saddr {subnet} oifname {bridge} ct status dnat masquerade
add rule inet {table} postrouting ip saddr {subnet} oifname != {bridge} masquerade

add rule inet {table} forward iifname {bridge} jump from_instances
add rule inet {table} forward oifname {bridge} jump to_instances
add rule inet {table} from_instances ip saddr != {subnet} drop
add rule inet {table} from_instances meta nfproto != ipv4 drop
add rule inet {table} from_instances ip daddr 169.254.0.0/16 drop
add rule inet {table} from_instances oifname {bridge} accept
add rule inet {table} to_instances ct state established,related accept
add rule inet {table} to_instances ct status dnat accept
add rule inet {table} to_instances drop

add rule inet {table} input iifname {bridge} jump to_host
add rule inet {table} input iifname != lo ip daddr {gateway} drop
add rule inet {table} to_host ip saddr != {subnet} drop
add rule inet {table} to_host ct state established,related accept
add rule inet {table} to_host ip daddr {gateway} meta l4proto {{ tcp, udp }} th dport 53 accept
add rule inet {table} to_host ip daddr {gateway} icmp type echo-request accept
add rule inet {table} to_host drop

add table bridge {table}
add set bridge {table} endpoints {{ type ifname . ether_addr . ipv4_addr ; }}
add chain bridge {table} guard {{ type filter hook prerouting priority filter ; }}
flush table bridge {table}
add rule bridge {table} guard meta iifgroup != {group} accept
add rule bridge {table} guard iifname . ether saddr . ip saddr @endpoints accept
add rule bridge {table} guard iifname . arp saddr ether . arp saddr ip @endpoints accept
add rule bridge {table} guard drop
"""


@dataclass(frozen=True, slots=True)
class Element:
    """An element of a map or set, and the instance that it belongs to."""

    family: str
    container: str
    key: str
    value: str
    owner: str

    def add(self, table: str) -> str:
        """The command that adds it; it succeeds when the same element is there."""
        comment = f' comment "{self.owner}"' if self.value else ""
        value = f" : {self.value}" if self.value else ""
        return f"add element {self._place(table)} {{ {self.key}{comment}{value} }}\n"

    def delete(self, table: str) -> str:
        """The commands that remove it; they succeed when it is not there."""
        return self.add(table) + f"delete element {self._place(table)} {{ {self.key} }}\n"

    def _place(self, table: str) -> str:
        return f"{self.family} {table} {self.container}"


def ruleset(plan: Plan) -> str:
    """Commands that make the tables and rules, or renew the rules and keep the elements."""
    identity = plan.identity
    return _RULES.format(
        table=identity.table,
        bridge=f'"{identity.bridge}"',
        subnet=plan.subnet,
        gateway=plan.gateway,
        group=identity.group,
    )


def removal(identity: Identity) -> str:
    """Commands that remove the tables, there or not."""
    return "".join(
        f"add table {family} {identity.table}\ndelete table {family} {identity.table}\n"
        for family in ("inet", "bridge")
    )


def endpoint(instance_id: str, address: IPv4Address) -> Element:
    """What the cable of an instance may send from."""
    key = f'"{veth(instance_id)}" . {subnets.mac(address)} . {address}'
    return Element("bridge", "endpoints", key, "", instance_id)


def publication(instance_id: str, address: IPv4Address, port: Port) -> Element | None:
    """The translation of a published port; None on loopback, which only the host reaches."""
    value = f"{address} . {port.container_port}"
    key = f"{port.protocol} . {port.host_port}"
    host = IPv4Address(port.host_ip)
    if host.is_loopback:
        return None
    if host.is_unspecified:
        return Element("inet", "published", key, value, instance_id)
    return Element("inet", "published_at", f"{host} . {key}", value, instance_id)


def elements(listing: list[dict[str, Any]]) -> list[Element]:
    """Every element in the JSON of `list ruleset` or `list table`."""
    found = []
    for entry in listing:
        container = entry.get("map") or entry.get("set") or {}
        for item in container.get("elem", []):
            found.append(_element(container["family"], container["name"], item))
    return found


def _element(family: str, container: str, item: Any) -> Element:
    if isinstance(item, list):
        key, value = item
        inner = key.get("elem", {"val": key})
        return Element(
            family, container, _joined(inner["val"]), _joined(value), inner.get("comment", "")
        )
    link = str(item["concat"][0])
    rest = " . ".join(str(part) for part in item["concat"][1:])
    return Element(family, container, f'"{link}" . {rest}', "", owner(link))


def _joined(value: dict[str, list[Any]]) -> str:
    return " . ".join(str(part) for part in value["concat"])
