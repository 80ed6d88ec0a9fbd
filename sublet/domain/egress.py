"""Whom an instance may connect to: nobody, the internet, or names and addresses on a list.

An instance's `egress` is None for what its networks give (docs/networking.md), else `none`,
`internet`, or what is on the list: names such as `example.org`, `*.example.org` for all that is
below, IPv4 addresses and subnets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, collapse_addresses

from sublet.domain.errors import InvalidArgument
from sublet.domain.networks import Mode

NONE, INTERNET, DEFAULT = "none", "internet", "default"
LONGEST, MOST = 253, 256
"""Characters of a name (RFC 1035, 2.3.4), and how many names or subnets a list may have."""

PRIVATE = tuple(
    map(
        IPv4Network,
        "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 "
        "192.0.0.0/24 192.168.0.0/16 224.0.0.0/3".split(),
    )
)
"""What is not the internet: this host, private networks, link-local, shared by providers' NAT,
multicast and reserved (RFC 6890)."""

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?")
_NOWHERE = tuple(map(IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")))
_HINT = "Write none, internet, or names and addresses: example.org,*.example.net,198.51.100.0/24."

Egress = tuple[str, ...]


def parse_egress(texts: Iterable[str]) -> Egress | None:
    """What `--egress` says, several times or with commas; None for `default` and for nothing.
    Raises InvalidArgument."""
    words = [word.strip() for text in texts for word in text.split(",")]
    found = tuple(dict.fromkeys(_plain(word) for word in words))
    if found in ((), (DEFAULT,)):
        return None
    check_egress(found)
    return found


def check_egress(egress: Egress) -> None:
    """Raises InvalidArgument for what is no policy."""
    if not egress:
        raise InvalidArgument("An empty list lets nothing out: say none.", hint=_HINT)
    if len(egress) > MOST:
        raise InvalidArgument(f"A list of --egress has {MOST} entries at most.", hint=_HINT)
    for word in egress:
        if word in (NONE, INTERNET, DEFAULT) and len(egress) > 1:
            raise InvalidArgument(f"'{word}' is a policy, which stands alone.", hint=_HINT)
        if word not in (NONE, INTERNET):
            _check_entry(word)


def check_egress_request(egress: Egress | None, network: str, dns: Iterable[str]) -> None:
    """Raises InvalidArgument where the rest of a request does not go with the policy."""
    if egress is None:
        return
    check_egress(egress)
    if not Mode.of(network).own:
        raise InvalidArgument(
            f"--network {network} is another's network, where --egress has no power.",
            hint="Leave --egress out, or name a network.",
        )
    if asks_us(egress) and any(dns):
        raise InvalidArgument(
            "With --egress none or a list of names only Sublet's resolver answers, so no --dns.",
            hint="Leave --dns out, or say --egress internet.",
        )


def asks_us(egress: Egress | None) -> bool:
    """Whether only what the policy names resolves."""
    return egress is not None and egress != (INTERNET,)


def allows_name(egress: Egress, name: str) -> bool:
    """Whether a name, in any case, is on the list."""
    name = _plain(name)
    if name in egress:
        return name not in (NONE, INTERNET)
    labels = name.split(".")
    return any("*." + ".".join(labels[n:]) in egress for n in range(1, len(labels)))


def allowed_subnets(egress: Egress | None) -> list[IPv4Network]:
    """The addresses on the list, none of them twice."""
    return list(collapse_addresses(filter(None, map(_subnet, egress or ()))))


def allows_address(egress: Egress, address: IPv4Address) -> bool:
    """Whether a name on the list may lead to this address: not to a private one, by which
    a stranger's name would open this host's surroundings, unless that is on the list as well."""
    if any(address in subnet for subnet in allowed_subnets(egress)):
        return True
    return not any(address in subnet for subnet in PRIVATE)


def is_subnet(word: str) -> bool:
    """Whether an entry of a list is an address or a subnet, and no name."""
    return _subnet(word) is not None


def _plain(word: str) -> str:
    return word.lower().removesuffix(".")


def _subnet(word: str) -> IPv4Network | None:
    try:
        return IPv4Network(word)
    except ValueError:
        return None


def _check_entry(word: str) -> None:
    subnet = _subnet(word)
    if subnet is not None:
        if subnet.prefixlen < 4 or any(subnet.overlaps(nowhere) for nowhere in _NOWHERE):
            raise InvalidArgument(f"'{word}' cannot be let out to.", hint=_HINT)
        return
    labels = word.removeprefix("*.").split(".")
    fits = len(word) <= LONGEST and len(labels) > 1 and not labels[-1].isdecimal()
    if not fits or not all(_LABEL.fullmatch(label) for label in labels):
        raise InvalidArgument(
            f"'{word[:80]}' is no name of the internet, nor an IPv4 address or subnet.", hint=_HINT
        )
