"""The daemon's nftables tables, and which elements in them belong to which instance."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable

from sublet.drivers.network import rules
from sublet.drivers.network.identity import Identity, Plan
from sublet.drivers.network.nft import Nft, NoSuchRule
from sublet.drivers.network.rules import Element


class Table:
    """All calls block, 0.1 ms an element, and may come from any thread."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._nft = Nft()
        self._elements: dict[str, set[Element]] = {}
        self._lock = threading.Lock()

    def ensure(self, plan: Plan) -> None:
        """Tables and rules stand; the elements in them are kept, and known."""
        with self._lock:
            self._nft.run(rules.ruleset(plan))
            self._elements.clear()
            for element in self.listing():
                self._elements.setdefault(element.owner, set()).add(element)

    def intact(self) -> bool:
        """Whether the tables and their chains are there."""
        name = self._identity.table
        try:
            self._nft.read(f"list chain inet {name} to_host")
            self._nft.read(f"list chain bridge {name} guard")
        except NoSuchRule:
            return False
        return True

    def add(self, elements: Iterable[Element]) -> None:
        """Add the elements, in place of whatever had their keys: one transaction."""
        commands = ""
        with self._lock:
            for element in elements:
                commands += self._displace(element) + element.add(self._identity.table)
                self._elements.setdefault(element.owner, set()).add(element)
            if commands:
                self._nft.run(commands)

    def remove(self, owner: str, family: str) -> None:
        """The instance's elements of one family (`inet`: its ports) are gone."""
        with self._lock:
            mine = self._elements.get(owner, set())
            leaving = {element for element in mine if element.family == family}
            if not leaving:
                return
            mine -= leaving
            if not mine:
                del self._elements[owner]
            with contextlib.suppress(NoSuchRule):
                self._nft.run("".join(e.delete(self._identity.table) for e in leaving))

    def listing(self) -> list[Element]:
        """The elements that the kernel has; none when the tables are gone."""
        found = []
        for family in ("inet", "bridge"):
            with contextlib.suppress(NoSuchRule):
                answer = self._nft.read(f"list table {family} {self._identity.table}")
                found += rules.elements(answer)
        return found

    def delete(self) -> None:
        """The tables are gone."""
        with self._lock:
            self._nft.run(rules.removal(self._identity))
            self._elements.clear()

    def _displace(self, element: Element) -> str:
        """Commands that make way for the element: one key has one value."""
        commands = ""
        for mine in self._elements.values():
            for other in [e for e in mine if e.key == element.key and e.family == element.family]:
                mine.discard(other)
                commands += other.delete(self._identity.table)
        return commands
