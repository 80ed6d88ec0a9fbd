"""What an agent may ask for: sandboxes of so much, for so long, that reach so far."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import IPv4Network

from sublet.domain.egress import (
    INTERNET,
    NONE,
    PRIVATE,
    Egress,
    allowed_subnets,
    allows_name,
    is_subnet,
    parse_egress,
)
from sublet.domain.errors import InvalidArgument, NotPermitted
from sublet.domain.reference import HUB, Reference
from sublet.domain.size import Size
from sublet.domain.spec import Isolation
from sublet.domain.units import parse_duration, parse_memory


@dataclass(frozen=True, slots=True)
class Policy:
    """What sandboxes get where nothing is asked for, and the most that they may get.

    `isolation` vm: containers are refused. `network` is none, internet, or names such as
    `pypi.org` and `*.debian.org`: both what is given and the widest. `ttl`, `max_ttl` in seconds;
    `most` sandboxes at a time. `registries` are those that images may come from, besides Docker
    Hub and that of `image`. `images`: besides `image` only these, such as `python:3.11` and
    `node:*`; none: all that the registries have. `disk`: the most bytes that each may write, as
    `16g`; empty: no limit.
    """

    image: str = "debian:bookworm"
    isolation: Isolation = Isolation.CONTAINER
    size: str = "1x0.5"
    max_size: str = "2x4"
    ttl: float = 3600.0
    max_ttl: float = 86400.0
    network: Egress = (INTERNET,)
    most: int = 10
    registries: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    disk: str = ""


DEFAULT = Policy()
"""What agents may do where the host's owner says nothing."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a sandbox gets; as of `Policy`."""

    image: str
    isolation: Isolation
    size: str
    ttl: float
    network: Egress


def check_policy(policy: Policy) -> None:
    """Raises InvalidArgument where the defaults are more than the most, or a value is none."""
    if policy.most < 1:
        raise InvalidArgument(f"{policy.most} sandboxes are none.", hint="Write --most 10.")
    network_of(policy.network)
    if policy.disk:
        parse_memory(policy.disk)
    try:
        grant(policy)
    except NotPermitted as error:
        raise InvalidArgument(error.message, hint="Raise the maximum, or lower the size.") from None


def grant(
    policy: Policy,
    *,
    image: str = "",
    isolation: str = "",
    size: str = "",
    ttl: str = "",
    network: str | Sequence[str] = (),
) -> Grant:
    """What is given for what is asked; empty: the policy's choice.

    Raises InvalidArgument where a value is malformed, NotPermitted where it is too much.
    """
    names = network_of([network] if isinstance(network, str) else network) or policy.network
    if not within(names, policy.network):
        raise NotPermitted(
            f"The network '{', '.join(names)}' is more than is permitted here.",
            hint=f"Ask for {', '.join(policy.network)}, or less.",
        )
    return Grant(
        image_of(policy, image),
        isolation_of(policy, isolation),
        size_of(policy, size),
        ttl_of(policy, ttl),
        names,
    )


def image_of(policy: Policy, text: str) -> str:
    """The image that is given for this; raises as `grant` does. A path is none: it would be read
    on the host. Nor is a name of any registry: who asks for one sends the name there, from the
    host, whatever the sandbox's own network."""
    if text in ("", policy.image):
        return policy.image
    if policy.images and not any(fnmatchcase(text, each) for each in policy.images):
        raise NotPermitted(
            f"The image {text} is not permitted here.",
            hint=f"Ask for {', '.join(dict.fromkeys((policy.image, *policy.images)))}.",
        )
    registry = Reference.parse(text).registry
    known = {HUB, *policy.registries}
    if not policy.image.startswith(("/", ".")):
        known.add(Reference.parse(policy.image).registry)
    if registry not in known:
        raise NotPermitted(
            f"Images of the registry {registry} are not permitted here.",
            hint="Take one of the catalogue or Docker Hub; `sublet mcp --registry` permits more.",
        )
    return text


def isolation_of(policy: Policy, text: str) -> Isolation:
    """The isolation that is given for this; raises as `grant` does."""
    if text and text not in tuple(Isolation):
        raise InvalidArgument(f"There is no isolation '{text}'.", hint="Ask for container, or vm.")
    if text == Isolation.CONTAINER and policy.isolation is Isolation.VM:
        raise NotPermitted("Containers are not permitted here.", hint="Ask for vm.")
    return Isolation(text or policy.isolation)


def size_of(policy: Policy, text: str) -> str:
    """The size that is given for this; raises as `grant` does."""
    asked, most = Size.parse(text or policy.size), Size.parse(policy.max_size)
    if asked.cpus > most.cpus or asked.memory > most.memory:
        raise NotPermitted(
            f"The size {text or policy.size} is more than is permitted here.",
            hint=f"Ask for {policy.max_size} (vCPUs x GiB) or less.",
        )
    return text or policy.size


def ttl_of(policy: Policy, text: str) -> float:
    """The seconds to live that are given for this; raises as `grant` does."""
    seconds = parse_duration(text) if text else policy.ttl
    if not 0 < seconds <= policy.max_ttl:
        raise NotPermitted(
            f"A time to live of {text or f'{seconds:g}s'} is not permitted here.",
            hint=f"Ask for {policy.max_ttl / 60:g}m or less.",
        )
    return seconds


def network_of(texts: Iterable[str]) -> Egress:
    """What `--network` says, as `--egress` does (domain/egress.py); empty where nothing is said.
    Raises InvalidArgument."""
    words = [text for text in texts if text]
    found = parse_egress(words)
    if words and found is None:
        raise InvalidArgument(
            "A sandbox's network is none, internet, or names.",
            hint="With `default` it could reach other instances.",
        )
    return found or ()


def within(asked: Egress, most: Egress) -> bool:
    """Whether who may reach `most` may reach what is `asked`. Addresses that are not the
    internet's are no part of `internet`."""
    if asked == (NONE,):
        return True
    if most == (INTERNET,):
        return not any(each.overlaps(p) for each in allowed_subnets(asked) for p in PRIVATE)
    wide = allowed_subnets(most)
    return all(
        any(IPv4Network(word).subnet_of(each) for each in wide)
        if is_subnet(word)
        else allows_name(most, word)
        for word in asked
    )
