"""The daemon's nftables tables, and which elements in them belong to which instance."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Container, Iterable, Sequence

from sublet.drivers.network import egress, rules
from sublet.drivers.network.egress import Grant
from sublet.drivers.network.identity import Identity, Plan
from sublet.drivers.network.nft import Nft, NoSuchRule
from sublet.drivers.network.rules import Element


class Table:
    """All calls block, 0.1 ms an element, and may come from any thread."""

    def __init__(self, identity: Identity, nft: Nft) -> None:
        self._identity = identity
        self._nft = nft
        self._elements: dict[str, set[Element]] = {}
        self._by_key: dict[tuple[str, str, str], Element] = {}
        self._lock = threading.Lock()

    def ensure(self, plan: Plan) -> None:
        """Tables and rules stand; the elements in them are kept, and known."""
        with self._lock:
            self._nft.run(rules.ruleset(plan))
            self._forget()
            for element in self.listing():
                self._know(element)

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
                self._know(element)
            if commands:
                self._nft.run(commands)

    def remove(self, owner: str, containers: Container[str], key: str = "") -> None:
        """The instance's elements in these maps and sets are gone; with `key`, those whose keys
        begin with it."""
        with self._lock:
            mine = self._elements.get(owner, set())
            leaving = {e for e in mine if e.container in containers and e.key.startswith(key)}
            if not leaving:
                return
            for element in leaving:
                self._drop(element)
            with contextlib.suppress(NoSuchRule):
                self._nft.run("".join(e.delete(self._identity.table) for e in leaving))

    def lacking(self, elements: Iterable[Element]) -> list[Element]:
        """Those of the elements that are not there."""
        with self._lock:
            return [e for e in elements if e not in self._elements.get(e.owner, ())]

    def assign(
        self, owner: str, containers: Container[str], wanted: Collection[Element], *, add: bool
    ) -> bool:
        """The instance has none but these elements in these maps and sets, and all of them with
        `add`: one transaction. Whether that was otherwise."""
        with self._lock:
            mine = self._elements.get(owner, set())
            leaving = {e for e in mine if e.container in containers} - set(wanted)
            coming = [e for e in wanted if e not in mine] if add else []
            commands = "".join(e.delete(self._identity.table) for e in leaving)
            for element in leaving:
                self._drop(element)
            for element in coming:
                commands += self._displace(element) + element.add(self._identity.table)
                self._know(element)
            if commands:
                self._nft.run(commands)
            return bool(commands)

    def grant(self, grants: Sequence[Grant], still: Callable[[], bool] = lambda: True) -> None:
        """Instances may connect to addresses for a time, if that is `still` so when it is done."""
        with self._lock:
            if grants and still():
                self._nft.run(egress.grant(self._identity.table, grants))

    def revoke(self, owner: str, but: Container[str] = ()) -> None:
        """The instance may not connect any more to what it was granted, `but` to these."""
        with self._lock, contextlib.suppress(NoSuchRule):
            keys = [key for whose, key in self.grants() if whose == owner and key not in but]
            if keys:
                self._nft.run(egress.revoke(self._identity.table, keys))

    def grants(self) -> list[tuple[str, str]]:
        """Owners and keys of all that is granted. Raises NoSuchRule."""
        return egress.grants(self._nft.read(f"list set inet {self._identity.table} granted"))

    def remove_all(self, wanted: Iterable[tuple[str, Container[str]]]) -> None:
        """As `remove`, of several instances: one transaction, where all of it is there."""
        with self._lock:
            leaving: list[Element] = []
            for owner, containers in wanted:
                mine = [e for e in self._elements.get(owner, ()) if e.container in containers]
                for element in mine:
                    self._drop(element)
                leaving += mine
            commands = [element.delete(self._identity.table) for element in leaving]
            try:
                if commands:
                    self._nft.run("".join(commands))
            except NoSuchRule:  # something of it was gone: then one after the other
                for command in commands:
                    with contextlib.suppress(NoSuchRule):
                        self._nft.run(command)

    def has(self, owner: str, containers: Container[str]) -> bool:
        """Whether the instance has elements in these maps and sets."""
        return any(e.container in containers for e in self._elements.get(owner, ()))

    def owner(self, container: str, key: str) -> str:
        """The instance whose element of the `inet` table this is; empty for nobody's."""
        element = self._by_key.get(("inet", container, key))
        return element.owner if element else ""

    def cables(self, owner: str) -> list[str]:
        """The names of the cables that the instance may send from."""
        mine = self._elements.get(owner, set())
        return [e.key.split('"')[1] for e in mine if e.container == "endpoints"]

    def arrange(self, commands: str) -> None:
        """Carry out commands on the sets that belong to no instance."""
        with self._lock:
            self._nft.run(commands)

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
            self._forget()

    def _displace(self, element: Element) -> str:
        """Commands that make way for the element: one key has one value."""
        other = self._by_key.get((element.family, element.container, element.key))
        if other is None:
            return ""
        self._drop(other)
        return other.delete(self._identity.table)

    def _know(self, element: Element) -> None:
        self._elements.setdefault(element.owner, set()).add(element)
        self._by_key[element.family, element.container, element.key] = element

    def _drop(self, element: Element) -> None:
        mine = self._elements[element.owner]
        mine.discard(element)
        if not mine:
            del self._elements[element.owner]
        self._by_key.pop((element.family, element.container, element.key), None)

    def _forget(self) -> None:
        self._elements.clear()
        self._by_key.clear()
