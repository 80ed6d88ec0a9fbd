"""Names between instances: a resolver per network, and one per set of networks that an
instance is on at once, so that each is told of those whom it can reach and of nobody else."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterable
from pathlib import Path

from sublet.drivers.network.hosts import Entry, Hosts
from sublet.drivers.network.identity import Plan, Segment, checked
from sublet.drivers.network.resolver import Listening, Resolver, watching

_VIEW_PORTS = (40000, 20000)
"""Where ports of views begin, and how many there are."""

Numbers = tuple[int, ...]


def _base(directory: Path) -> Path:
    """The default network's directory, by that of any network."""
    return directory.with_name(directory.name.partition("-")[0])


def resolver_text(gateway: str, host: str) -> str:
    """An instance's /etc/resolv.conf, `host` being the host's: its search list and options.

    Names without a dot are asked as they are first (`ndots:0`), so that the search list
    cannot shadow an instance.
    """
    search: list[str] = []
    options: list[str] = []
    for word, *values in (line.split() for line in host.splitlines() if line.strip()):
        if word in ("search", "domain"):
            search = values
        elif word == "options":
            options += [value for value in values if value not in ("trust-ad", "edns0")]
    if not any(option.startswith("ndots:") for option in options):
        options.append("ndots:0")
    lines = [f"nameserver {gateway}", f"search {' '.join(search)}" if search else ""]
    return "\n".join([*filter(None, lines), f"options {' '.join(options)}"]) + "\n"


class Names:
    """The names of one daemon's networks. `directory` is that of the default network's files;
    those of others begin with its name."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._plan: Plan | None = None
        self._hosts: dict[int, Hosts] = {}
        self._resolvers: dict[Numbers, Resolver] = {}
        self._views: dict[str, Numbers] = {}

    def arrange(self, plan: Plan) -> None:
        """The networks are these: take over what an earlier daemon left of them."""
        self._plan = plan
        for segment in plan.segments:
            if segment.number not in self._hosts:
                hosts = self._hosts[segment.number] = Hosts(self._place(segment.number))
                hosts.tidy()
                self._resolver((segment.number,)).adopt()

    def entries(self) -> list[tuple[str, Entry]]:
        """Instance id, address and names, on every network."""
        return [item for hosts in self._hosts.values() for item in hosts.entries().items()]

    async def add(
        self, instance_id: str, address: str, names: Iterable[str], network: int = 0
    ) -> None:
        """The names, in place of those before, resolve to the address on this network.

        Raises InvalidArgument for what is no name, ProcessFailed when dnsmasq does not start
        (another program has port 53 of all addresses), ToolMissing.
        """
        self._hosts[network].add(instance_id, address, list(names))
        await self._resolver((network,)).ensure()

    def remove(self, instance_id: str, network: int | None = None) -> None:
        """The instance's names are gone, of one network or of all."""
        checked(instance_id)
        for number, hosts in self._hosts.items():
            if network in (None, number):
                hosts.remove(instance_id)

    async def view(self, instance_id: str, numbers: Numbers) -> int:
        """The instance is told the names of these networks, on the first one's gateway: the
        port there. Raises as `add`."""
        resolver = self._resolver(numbers)
        self._views[instance_id] = numbers
        for number in numbers:
            self._place(number).mkdir(mode=0o755, parents=True, exist_ok=True)
        resolver.adopt()
        await resolver.ensure()
        return resolver.port

    async def unview(self, instance_id: str, *, unless: Numbers = ()) -> None:
        """The instance has no view any more, `unless` it is this one; a resolver that serves
        nobody ends."""
        numbers = self._views.get(instance_id)
        if numbers is None or numbers == unless:
            return
        del self._views[instance_id]
        if numbers not in self._views.values():
            await asyncio.to_thread(self._resolvers.pop(numbers).stop)

    async def ensure(self) -> None:
        """All processes run that are needed."""
        for numbers, resolver in list(self._resolvers.items()):
            if self._needed(numbers):
                await resolver.ensure()

    def alive(self) -> bool:
        """Whether the processes run that need to."""
        return all(r.alive() for n, r in self._resolvers.items() if self._needed(n))

    def drop(self, number: int) -> None:
        """The network's names and resolver are gone. Blocks."""
        self._resolver((number,)).stop()
        self._resolvers.pop((number,))
        hosts = self._hosts.pop(number, None)
        if hosts:
            hosts.delete()

    def strays(self) -> dict[int, str]:
        """Resolvers of no network and no view: process id and what they know."""
        known = [self._places(numbers) for numbers in self._resolvers]
        running = watching(self._directory.parent).items()
        mine = ((pid, paths) for pid, paths in running if _base(paths[0]) == self._directory)
        return {
            pid: "+".join(p.name for p in paths) for pid, paths in mine if tuple(paths) not in known
        }

    def stop(self) -> None:
        """All processes and files are gone. Blocks."""
        for resolver in self._resolvers.values():
            resolver.stop()
        for hosts in self._hosts.values():
            hosts.delete()

    def _needed(self, numbers: Numbers) -> bool:
        if len(numbers) > 1:
            return numbers in self._views.values()
        return not self._hosts[numbers[0]].empty()

    def _resolver(self, numbers: Numbers) -> Resolver:
        """The resolver for this set of networks, running or not."""
        if numbers not in self._resolvers:
            assert self._plan, "the network is not up"
            segments = [self._plan.numbered(number) for number in numbers]
            name = "+".join(place.name for place in self._places(numbers))
            pid_file = self._directory.with_name(f"{name}.pid")
            self._resolvers[numbers] = Resolver(self._listening(segments), pid_file)
        return self._resolvers[numbers]

    def _listening(self, segments: list[Segment]) -> Listening:
        numbers = tuple(segment.number for segment in segments)
        begin, count = _VIEW_PORTS
        port = 53 if len(numbers) == 1 else begin + zlib.crc32(repr(numbers).encode()) % count
        upstream = not all(segment.internal for segment in segments)
        return Listening(self._places(numbers), segments[0].gateway, upstream, port)

    def _places(self, numbers: Numbers) -> tuple[Path, ...]:
        return tuple(self._place(number) for number in numbers)

    def _place(self, number: int) -> Path:
        end = f"-{number:x}" if number else ""
        return self._directory.with_name(f"{self._directory.name}{end}")
