"""Cables: veth pairs from a bridge into instances' network namespaces. All calls block."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from sublet.domain import metadata, subnets
from sublet.drivers import linux
from sublet.drivers.network import netlink
from sublet.drivers.network.identity import Identity, Segment, veth
from sublet.drivers.network.links import GONE, UP, address_request, index, set_sysctl
from sublet.drivers.network.netlink import Request

_SIOCGIFINDEX = 0x8933


@dataclass(frozen=True, slots=True)
class Cable:
    """A cable to an instance's eth<interface>, and the address that it has there."""

    instance_id: str
    interface: int
    address: IPv4Address
    segment: Segment

    @property
    def name(self) -> str:
        """The host's end."""
        return veth(self.instance_id, self.interface)

    @property
    def inner(self) -> str:
        return f"eth{self.interface}"


def plug(cable: Cable, netns: int) -> None:
    """The cable leads from its bridge into the network namespace, addressed and routed.

    One of that name that is there already is replaced.
    """
    with linux.entered(netns, linux.CLONE_NEWNET, "net"):
        inner = netlink.open_socket()
        set_sysctl("ipv6/conf/all/disable_ipv6", "1")
    with inner:
        request = [_request(cable, netns)]
        try:
            netlink.send(request)
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise
            delete(cable.segment.group, [cable.name])
            netlink.send(request)
        _reflect(cable.name)
        _configure(inner, cable)


def replug(cable: Cable) -> bool:
    """Put a cable that exists back into its bridge; False when it does not exist."""
    number = index(cable.name)
    if not number:
        return False
    attributes = [
        ("IFLA_MASTER", index(cable.segment.bridge)),
        ("IFLA_GROUP", cable.segment.group),
    ]
    netlink.send([Request(netlink.SETLINK, ifinfmsg, {"index": number, **UP}, attributes)])
    _reflect(cable.name)
    return True


def loopback(netns: int) -> None:
    """The network namespace has an `lo` that is up, and nothing else."""
    with linux.entered(netns, linux.CLONE_NEWNET, "net"):
        netlink.send([Request(netlink.SETLINK, ifinfmsg, {"index": 1, **UP})])


def delete(group: int, names: Iterable[str]) -> None:
    """The cables of the link group are gone, both ends. Ten cost what one costs: the kernel waits
    once."""
    leaving = group + 1
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
    """The names of this daemon's cables: of its group, or plugged into a bridge of its."""
    names = [name for _, name in socket.if_nameindex() if not identity.is_bridge(name)]
    return [name for name in names if _belongs(name, identity)]


def _belongs(name: str, identity: Identity) -> bool:
    link = Path("/sys/class/net", name)
    try:
        group = int((link / "netdev_group").read_text())
    except (OSError, ValueError):
        return False
    if group in (identity.group, identity.group + 1):
        return True
    return (link / "master").exists() and identity.is_bridge((link / "master").resolve().name)


def _request(cable: Cable, netns: int) -> Request:
    peer = [
        ("IFLA_IFNAME", cable.inner),
        ("IFLA_ADDRESS", subnets.mac(cable.address)),
        ("IFLA_NET_NS_FD", netns),
    ]
    data = {"attrs": [("VETH_INFO_PEER", {"attrs": peer})]}
    info = {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", data)]}
    attributes: list[tuple[str, Any]] = [
        ("IFLA_IFNAME", cable.name),
        ("IFLA_MASTER", index(cable.segment.bridge)),
        ("IFLA_GROUP", cable.segment.group),
        ("IFLA_LINKINFO", info),
    ]
    return Request(netlink.NEWLINK, ifinfmsg, UP, attributes, netlink.CREATE)


def _reflect(name: str) -> None:
    """Let an instance reach itself through a port that it publishes on the host.

    Needed where bridged packets pass the routed hooks (br_netfilter, which Docker turns on).
    """
    with contextlib.suppress(OSError):
        Path("/sys/class/net", name, "brport/hairpin_mode").write_text("1")


def _configure(inner: socket.socket, cable: Cable) -> None:
    """Inside: lo and the interface up, the address, the default route.

    Of several default routes that of the lowest interface serves, and the next when it goes.
    """
    number = _inner_index(inner, cable.inner)
    requests = [
        Request(netlink.SETLINK, ifinfmsg, {"index": 1, **UP}),
        Request(netlink.SETLINK, ifinfmsg, {"index": number, **UP}),
        address_request(number, str(cable.address), cable.segment.subnet.prefixlen),
    ]
    requests.append(_route(cable, number))
    netlink.send(requests, inner)


def _route(cable: Cable, number: int) -> Request:
    """By the gateway to everywhere; from an internal network, to the metadata service alone."""
    route: list[tuple[str, Any]] = [("RTA_GATEWAY", cable.segment.gateway)]
    route += [("RTA_OIF", number), ("RTA_PRIORITY", cable.interface)]
    fields = {"family": socket.AF_INET, "table": 254, "proto": 4, "type": 1}
    if cable.segment.internal:
        route.append(("RTA_DST", metadata.ADDRESS))
        fields["dst_len"] = 32
    return Request(netlink.NEWROUTE, rtmsg, fields, route, netlink.CREATE)


def _inner_index(inner: socket.socket, name: str) -> int:
    """The interface's index in the namespace that the socket is in (netdevice(7))."""
    answer = fcntl.ioctl(inner, _SIOCGIFINDEX, struct.pack("=16s24x", name.encode()))
    return int(struct.unpack_from("=i", answer, 16)[0])
