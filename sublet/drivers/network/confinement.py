"""Keeping instances to their policies for connections outwards."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address

from sublet.domain.egress import NONE, Egress, asks_us
from sublet.drivers.network import conntrack, egress, rules
from sublet.drivers.network.answers import Answers, Served
from sublet.drivers.network.endpoint import Endpoint
from sublet.drivers.network.identity import Segment
from sublet.drivers.network.table import Table
from sublet.drivers.network.threads import finish

_CONTAINERS = rules.EGRESS + rules.ISOLATED


class Confinement:
    """The policies of one daemon's instances, in nftables and in what they are told of names."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._answers = Answers(table.grant)
        self._answering = False

    async def enforce(self, endpoint: Endpoint, *, plugged: bool) -> bool:
        """The instance is kept to its policy at all its places; with `plugged` its cables are laid,
        else they come with what keeps them to it. Whether nobody answers yet who now has to: call
        `arrange`."""
        instance_id, policy = endpoint.instance_id, endpoint.egress
        if policy is None and not self._table.has(instance_id, _CONTAINERS):
            return False
        wanted = [
            element
            for place in endpoint.places
            for element in egress.elements(
                instance_id, policy, IPv4Address(place.address), place.interface
            )
        ]
        addresses = [place.address for place in endpoint.places]
        served = Served(set(), altered=False)
        if policy is not None and asks_us(policy):
            served = self._answers.serve(instance_id, addresses, policy)
        else:
            self._answers.forget(instance_id)
        altered = await finish(self._table.assign, instance_id, _CONTAINERS, wanted, add=plugged)
        if altered or served.altered:
            await finish(self._table.revoke, instance_id, but=served.kept)
            await finish(conntrack.forget, {IPv4Address(address) for address in addresses})
        return self._answers.needed() and not self._answering

    async def inherit_nothing(self, policy: Egress | None, address: str) -> None:
        """What whoever had the address before connected to is closed to its new owner. Only a list
        lets pass what has begun; other policies are asked about each packet."""
        if policy is not None and asks_us(policy) and policy != (NONE,):
            await finish(conntrack.forget, {IPv4Address(address)})

    async def forget(self, instance_id: str) -> None:
        """The instance has no policy, and nothing is granted to it: before its elements go."""
        self._answers.forget(instance_id)
        if self._table.has(instance_id, ("asking",)):
            await finish(self._table.revoke, instance_id)

    async def restore(self) -> None:
        """What was granted before somebody else removed it is granted again."""
        await finish(self._table.grant, self._answers.granted())

    def arrange(self, segments: Iterable[Segment]) -> dict[str, int]:
        """Who answers where, by the bridges' names: at these networks, once somebody needs it."""
        self._answering = self._answers.needed()
        return self._answers.arrange(segments if self._answering else ())

    def close(self) -> None:
        """Nobody is answered any more."""
        self._answers.close()
        self._answering = False
