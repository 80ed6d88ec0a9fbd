"""The nftables rules of one daemon's networks, as text. Pure.

Two tables. `inet` translates and filters what is routed: instances reach the internet and
those of their own network, not the host; what is new from outside reaches only published ports.
`bridge` lets a cable send only from its own MAC and IPv4 address, ARP too: the bridge learns from
every frame that passes where a MAC is, and sends there what is for that. Which networks there are,
which ports are published, and which addresses belong to which cable, are elements of maps and sets:
a coming and going changes elements, never rules. What is for the metadata service at its link-local
address goes to a port of the daemon's on the gateway, so many new connections a second at most; no
other way leads there. An instance with a policy for
connections outwards (egress.py) is sent through the chain of its policy, and refused what that does
not let pass: on its way out, and on its way to the host; to others on its bridge no frame of it
passes. What is for a port of an instance that sleeps is dropped, and the first of it told to the
daemon, whatever way it came: from outside, from instances, from the host itself.
Instances on the host's own network are known by
their user ids: they do not reach link-local addresses (a cloud's credentials) either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, summarize_address_range
from typing import Any

from sublet.domain import metadata as service
from sublet.domain import subnets
from sublet.domain.egress import PRIVATE
from sublet.domain.ports import Port
from sublet.drivers.network.cables import Cable
from sublet.drivers.network.identity import Identity, Plan, owner
from sublet.drivers.network.knocks import HEAD

_RULES = """
add table inet {table}
add map inet {table} published {{ type inet_proto . inet_service : ipv4_addr . inet_service ; }}
add map inet {table} published_at {{ type ipv4_addr . inet_proto . inet_service \
: ipv4_addr . inet_service ; }}
add map inet {table} views {{ type ipv4_addr : inet_service ; }}
add map inet {table} metadata {{ type ifname : inet_service ; }}
add set inet {table} callers {{ type ipv4_addr ; size 65536 ; flags dynamic ; timeout 1m ; }}
add set inet {table} subnets {{ type ifname . ipv4_addr ; flags interval ; }}
add set inet {table} gateways {{ type ifname . ipv4_addr ; }}
add set inet {table} doors {{ type ipv4_addr ; }}
add set inet {table} open {{ type ipv4_addr ; flags interval ; }}
add set inet {table} internal {{ type ifname ; }}
add set inet {table} foreign {{ type ifname ; }}
add map inet {table} egress {{ type ipv4_addr : verdict ; }}
add map inet {table} answers {{ type ifname : inet_service ; }}
add set inet {table} confined {{ type ipv4_addr ; }}
add set inet {table} asking {{ type ipv4_addr ; }}
add set inet {table} permitted {{ type ipv4_addr . ipv4_addr ; flags interval ; }}
add set inet {table} granted {{ type ipv4_addr . ipv4_addr ; flags timeout ; }}
add set inet {table} askers {{ type ipv4_addr ; size 65536 ; flags dynamic ; timeout 1m ; }}
add set inet {table} asleep {{ type inet_proto . inet_service ; }}
add set inet {table} asleep_at {{ type ipv4_addr . inet_proto . inet_service ; }}
add set inet {table} knocking {{ type inet_proto . inet_service ; flags dynamic,timeout ; \
timeout 10s ; size 4096 ; }}
add chain inet {table} early {{ type filter hook prerouting priority mangle ; }}
add chain inet {table} prerouting {{ type nat hook prerouting priority dstnat ; }}
add chain inet {table} postrouting {{ type nat hook postrouting priority srcnat ; }}
add chain inet {table} forward {{ type filter hook forward priority filter ; }}
add chain inet {table} input {{ type filter hook input priority filter ; }}
add chain inet {table} output {{ type filter hook output priority filter ; }}
add chain inet {table} from_instances
add chain inet {table} to_instances
add chain inet {table} to_host
add chain inet {table} to_metadata
add chain inet {table} knock
add chain inet {table} egress_none
add chain inet {table} egress_internet
add chain inet {table} egress_listed
add chain inet {table} refuse
flush table inet {table}

