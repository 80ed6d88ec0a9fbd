"""Docker's rules, as iptables-save(8) writes them. Pure.

Where iptables is a front of nftables, `nft flush ruleset` takes Docker's rules as well, and
Docker makes them again only when it is started again. Sublet, which notices the flush because its
own tables went with it, keeps a copy and brings them back.
"""

from __future__ import annotations

import re

CHAIN = "DOCKER"
"""The chain that Docker has in the tables `nat` and `filter`; names of its others begin so."""

_USERS = "DOCKER-USER"
_PORT = re.compile(r"-[io] (\S+)")
_HAIRPIN = re.compile(r"-A POSTROUTING -s (\S+)/32 -d \1/32 .*-j MASQUERADE")


def bridges(saved: str) -> set[str]:
    """The bridges that rules in Docker's chains, and jumps to them, name."""
    rules = [line for line in saved.splitlines() if _in_chains(line) and _USERS not in line]
    return {name for rule in rules for name in _PORT.findall(rule)}


def extract(saved: str) -> str:
    """Of all that iptables-save wrote, what is Docker's: its chains, the jumps to them, the rules
    on its bridges, and the policy of FORWARD. For iptables-restore(8) with --noflush."""
    known = bridges(saved)
    return "".join(f"{line}\n" for line in saved.splitlines() if _kept(line, known))


def _kept(line: str, known: set[str]) -> bool:
    if line.startswith((f":{CHAIN}", ":FORWARD ", "*", "COMMIT")):
        return True
    if _in_chains(line) or _HAIRPIN.match(line):
        return True
    return line.startswith("-A ") and any(name in known for name in _PORT.findall(line))


def _in_chains(line: str) -> bool:
    """Whether this is a rule in one of Docker's chains, or a jump to one."""
    return line.startswith(f"-A {CHAIN}") or (line.startswith("-A ") and f" -j {CHAIN}" in line)
