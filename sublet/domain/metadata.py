"""What an instance is told of itself at 169.254.169.254: EC2's paths, and the answers there.

Source: EC2 User Guide, "Instance metadata categories" and "Instance identity documents".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeAlias

from sublet.domain.notice import Action, Notice
from sublet.domain.pace import Pace

ADDRESS, PORT = "169.254.169.254", 80

PACE = Pace(rate=20, burst=100)
"""How many connections an address may open, and how many requests an instance may make, a second:
enough for whoever reads the whole tree once, and then asks for a notice now and then."""

REGION, ZONE = "local-1", "local-1a"
"""Every host is a region of its own; the zone is the region and a letter, as cloud-init expects."""

VERSIONS = (
    *("1.0", "2007-01-19", "2007-03-01", "2007-08-29", "2007-10-10", "2007-12-15", "2008-02-01"),
    *("2008-09-01", "2009-04-04", "2011-01-01", "2011-05-01", "2012-01-12", "2014-02-25"),
    *("2014-11-05", "2015-10-20", "2016-04-19", "2016-06-30", "2016-09-02", "2018-03-28"),
    *("2018-08-17", "2018-09-24", "2019-10-01", "2020-10-27", "2021-01-03", "2021-03-23"),
    *("2021-07-15", "2022-09-24", "2024-04-11", "latest"),
)
"""EC2's versions of the tree. All say the same here."""

_ACCOUNT = "000000000000"
_TAG = re.compile(r"[A-Za-z0-9+\-=.,_:@]{1,128}")
_NO_TAGS = frozenset({".", "..", "_index"})
_NO_NAME = re.compile(r"[^A-Za-z0-9_.@+-]+")


@dataclass(frozen=True, slots=True)
class Interface:
    """An instance's eth<number>: its address, and the network's id and subnet."""

    number: int
    mac: str
    address: str
    network: str
    subnet: str


@dataclass(frozen=True, slots=True)
class View:
    """An instance as it sees itself. `interfaces` begin with that whose address is the instance's;
    `launched` in seconds since the epoch; `image` is a digest, `keys` are lines of
    authorized_keys(5)."""

    instance: str
    image: str
    size: str
    market: str
    hostname: str
    architecture: str
    launched: float
    interfaces: Sequence[Interface] = ()
    keys: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    user_data: str = ""
    notice: Notice | None = None


@dataclass(frozen=True, slots=True)
class Folder:
    """A directory; `shown` is what its listing says, where that is not its entries' names."""

    entries: Mapping[str, Node]
    shown: Sequence[str] = ()

    def __str__(self) -> str:
        """The listing: a name a line, those of directories with a slash."""
        names = (name + "/" * isinstance(node, Folder) for name, node in self.entries.items())
        return "\n".join(self.shown or names)


Node: TypeAlias = str | Folder


def answer(view: View, path: str) -> str | None:
    """What the instance is told at the path (without a query); None where there is nothing. A
    slash at the end changes nothing: botocore asks for `placement/availability-zone/`."""
    root, *rest = [part for part in path.split("/") if part] or [""]
    if not root:
        return "\n".join(VERSIONS)
    if root not in VERSIONS:
        return None
    node: Node | None = tree(view)
    for part in rest:
        node = node.entries.get(part) if isinstance(node, Folder) else None
    return None if node is None else str(node)


def tree(view: View) -> Folder:
    """All that there is to say; directories that would be empty are not there."""
    document = _folder({"document": identity(view)})
    entries: dict[str, Node | None] = {
        "dynamic": _folder({"instance-identity": document}),
        "meta-data": _folder(dict(_meta(view))),
        "user-data": view.user_data or None,
    }
    found = {name: node for name, node in entries.items() if node is not None}
    return Folder(found, shown=tuple(found))  # EC2 leaves the slashes out here, and only here


def identity(view: View) -> str:
    """The instance identity document. It is not signed."""
    first = view.interfaces[0].address if view.interfaces else None
    known = {
        "accountId": _ACCOUNT,
        "architecture": {"amd64": "x86_64"}.get(view.architecture, view.architecture),
        "availabilityZone": ZONE,
        "billingProducts": None,
        "devpayProductCodes": None,
        "marketplaceProductCodes": None,
        "imageId": image_id(view.image),
        "instanceId": instance_id(view.instance),
        "instanceType": view.size,
        "kernelId": None,
        "pendingTime": moment(view.launched),
        "privateIp": first,
        "ramdiskId": None,
        "region": REGION,
        "version": "2017-09-30",
    }
    return json.dumps(known, indent=2, separators=(",", " : "))


