"""Cables: veth pairs from the bridge into instances' network namespaces. All calls block."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from sublet.domain import subnets
from sublet.drivers import linux
from sublet.drivers.network import netlink
from sublet.drivers.network.identity import Identity, Plan
from sublet.drivers.network.links import GONE, UP, address_request, index, set_sysctl
from sublet.drivers.network.netlink import Request

INNER = "eth0"
_SIOCGIFINDEX = 0x8933


def plug(plan: Plan, name: str, netns: int, address: IPv4Address) -> None:
    """A cable `name` from the bridge to eth0 in the network namespace, addressed and routed.

    A cable of that name that is there already is replaced.
    """
    with linux.entered(netns, linux.CLONE_NEWNET, "net"):
        inner = netlink.open_socket()
        set_sysctl("ipv6/conf/all/disable_ipv6", "1")
    with inner:
        cable = [_cable(plan, name, netns, address)]
        try:
            netlink.send(cable)
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise
            delete(plan.identity, [name])
            netlink.send(cable)
        _reflect(name)
        _configure(inner, plan, address)


def replug(plan: Plan, name: str) -> bool:
    """Put a cable that exists back into the bridge; False when it does not exist."""
    number = index(name)
    if not number:
        return False
    attributes = [
        ("IFLA_MASTER", index(plan.identity.bridge)),
        ("IFLA_GROUP", plan.identity.group),
    ]
    netlink.send([Request(netlink.SETLINK, ifinfmsg, {"index": number, **UP}, attributes)])
    _reflect(name)
    return True


def delete(identity: Identity, names: Iterable[str]) -> None:
    """The cables are gone, both ends. Ten cost what one costs: the kernel waits once."""
    leaving = identity.group + 1
    requests = [
        Request(
            netlink.SETLINK,
            ifinfmsg,
            {},
            [("IFLA_IFNAME", name), ("IFLA_GROUP", leaving)],
            0,
            GONE,
        )
        for name in names
    ]
    requests.append(Request(netlink.DELLINK, ifinfmsg, {}, [("IFLA_GROUP", leaving)], 0, GONE))
    netlink.send(requests)


def owned(identity: Identity) -> list[str]:
    """The names of this daemon's cables: of its group, or plugged into its bridge."""
    names = [name for _, name in socket.if_nameindex() if name != identity.bridge]
    return [name for name in names if _belongs(name, identity)]


def _belongs(name: str, identity: Identity) -> bool:
    link = Path("/sys/class/net", name)
    try:
        group = int((link / "netdev_group").read_text())
    except (OSError, ValueError):
        return False
    if group in (identity.group, identity.group + 1):
        return True
    return (link / "master").exists() and (link / "master").resolve().name == identity.bridge


def _cable(plan: Plan, name: str, netns: int, address: IPv4Address) -> Request:
    peer = [
        ("IFLA_IFNAME", INNER),
        ("IFLA_ADDRESS", subnets.mac(address)),
        ("IFLA_NET_NS_FD", netns),
    ]
    data = {"attrs": [("VETH_INFO_PEER", {"attrs": peer})]}
    info = {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", data)]}
    attributes: list[tuple[str, Any]] = [
        ("IFLA_IFNAME", name),
        ("IFLA_MASTER", index(plan.identity.bridge)),
        ("IFLA_GROUP", plan.identity.group),
        ("IFLA_LINKINFO", info),
    ]
    return Request(netlink.NEWLINK, ifinfmsg, UP, attributes, netlink.CREATE)


def _reflect(name: str) -> None:
    """Let an instance reach itself through a port that it publishes on the host.

    Needed where bridged packets pass the routed hooks (br_netfilter, which Docker turns on).
    """
    with contextlib.suppress(OSError):
        Path("/sys/class/net", name, "brport/hairpin_mode").write_text("1")


def _configure(inner: socket.socket, plan: Plan, address: IPv4Address) -> None:
    """Inside: lo and eth0 up, the address, the default route."""
    number = _inner_index(inner)
    route = [("RTA_GATEWAY", plan.gateway), ("RTA_OIF", number)]
    fields = {"family": socket.AF_INET, "table": 254, "proto": 4, "type": 1}
    netlink.send(
        [
            Request(netlink.SETLINK, ifinfmsg, {"index": 1, **UP}),
            Request(netlink.SETLINK, ifinfmsg, {"index": number, **UP}),
            address_request(number, str(address)),
            Request(netlink.NEWROUTE, rtmsg, fields, route, netlink.CREATE),
        ],
        inner,
    )


def _inner_index(inner: socket.socket) -> int:
    """eth0's index in the namespace that the socket is in (netdevice(7))."""
    answer = fcntl.ioctl(inner, _SIOCGIFINDEX, struct.pack("=16s24x", INNER.encode()))
    return int(struct.unpack_from("=i", answer, 16)[0])
