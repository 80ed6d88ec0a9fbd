"""What a daemon's network has on the host for nobody. Blocks for some milliseconds."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Container, Iterator

from sublet.domain.leftover import Leftover
from sublet.drivers.network import cables, links, resolver, rules
from sublet.drivers.network.dns import Names
from sublet.drivers.network.forward import Forwarders
from sublet.drivers.network.identity import Plan, owner
from sublet.drivers.network.nft import NoSuchRule
from sublet.drivers.network.table import Table


def of_instances(
    plan: Plan,
    table: Table,
    forwarders: Forwarders,
    names: Names,
    known: set[str],
    asleep: Container[str],
) -> list[Leftover]:
    """Cables, rules, forwarders and names of instances that are not known."""
    found = [Leftover("link", name, owner(name)) for name in cables.owned(plan.identity)]
    found += [
        Leftover("rule", f"{plan.identity.table} {e.container} {e.key}", e.owner)
        for e in table.listing()
        if not (e.container in rules.ASLEEP and e.owner in asleep)
    ]
    with contextlib.suppress(NoSuchRule):
        granted = f"{plan.identity.table} granted"
        found += [Leftover("rule", f"{granted} {key}", whose) for whose, key in table.grants()]
    found += [
        Leftover("process", f"socat {group}", instance_id)
        for instance_id, groups in forwarders.running().items()
        for group in sorted(groups)
    ]
    found += [
        Leftover("name", ",".join(entry[1]), instance_id) for instance_id, entry in names.entries()
    ]
    return [left for left in found if left.owner not in known]


def of_networks(plan: Plan, names: Names) -> list[Leftover]:
    """Bridges and resolvers of networks that are not in the plan."""
    found = [Leftover("link", name) for name in _bridges(plan)]
    found += [Leftover("process", f"dnsmasq {pid} {what}") for pid, what in names.strays().items()]
    return found


def remove(plan: Plan, names: Names) -> None:
    """Take away what `of_networks` finds."""
    for name in _bridges(plan):
        links.delete_bridge(name)
    for pid in names.strays():
        resolver.end(pid)


def _bridges(plan: Plan) -> Iterator[str]:
    known = {segment.bridge for segment in plan.segments}
    ours = re.compile(re.escape(plan.identity.bridge) + "-[0-9a-f]{1,3}")
    for name in links.bridges(plan.identity):
        if name not in known and ours.fullmatch(name):
            yield name
