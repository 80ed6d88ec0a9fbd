"""The bridges, and what networks the host knows. All calls block for a few milliseconds."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from sublet.domain import subnets
from sublet.drivers.network import netlink
from sublet.drivers.network.identity import Identity, Segment
from sublet.drivers.network.netlink import Request

UP = {"flags": 1, "change": 1}
PRESENT = frozenset({errno.EEXIST})
GONE = frozenset({errno.ENODEV})


def exists(name: str) -> bool:
    """Whether the host has a link of this name."""
    return index(name) != 0


def index(name: str) -> int:
    """The link's index, 0 when there is none."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def ensure_bridge(segment: Segment) -> None:
    """The bridge exists, is up, has the gateway's address, and the host forwards."""
    name, gateway = segment.bridge, segment.gateway
    info = {"attrs": [("IFLA_INFO_KIND", "bridge")]}
    attributes = [
        ("IFLA_IFNAME", name),
        ("IFLA_ADDRESS", subnets.mac(IPv4Address(gateway))),
        ("IFLA_GROUP", segment.group),
        ("IFLA_LINKINFO", info),
    ]
    netlink.send([Request(netlink.NEWLINK, ifinfmsg, {}, attributes, netlink.CREATE, PRESENT)])
    set_sysctl(f"ipv6/conf/{name}/disable_ipv6", "1")
    _forget_neighbours(name)
    set_sysctl("ipv4/ip_forward", "1")
    set_sysctl(f"ipv4/conf/{name}/forwarding", "1")
    number = index(name)
    up = Request(netlink.SETLINK, ifinfmsg, {"index": number, **UP})
    netlink.send([up, address_request(number, gateway, segment.subnet.prefixlen)])


def _forget_neighbours(bridge: str) -> None:
    """Let the bridge learn no MAC from frames to link-local ones (IEEE 802.1Q, 8.6.3): they pass no
    rules of nftables, and who sends them in another's name would get what is for that."""
    Path("/sys/class/net", bridge, "bridge/no_linklocal_learn").write_text("1")


def delete_bridge(name: str) -> None:
    """The bridge is gone."""
    attributes = [("IFLA_IFNAME", name)]
    netlink.send([Request(netlink.DELLINK, ifinfmsg, {}, attributes, 0, GONE)])


def bridges(identity: Identity) -> list[str]:
    """The names of this daemon's bridges that stand."""
    return [name for _, name in socket.if_nameindex() if identity.is_bridge(name)]


def delete_all(identity: Identity) -> None:
    """The bridges and every cable of this daemon are gone."""
    for group in (identity.group, identity.group + 1):
        attributes = [("IFLA_GROUP", group)]
        netlink.send([Request(netlink.DELLINK, ifinfmsg, {}, attributes, 0, GONE)])


def bridge_subnet(identity: Identity) -> IPv4Network | None:
    """The /16 of the default bridge, if it stands."""
    number = index(identity.bridge)
    for message in netlink.dump(_dump_addresses()) if number else []:
        if message["index"] == number:
            text = f"{message.get_attr('IFA_LOCAL')}/{message['prefixlen']}"
            return IPv4Interface(text).network.supernet(new_prefix=16)
    return None


def taken() -> list[IPv4Network]:
    """Every IPv4 network that the host has an address in or a route to."""
    found = []
    for message in netlink.dump(_dump_addresses()):
        local = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        found.append(IPv4Interface(f"{local}/{message['prefixlen']}").network)
    routes = Request(netlink.GETROUTE, rtmsg, {"family": socket.AF_INET})
    for message in netlink.dump(routes):
        target = message.get_attr("RTA_DST")
        if target:
            found.append(IPv4Network(f"{target}/{message['dst_len']}", strict=False))
    return found


def address_request(number: int, address: str, prefix: int) -> Request:
    fields = {"family": socket.AF_INET, "prefixlen": prefix, "index": number}
    broadcast = str(IPv4Interface(f"{address}/{prefix}").network.broadcast_address)
    attributes = [
        ("IFA_LOCAL", address),
        ("IFA_ADDRESS", address),
        ("IFA_BROADCAST", broadcast),
    ]
    return Request(netlink.NEWADDR, ifaddrmsg, fields, attributes, netlink.CREATE, PRESENT)


def _dump_addresses() -> Request:
    return Request(netlink.GETADDR, ifaddrmsg, {"family": socket.AF_INET})


def set_sysctl(name: str, value: str) -> None:
    """Set a sysctl below net/ in the thread's network namespace, if the kernel has it."""
    path = f"/proc/sys/net/{name}"
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(path, os.O_RDWR)
        try:
            if os.read(fd, 16).strip() != value.encode():
                os.pwrite(fd, value.encode(), 0)
        finally:
            os.close(fd)
