"""Networks: what a tenant asks for, which subnet one has, and who is on it.

The default network has the first /20 of the daemon's /16. Each further one has a /24 of its own
in the rest of it, which `number` counts, or the subnet that its maker asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network

from sublet.domain import subnets
from sublet.domain.errors import InsufficientCapacity, InvalidArgument
from sublet.domain.filters import Given, boolean, given, labelled
from sublet.domain.names import validate_hostname, validate_name

DEFAULT = "default"
DEFAULT_ID = "0" * 12
_DEFAULT_NAMES = ("", DEFAULT, "bridge")
_RESERVED = frozenset({DEFAULT, "bridge", "none", "host", "container"})

_FIRST, _ASKED, _END = 16, 256, 4096
"""Numbers: /24s of the daemon's own go from _FIRST on, subnets that were asked for from _ASKED."""

_NOWHERE = tuple(IPv4Network(t) for t in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16"))
_HINT = "Write a free IPv4 subnet such as 10.77.5.0/24, of /8 to /29."


class Mode(StrEnum):
    """What an instance's `network` says: networks, no network, the host's, another instance's."""

    NETWORKS = "networks"
    NONE = "none"
    HOST = "host"
    CONTAINER = "container"

    @classmethod
    def of(cls, text: str) -> Mode:
        if text in ("none", "host"):
            return cls(text)
        return cls.CONTAINER if text.startswith("container:") else cls.NETWORKS

    @property
    def own(self) -> bool:
        """Whether the instance has a network namespace of its own."""
        return self in (Mode.NETWORKS, Mode.NONE)


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A request for a network. `subnet` and `gateway` empty: the host chooses. `internal`: no way
    out of it."""

    name: str
    subnet: str = ""
    gateway: str = ""
    internal: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NamedNetwork:
    """A network, as the database keeps it: `subnet` and `gateway` as they were asked for."""

    id: str
    name: str
    number: int
    subnet: str = ""
    gateway: str = ""
    internal: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    created: float = 0.0

    def within(self, base: IPv4Network) -> IPv4Network:
        """Its subnet, `base` being the daemon's /16."""
        return subnet_of(self.number, self.subnet, base)

    def door(self, base: IPv4Network) -> IPv4Address:
        """Its gateway's address."""
        return IPv4Address(self.gateway) if self.gateway else subnets.gateway(self.within(base))


STANDARD = NamedNetwork(DEFAULT_ID, DEFAULT, 0)
"""The default network."""


@dataclass(frozen=True, slots=True)
class Connection:
    """An instance's place on a network: eth<interface>, and the `offset` of its address in the
    subnet. `aliases` are names that it has on this network alone."""

    network: str
    instance: str
    interface: int
    offset: int
    aliases: tuple[str, ...] = ()


def is_default(text: str) -> bool:
    """Whether an instance's `network` says the default one."""
    return text in _DEFAULT_NAMES


def subnet_of(number: int, asked: str, base: IPv4Network) -> IPv4Network:
    """The subnet of a network: the one asked for, else its part of the daemon's /16."""
    if asked:
        return IPv4Network(asked)
    if number == 0:
        return IPv4Network((int(base.network_address), 20))
    return IPv4Network((int(base.network_address) + (number << 8), 24))


def number_for(asked: str, used: Iterable[int], base: IPv4Network, taken: list[IPv4Network]) -> int:
    """The number of a new network. `taken` are networks that the host has routes to.

    Raises InsufficientCapacity when there are none left.
    """
    occupied = set(used)
    narrow = [network for network in taken if network.prefixlen > 20]
    for number in range(_ASKED, _END) if asked else range(_FIRST, _ASKED):
        if number in occupied:
            continue
        if asked or not any(subnet_of(number, "", base).overlaps(other) for other in narrow):
            return number
    raise InsufficientCapacity(
        "This host has no room for a further network.", hint="Remove some: sublet network prune."
    )


def check_network_spec(
    spec: NetworkSpec, base: IPv4Network, taken: Iterable[IPv4Network]
) -> NetworkSpec:
    """The request, its subnet in canonical form. `taken` are networks that the host has routes to.

    Raises InvalidArgument for a name, subnet or gateway that cannot be.
    """
    validate_name(spec.name, "a network")
    if spec.name in _RESERVED:
        raise InvalidArgument(f"'{spec.name}' is no name for a network: it has a meaning already.")
    if not spec.subnet:
        if spec.gateway:
            raise InvalidArgument("A gateway needs its subnet.", hint="Give --subnet as well.")
        return spec
    subnet = _subnet(spec.subnet)
    if any(subnet.overlaps(other) for other in (base, *taken) if other.prefixlen):
        raise InvalidArgument(f"The subnet {subnet} is in use on this host.", hint=_HINT)
    if spec.gateway:
        offset_of(spec.gateway, subnet)
    return NetworkSpec(spec.name, str(subnet), spec.gateway, spec.internal, spec.labels)


def _subnet(text: str) -> IPv4Network:
    try:
        subnet = IPv4Network(text, strict=False)
    except ValueError:
        raise InvalidArgument(f"'{text}' is not an IPv4 subnet.", hint=_HINT) from None
    if not 8 <= subnet.prefixlen <= 29 or subnet.network_address >= IPv4Address("224.0.0.0"):
        raise InvalidArgument(f"'{text}' cannot be a network's subnet.", hint=_HINT)
    if any(subnet.overlaps(nowhere) for nowhere in _NOWHERE):
        raise InvalidArgument(f"'{text}' cannot be a network's subnet.", hint=_HINT)
    return subnet


def offset_of(text: str, subnet: IPv4Network) -> int:
    """The place of an address in its subnet. Raises InvalidArgument where it has none."""
    try:
        address = IPv4Address(text)
    except ValueError:
        raise InvalidArgument(f"'{text}' is not an IPv4 address.") from None
    if address not in subnet or address in (subnet[0], subnet[-1]):
        raise InvalidArgument(
            f"{text} is no address of {subnet}.", hint=f"{subnet[2]} is one, for example."
        )
    return int(address) - int(subnet.network_address)


def offset_after(last: int, taken: set[int], subnet: IPv4Network) -> int:
    """The next free place after `last`, beginning again after the highest: an address that was
    given back a moment ago may still have connections. Raises InsufficientCapacity."""
    count = subnet.num_addresses - 2
    for step in range(count):
        offset = (last + step) % count + 1
        if offset not in taken:
            return offset
    raise InsufficientCapacity(
        f"All addresses of {subnet} are taken.", hint="Make a network with a wider --subnet."
    )


def parse(texts: Iterable[str]) -> Given:
    """The filters of `network ls`. Raises InvalidArgument."""
    found = given(texts, ("name", "id", "label", "internal"))
    for text in found.get("internal", ()):
        boolean("internal", text)
    return found


def matches(network: NamedNetwork, wanted: Given) -> bool:
    """Whether a network is one of those that are meant: by a part of the name, the beginning of
    the id; of labels, it must have all."""
    return (
        all(labelled(network.labels, text) for text in wanted.get("label", ()))
        and _any(wanted, "name", lambda value: value in network.name)
        and _any(wanted, "id", network.id.startswith)
        and _any(wanted, "internal", lambda value: boolean("internal", value) is network.internal)
    )


def _any(wanted: Given, key: str, test: Callable[[str], bool]) -> bool:
    return key not in wanted or any(map(test, wanted[key]))


def check_request(network: str, aliases: Iterable[str], *, ports: bool, sysctls: bool) -> None:
    """Raises InvalidArgument where an instance asks for what its network does not go with."""
    mode = Mode.of(network)
    for alias in aliases:
        check_alias(alias)
        if mode is not Mode.NETWORKS:
            raise InvalidArgument(
                f"--network {network} has no names, so no alias.", hint="Name a network."
            )
    if mode is Mode.NETWORKS:
        return
    if ports:
        raise InvalidArgument(
            f"--network {network} publishes no ports.", hint="Leave -p out, or name a network."
        )
    if sysctls and not mode.own:
        raise InvalidArgument(
            f"--network {network} has sysctls of net.* that are not the instance's own.",
            hint="Leave them out, or name a network.",
        )


def check_alias(alias: str) -> str:
    """`alias`, if it may be a name on a network: one label, so that nobody takes the place of a
    name of the internet. Raises InvalidArgument."""
    validate_hostname(alias)
    if "." in alias:
        raise InvalidArgument(
            f"'{alias}' cannot be an alias: it has a dot.", hint="Use letters, digits and '-'."
        )
    return alias
