"""Living beside other engines and their firewalls.

An `accept` in one base chain does not outweigh a `drop` in another of the same hook. So where a
chain of iptables' or Docker's drops by its policy whatever is forwarded, two rules at its end let
pass what comes from or goes to Sublet's bridges; what of that is allowed, Sublet's own chains have
decided. Bridges of others get a set: instances reach only what is published there.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sublet.domain.errors import ProcessFailed, ToolMissing
from sublet.drivers import run
from sublet.drivers.network import docker, rules
from sublet.drivers.network.identity import Identity
from sublet.drivers.network.nft import Nft, NoSuchRule
from sublet.drivers.network.threads import finish

DEADLINE = 10.0
_LEGACY = ("iptables-legacy", "-w", "5")
_NET = Path("/sys/class/net")


class Neighbours:
    """What is done about others' rules, by one daemon."""

    def __init__(self, identity: Identity, nft: Nft) -> None:
        self._identity = identity
        self._nft = nft
        self._foreign: set[str] | None = None
        self._docker = ""

    async def meet(self) -> None:
        """See to what others have changed: their chains that drop, their bridges; and keep a copy
        of Docker's rules."""
        listing = await finish(self._nft.read, "list chains")
        for chain in dropping(listing):
            await finish(self._open, chain)
        await self._open_legacy()
        await finish(self._separate)
        if docker_stands(listing):
            self._docker = docker.extract(await _iptables("iptables-nft-save"))

    async def restore(self) -> None:
        """After a flush that took our tables: Docker's rules stand again, if they went with it
        and it has containers."""
        saved, self._foreign = self._docker, None
        if not saved or docker_stands(await finish(self._nft.read, "list chains")):
            return
        if any(_has_ports(bridge) for bridge in docker.bridges(saved)):
            await _iptables("iptables-nft-restore", "--noflush", text=saved)

    async def part(self) -> None:
        """Nothing of ours is left in others' chains."""
        await finish(self._close)
        for rule in await self._legacy():
            if self._mark in rule:
                await run.run([*_LEGACY, "-D", *rule.split()[1:]], check=False, timeout=DEADLINE)

    @property
    def _mark(self) -> str:
        """The comment of our rules."""
        return self._identity.table

    def _open(self, chain: str) -> None:
        """Our two rules are in the chain (`ip filter FORWARD`)."""
        with contextlib.suppress(NoSuchRule):
            listing = self._nft.read(f"list chain {chain}")
            if len(_marked(listing, self._mark)) < 2:
                self._nft.run(accepting(chain, self._identity))

    def _close(self) -> None:
        """Where we may have opened, whatever its policy is by now. The whole ruleset is not asked
        for: libnftables reads anew when anybody has changed anything meanwhile, which on a busy
        host it would do for ever."""
        for chain, _ in forwarding(self._nft.read("list chains")):
            with contextlib.suppress(NoSuchRule):
                for rule in _marked(self._nft.read(f"list chain {chain}"), self._mark):
                    self._nft.run(f"delete rule {chain} handle {rule['handle']}")

    def _separate(self) -> None:
        """The set of others' bridges is what there is."""
        found = set(foreign(self._identity))
        if found != self._foreign:
            with contextlib.suppress(NoSuchRule):
                keys = [f'"{name}"' for name in sorted(found)]
                self._nft.run(rules.fill(self._identity, "foreign", keys))
                self._foreign = found

    async def _open_legacy(self) -> None:
        """As `_open`, where iptables' own old tables are in use."""
        found = await self._legacy()
        if "-P FORWARD DROP" not in found or any(self._mark in rule for rule in found):
            return
        for side in ("-i", "-o"):
            match = [side, f"{self._identity.bridge}+", "-m", "comment", "--comment", self._mark]
            argv = [*_LEGACY, "-A", "FORWARD", *match, "-j", "ACCEPT"]
            await run.run(argv, timeout=DEADLINE)

    async def _legacy(self) -> list[str]:
        """The rules of the old tables' FORWARD; looking must not bring the tables into being."""
        with contextlib.suppress(OSError, ToolMissing):
            if "filter" in Path("/proc/net/ip_tables_names").read_text().split():
                result = await run.run([*_LEGACY, "-S", "FORWARD"], check=False, timeout=DEADLINE)
                return result.stdout.decode(errors="replace").splitlines()
        return []


def accepting(chain: str, identity: Identity) -> str:
    """Commands that add our two rules, in the form that iptables' front can read back."""
    return "".join(
        f'add rule {chain} {side} "{identity.bridge}*" counter accept comment "{identity.table}"\n'
        for side in ("iifname", "oifname")
    )


def forwarding(listing: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The chains of family `ip` (iptables', Docker's) that see what is forwarded: name, policy."""
    chains = [entry["chain"] for entry in listing if "chain" in entry]
    return [
        (f"ip {chain['table']} {chain['name']}", chain["policy"])
        for chain in chains
        if chain["family"] == "ip" and chain.get("hook") == "forward"
        if re.fullmatch(r"[\w/.-]+", chain["table"] + chain["name"])
    ]


def dropping(listing: list[dict[str, Any]]) -> list[str]:
    """Those that drop by policy."""
    return [chain for chain, policy in forwarding(listing) if policy == "drop"]


def docker_stands(listing: list[dict[str, Any]]) -> bool:
    """Whether Docker's translations are in nftables."""
    wanted = {"family": "ip", "table": "nat", "name": docker.CHAIN}
    chains = [entry["chain"] for entry in listing if "chain" in entry]
    return any(wanted.items() <= chain.items() for chain in chains)


def foreign(identity: Identity) -> Iterator[str]:
    """Bridges of other engines: those that lead to no network interface and to no router."""
    routers = set(_routers())
    for bridge in _NET.glob("*/bridge"):
        name = bridge.parent.name
        if not identity.is_bridge(name) and name not in routers and not _leads_out(name):
            yield name


def _leads_out(bridge: str) -> bool:
    """Whether one of the bridge's ports is a device, or a VLAN or bond of some."""
    for port in _ports(bridge):
        with contextlib.suppress(OSError):
            if (_NET / port / "device").exists():
                return True
            if "DEVTYPE=" in (_NET / port / "uevent").read_text():
                return True
    return False


def _routers() -> Iterator[str]:
    """The links through which there is a gateway (proc(5), /proc/net/route)."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        name, _, gateway, *_ = line.split()
        if int(gateway, 16):
            yield name


def _ports(bridge: str) -> list[str]:
    with contextlib.suppress(OSError):
        return os.listdir(_NET / bridge / "brif")
    return []


def _has_ports(bridge: str) -> bool:
    return bool(_ports(bridge))


def _marked(listing: list[dict[str, Any]], mark: str) -> list[dict[str, Any]]:
    found = [entry["rule"] for entry in listing if "rule" in entry]
    return [rule for rule in found if rule.get("comment") == mark]


async def _iptables(program: str, *args: str, text: str = "") -> str:
    """What the program writes; nothing where it is not installed, or fails."""
    with contextlib.suppress(ToolMissing, ProcessFailed):
        result = await run.run([program, *args], input=text.encode(), timeout=DEADLINE)
        return result.stdout.decode(errors="replace")
    return ""