def instance_id(own: str) -> str:
    """An instance's id, as EC2 writes one, and as cloud-init's seed does."""
    return f"i-{own}"


def image_id(digest: str) -> str:
    """An image's digest, as EC2 writes an id: `ami-` and 17 of its digits."""
    return f"ami-{digest.removeprefix('sha256:')[:17]}"


def moment(seconds: float) -> str:
    """A time as EC2 writes it: UTC, whole seconds."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _meta(view: View) -> Iterator[tuple[str, Node | None]]:
    """The entries of meta-data/, in the order of their names."""
    yield "ami-id", image_id(view.image)
    yield "ami-launch-index", "0"
    yield "ami-manifest-path", "(unknown)"
    yield "events", _events(view.notice)
    yield "hostname", view.hostname
    yield "instance-action", "none"
    yield "instance-id", instance_id(view.instance)
    yield "instance-life-cycle", view.market
    yield "instance-type", view.size
    yield "local-hostname", view.hostname
    for first in view.interfaces[:1]:
        yield "local-ipv4", first.address
        yield "mac", first.mac
    macs = {each.mac: _interface(view, each) for each in view.interfaces}
    yield "network", _folder({"interfaces": _folder({"macs": _folder(macs)})})
    yield "placement", _folder({"availability-zone": ZONE, "region": REGION})
    yield "public-keys", _keys(view.keys)
    yield "reservation-id", f"r-{view.instance}"
    yield "services", _folder({"domain": "sublet.internal", "partition": "sublet"})
    yield "spot", _spot(view.notice)
    tags = {key: value for key, value in sorted(view.labels.items()) if _is_tag(key)}
    yield "tags", _folder({"instance": _folder(tags)})


def _interface(view: View, interface: Interface) -> Folder:
    return Folder(
        {
            "device-number": str(interface.number),
            "interface-id": f"eni-{interface.mac.replace(':', '')}",
            "local-hostname": view.hostname,
            "local-ipv4s": interface.address,
            "mac": interface.mac,
            "owner-id": _ACCOUNT,
            "subnet-id": f"subnet-{interface.network}",
            "subnet-ipv4-cidr-block": interface.subnet,
        }
    )


def _events(notice: Notice | None) -> Folder | None:
    told = json.dumps({"noticeTime": moment(notice.given)}) if notice else None
    return _folder(
        {
            "maintenance": Folder({"history": "[]", "scheduled": "[]"}),
            "recommendations": _folder({"rebalance": told}),
        }
    )


def _spot(notice: Notice | None) -> Folder | None:
    """What a notice says. The time of `termination-time` is for instances that end by it alone."""
    if notice is None:
        return None
    when = moment(notice.deadline)
    terminates = notice.action is Action.TERMINATE
    told = json.dumps({"action": notice.action.value, "time": when})
    return _folder({"instance-action": told, "termination-time": when if terminates else None})


def _keys(keys: Sequence[str]) -> Folder | None:
    """The keys by their numbers; the listing has their names as well (`0=me@laptop`)."""
    entries = {str(number): Folder({"openssh-key": key}) for number, key in enumerate(keys)}
    shown = [f"{number}={_name(key) or f'key-{number}'}" for number, key in enumerate(keys)]
    return Folder(entries, shown) if keys else None


def _name(key: str) -> str:
    """The comment of a public key, as a name in a listing can be."""
    return _NO_NAME.sub("-", " ".join(key.split()[2:])).strip("-")[:64]


def _is_tag(key: str) -> bool:
    """Whether EC2 would show a tag of this name: it becomes a part of a path."""
    return bool(_TAG.fullmatch(key)) and key not in _NO_TAGS


def _folder(entries: Mapping[str, Node | None]) -> Folder | None:
    found = {name: node for name, node in entries.items() if node is not None}
    return Folder(found) if found else None