add rule inet {table} early udp dport 53 ip saddr @asking update @askers \
{{ ip saddr limit rate over {questions}/second burst {most_questions} packets }} drop
add rule inet {table} early meta nfproto ipv4 meta l4proto . th dport @asleep \
fib daddr type local goto knock
add rule inet {table} early ip daddr . meta l4proto . th dport @asleep_at goto knock
add rule inet {table} knock iifname != lo ip daddr 127.0.0.0/8 drop
add rule inet {table} knock iifname @internal drop
add rule inet {table} knock ip saddr @confined drop
add rule inet {table} knock iifname . ip daddr @gateways drop
add rule inet {table} knock tcp flags & (syn | psh) == 0 drop
add rule inet {table} knock update @knocking {{ meta l4proto . th dport \
limit rate over 2/second burst 4 packets }} drop
add rule inet {table} knock log group {knocks} snaplen {head}
add rule inet {table} knock drop

add rule inet {table} prerouting ip daddr {metadata} tcp dport {metadata_port} \
redirect to :iifname map @metadata
add rule inet {table} prerouting iifname . ip daddr @gateways ip saddr @asking udp dport 53 \
redirect to :iifname map @answers
add rule inet {table} prerouting iifname . ip daddr @gateways ip saddr @asking accept
add rule inet {table} prerouting iifname . ip daddr @gateways meta l4proto {{ tcp, udp }} \
th dport 53 redirect to :ip saddr map @views
add rule inet {table} prerouting iifname . ip daddr @gateways accept
add rule inet {table} prerouting ip saddr @confined accept
add rule inet {table} prerouting fib daddr type local \
dnat ip to meta l4proto . th dport map @published
add rule inet {table} prerouting dnat ip to ip daddr . meta l4proto . th dport map @published_at

add rule inet {table} postrouting oifname . ip saddr @subnets ct status dnat masquerade
add rule inet {table} postrouting oifname . ip saddr @subnets accept
add rule inet {table} postrouting ip saddr @open masquerade

add rule inet {table} forward iifname {bridge} jump from_instances
add rule inet {table} forward iifname {bridges} jump from_instances
add rule inet {table} forward oifname {bridge} jump to_instances
add rule inet {table} forward oifname {bridges} jump to_instances
add rule inet {table} from_instances iifname . ip saddr != @subnets drop
add rule inet {table} from_instances meta nfproto != ipv4 drop
add rule inet {table} from_instances ip saddr vmap @egress
add rule inet {table} from_instances ip daddr 169.254.0.0/16 drop
add rule inet {table} from_instances iifname . ip daddr @subnets oifname . ip daddr @subnets accept
add rule inet {table} from_instances iifname @internal drop
add rule inet {table} from_instances oifname @foreign ct status dnat accept
add rule inet {table} from_instances oifname @foreign ct state new drop
add rule inet {table} egress_none ct direction reply return
add rule inet {table} egress_none goto refuse
add rule inet {table} egress_internet ct direction reply return
add rule inet {table} egress_internet oifname {bridge} goto refuse
add rule inet {table} egress_internet oifname {bridges} goto refuse
add rule inet {table} egress_internet oifname @foreign goto refuse
add rule inet {table} egress_internet ip daddr {{ {private} }} goto refuse
add rule inet {table} egress_internet return
add rule inet {table} egress_listed ct direction reply return
add rule inet {table} egress_listed ct state established return
add rule inet {table} egress_listed oifname {bridge} goto refuse
add rule inet {table} egress_listed oifname {bridges} goto refuse
add rule inet {table} egress_listed ip saddr . ip daddr @permitted return
add rule inet {table} egress_listed oifname @foreign goto refuse
add rule inet {table} egress_listed ip daddr {{ {private} }} goto refuse
add rule inet {table} egress_listed ip saddr . ip daddr @granted return
add rule inet {table} egress_listed goto refuse
add rule inet {table} refuse meta l4proto tcp reject with tcp reset
add rule inet {table} refuse reject with icmpx admin-prohibited
add rule inet {table} to_instances ct state established,related accept
add rule inet {table} to_instances ct status dnat accept
add rule inet {table} to_instances drop

