"""How names resolve inside an instance: /etc/hosts and /etc/resolv.conf."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address

from sublet.domain.errors import InvalidArgument

HOST_GATEWAY = "host-gateway"
"""The address of `--add-host` that stands for the host."""

_NAME = re.compile(r"[a-zA-Z0-9_](?:[a-zA-Z0-9_.-]{0,251}[a-zA-Z0-9_])?")
_MOST_RESOLVERS, _MOST_DOMAINS, _MOST_HOSTS = 3, 32, 1000
"""MAXNS and MAXDNSRCH of the C library; and what keeps the file small."""


def parse_host(text: str) -> tuple[str, str]:
    """Name and address of `name:address`, `name=address`, `name:host-gateway`. Raises
    InvalidArgument."""
    match = re.match(r"[^:=]*", text)
    name = match[0] if match else ""
    address = text[len(name) + 1 :].removeprefix("[").removesuffix("]")
    if not _NAME.fullmatch(name) or not (address == HOST_GATEWAY or _is_address(address)):
        raise InvalidArgument(
            f"'{text}' is not a name and its address.",
            hint="Write --add-host NAME:ADDRESS, or NAME:host-gateway for this host.",
        )
    return name, address


def check_resolving(hosts: Iterable[str], dns: Iterable[str], search: Iterable[str]) -> None:
    """Raises InvalidArgument for what is no host, no address or no domain, and for too many."""
    hosts, dns, search = list(hosts), list(dns), list(search)
    for text in hosts:
        parse_host(text)
    for address in dns:
        if not _is_address(address):
            raise InvalidArgument(
                f"'{address}' is not the address of a resolver.", hint="Write --dns 9.9.9.9."
            )
    for domain in search:
        if domain != "." and not _NAME.fullmatch(domain):
            raise InvalidArgument(
                f"'{domain}' is not a domain.",
                hint="Write --dns-search example.org, or . for none.",
            )
    counts = ((hosts, _MOST_HOSTS), (dns, _MOST_RESOLVERS), (search, _MOST_DOMAINS))
    for values, most in counts:
        if len(values) > most:
            raise InvalidArgument(f"{values[0]} and others: {most} at most are read.")


def hosts_file(hostname: str, address: str, gateway: str, hosts: Iterable[str]) -> str:
    """/etc/hosts of an instance with this address, whose host answers at `gateway`; `address`
    empty: it has none."""
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    for name, given in map(parse_host, hosts):
        lines.append(f"{gateway if given == HOST_GATEWAY else given}\t{name}")
    if address:
        lines.append(f"{address}\t{hostname}")
    return "".join(f"{line}\n" for line in lines)


def resolv_conf(default: str, dns: Iterable[str], search: Iterable[str]) -> str:
    """/etc/resolv.conf: `default` with these resolvers and this search list in place of its own.

    With resolvers of its own an instance does not ask Sublet's, which knows the other instances.
    """
    servers, asked = list(dns), list(search)
    replaced = ("nameserver",) * bool(servers) + ("search", "domain") * bool(asked)
    kept = [line for line in default.splitlines() if not line.startswith(replaced or ("\n",))]
    domains = " ".join(domain for domain in asked if domain != ".")
    lines = [f"nameserver {server}" for server in servers]
    lines += [f"search {domains}"] if domains else []
    return "".join(f"{line}\n" for line in [*lines, *kept])


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return "%" not in text