add rule inet {table} input iifname {bridge} jump to_host
add rule inet {table} input iifname {bridges} jump to_host
add rule inet {table} input iifname != lo ip daddr @doors drop
add rule inet {table} output ip daddr 169.254.0.0/16 meta skuid >= {first_id} drop
add rule inet {table} to_host iifname . ip saddr != @subnets drop
add rule inet {table} to_host ip saddr @asking meta l4proto {{ tcp, udp }} th dport 53 goto refuse
add rule inet {table} to_host ct state established,related accept
add rule inet {table} to_host iifname . ip daddr @gateways meta l4proto {{ tcp, udp }} \
ct original proto-dst 53 accept
add rule inet {table} to_host meta l4proto tcp ct original ip daddr {metadata} \
ct original proto-dst {metadata_port} jump to_metadata
add rule inet {table} to_host iifname . ip daddr @gateways icmp type echo-request accept
add rule inet {table} to_host ip saddr @confined goto refuse
add rule inet {table} to_host drop
add rule inet {table} to_metadata update @callers \
{{ ip saddr limit rate over {rate}/second burst {burst} packets }} drop
add rule inet {table} to_metadata accept

add table bridge {table}
add set bridge {table} endpoints {{ type ifname . ether_addr . ipv4_addr ; }}
add set bridge {table} isolated {{ type ifname ; }}
add chain bridge {table} guard {{ type filter hook prerouting priority filter ; }}
add chain bridge {table} between {{ type filter hook forward priority filter ; }}
flush table bridge {table}
add rule bridge {table} guard meta iifgroup != {group} accept
add rule bridge {table} guard iifname . ether saddr . ip saddr @endpoints accept
add rule bridge {table} guard iifname . ether saddr . arp saddr ip @endpoints \
iifname . arp saddr ether . arp saddr ip @endpoints accept
add rule bridge {table} guard drop
add rule bridge {table} between iifname @isolated drop
add rule bridge {table} between oifname @isolated drop
"""
_QUESTIONS = 200
"""How many names an instance whose policy has a list may ask for in a second."""

_OF_NETWORKS = ("subnets", "gateways", "doors", "open", "internal")
EGRESS, ISOLATED = ("egress", "confined", "asking", "permitted"), ("isolated",)
PORTS, VIEWS, ENDPOINTS = ("published", "published_at"), ("views",), ("endpoints",)
ASLEEP = ("asleep", "asleep_at")
_OF_INSTANCES = PORTS + VIEWS + ENDPOINTS + ASLEEP + EGRESS + ISOLATED


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
        comment = "" if self.container in ENDPOINTS + ISOLATED else f' comment "{self.owner}"'
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
    text = _RULES.format(
        table=identity.table,
        bridge=f'"{identity.bridge}"',
        bridges=f'"{identity.bridge}-*"',
        group=identity.group,
        first_id=subnets.FIRST_ID,
        metadata=service.ADDRESS,
        metadata_port=service.PORT,
        rate=service.PACE.rate,
        burst=service.PACE.burst,
        knocks=identity.knocks,
        head=HEAD,
        private=", ".join(map(str, PRIVATE)),
        questions=_QUESTIONS,
        most_questions=2 * _QUESTIONS,
    )
    return text + networks(plan)


def networks(plan: Plan) -> str:
    """Commands that make the sets of networks what the plan says."""
    made: dict[str, list[str]] = {name: [] for name in _OF_NETWORKS}
    for segment in plan.segments:
        bridge = f'"{segment.bridge}"'
        made["subnets"].append(f"{bridge} . {segment.subnet}")
        made["gateways"].append(f"{bridge} . {segment.gateway}")
        made["doors"].append(segment.gateway)
        if segment.internal:
            made["internal"].append(bridge)
        else:
            made["open"].append(str(segment.subnet))
    return "".join(fill(plan.identity, name, keys) for name, keys in made.items())


def metadata(identity: Identity, ports: Mapping[str, int]) -> str:
    """Commands that lead each bridge's calls for metadata to these ports, and no others'."""
    keys = [f'"{bridge}" : {port}' for bridge, port in ports.items()]
    return fill(identity, "metadata", keys, kind="map")


def answers(identity: Identity, ports: Mapping[str, int]) -> str:
    """Commands that lead each bridge's questions for names on lists to these ports."""
    keys = [f'"{bridge}" : {port}' for bridge, port in ports.items()]
    return fill(identity, "answers", keys, kind="map")


def fill(identity: Identity, name: str, keys: Iterable[str], kind: str = "set") -> str:
    """Commands that make a set's or map's elements these and no others."""
    place, keys = f"inet {identity.table} {name}", list(keys)
    flush = f"flush {kind} {place}\n"
    return flush + (f"add element {place} {{ {', '.join(keys)} }}\n" if keys else "")


def removal(identity: Identity) -> str:
    """Commands that remove the tables, there or not."""
    return "".join(
        f"add table {family} {identity.table}\ndelete table {family} {identity.table}\n"
        for family in ("inet", "bridge")
    )


def endpoint(cable: Cable) -> Element:
    """What a cable may send from."""
    key = f'"{cable.name}" . {subnets.mac(cable.address)} . {cable.address}'
    return Element("bridge", "endpoints", key, "", cable.instance_id)


def view(instance_id: str, address: IPv4Address, port: int) -> Element:
    """The resolver's port, for an instance whose names are those of several networks."""
    return Element("inet", "views", str(address), str(port), instance_id)


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


def sleeper(instance_id: str, port: Port) -> Element:
    """A port that is held for an instance that sleeps."""
    container, key = place_of(port.protocol, port.host_ip, port.host_port)
    return Element("inet", container, key, "", instance_id)


def place_of(protocol: str, address: str, port: int) -> tuple[str, str]:
    """The set, and the key in it, of a port that is held at an address, or at all (0.0.0.0)."""
    key = f"{protocol} . {port}"
    if IPv4Address(address).is_unspecified:
        return "asleep", key
    return "asleep_at", f"{address} . {key}"


def elements(listing: list[dict[str, Any]]) -> list[Element]:
    """Every instance's element in the JSON of `list ruleset` or `list table`."""
    found = []
    for entry in listing:
        container = entry.get("map") or entry.get("set") or {}
        mine = container.get("name") in _OF_INSTANCES
        for item in container.get("elem", []) if mine else []:
            found.append(_element(container["family"], container["name"], item))
    return found


def _element(family: str, container: str, item: Any) -> Element:
    if isinstance(item, list):
        key, value = item
        inner = key.get("elem", {"val": key})
        return Element(
            family, container, joined(inner["val"]), joined(value), inner.get("comment", "")
        )
    if container in ASLEEP + EGRESS:
        inner = item.get("elem", {"val": item})
        return Element(family, container, joined(inner["val"]), "", inner.get("comment", ""))
    if container in ISOLATED:
        return Element(family, container, f'"{item}"', "", owner(item))
    link = str(item["concat"][0])
    rest = " . ".join(str(part) for part in item["concat"][1:])
    return Element(family, container, f'"{link}" . {rest}', "", owner(link))


def joined(value: Any) -> str:
    """A key or value of libnftables-json(5) as it is written in a command."""
    if not isinstance(value, dict):
        return str(value)
    if "jump" in value:
        return f"jump {value['jump']['target']}"
    if "prefix" in value:
        return f"{value['prefix']['addr']}/{value['prefix']['len']}"
    if "range" in value:
        low, high = map(IPv4Address, value["range"])
        return str(next(summarize_address_range(low, high)))
    return " . ".join(map(joined, value["concat"]))
