"""Answering instances whose policy for connections outwards names names.

A socket at each gateway, to which nftables leads their questions. A name that is not on the asking
instance's list does not exist, and nobody else is asked for it. Of one that is, the resolver of the
network is asked for IPv4 addresses, and the instance is told those when nftables lets it connect to
them: for as long as the answer holds, `SHORTEST` at least. Addresses that are not the internet's
are left out, unless the list has them as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address

from sublet.domain.egress import Egress, allows_address, allows_name
from sublet.drivers.network import questions
from sublet.drivers.network.egress import Grant
from sublet.drivers.network.identity import Segment
from sublet.drivers.network.questions import Answer, Question

SHORTEST, LONGEST = 60, 86400
"""Seconds for which an answer opens the way, at least and at most."""

MOST_GRANTS = 2048
"""Addresses that may be open to one instance at a time."""

_AT_ONCE, _MOST_PENDING, _LARGEST = 16, 1024, 4096
Client = tuple[str, int]


@dataclass(frozen=True, slots=True)
class _Pending:
    client: Client
    question: Question


@dataclass(frozen=True, slots=True)
class Served:
    """The keys of what an instance was granted and may keep; whether its list is another one."""

    kept: set[str]
    altered: bool


@dataclass(frozen=True, slots=True)
class _Known:
    """A grant, the name that it was given for, and its end (monotonic)."""

    grant: Grant
    name: str
    end: float


@dataclass(slots=True)
class _Desk:
    """A gateway's socket, the socket to its resolver, and what was asked there."""

    listener: socket.socket
    upstream: socket.socket
    pending: dict[int, _Pending]


class Answers:
    """`grant` lets nftables know, if that is still wanted when it does; it blocks."""

    def __init__(self, grant: Callable[[list[Grant], Callable[[], bool]], None]) -> None:
        self._grant = grant
        self._desks: dict[Segment, _Desk] = {}
        self._policies: dict[str, tuple[str, Egress]] = {}
        self._known: dict[str, dict[IPv4Address, _Known]] = {}

    def arrange(self, segments: Iterable[Segment]) -> dict[str, int]:
        """Answer at these networks' gateways and no others; the ports, by the bridges' names."""
        wanted = set(segments)
        for segment in self._desks.keys() - wanted:
            self._close(self._desks.pop(segment))
        for segment in wanted - self._desks.keys():
            self._desks[segment] = self._open(segment)
        ports = {s.bridge: desk.listener.getsockname()[1] for s, desk in self._desks.items()}
        return {bridge: int(port) for bridge, port in ports.items()}

    def needed(self) -> bool:
        """Whether there is anybody to answer."""
        return bool(self._policies)

    def serve(self, instance_id: str, addresses: Iterable[str], policy: Egress) -> Served:
        """Answer the instance at these addresses by its policy."""
        before = self._policy(instance_id)
        self._withdraw(instance_id)
        self._policies |= dict.fromkeys(addresses, (instance_id, policy))
        self._known = {
            address: {
                target: each
                for target, each in self._live(address).items()
                if each.grant.owner == instance_id and allows_name(policy, each.name)
            }
            if self._policies[address][0] == instance_id
            else known
            for address, known in self._known.items()
            if address in self._policies
        }
        kept = {g.key for g in self.granted() if g.owner == instance_id}
        return Served(kept, altered=before not in (None, policy))

    def forget(self, instance_id: str) -> None:
        """Answer the instance no more; nothing is granted to it."""
        for address in self._withdraw(instance_id):
            self._known.pop(address, None)

    def _policy(self, instance_id: str) -> Egress | None:
        found = (policy for owner, policy in self._policies.values() if owner == instance_id)
        return next(found, None)

    def _withdraw(self, instance_id: str) -> list[str]:
        mine = [a for a, (owner, _) in self._policies.items() if owner == instance_id]
        for address in mine:
            del self._policies[address]
        return mine

    def granted(self) -> list[Grant]:
        """What is granted, with the time that is left."""
        now = time.monotonic()
        return [
            Grant(g.owner, g.source, g.target, max(1, round(each.end - now)))
            for address in self._policies
            for each in self._live(address).values()
            if (g := each.grant)
        ]

    def close(self) -> None:
        """Answer nobody."""
        self._policies.clear()
        self.arrange(())

    def _open(self, segment: Segment) -> _Desk:
        with contextlib.ExitStack() as stack:
            pair = [
                stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                for _ in range(2)
            ]
            desk = _Desk(pair[0], pair[1], {})
            desk.listener.bind((segment.gateway, 0))
            desk.upstream.connect((segment.gateway, 53))
            for sock in pair:
                sock.setblocking(False)
            stack.pop_all()
        loop = asyncio.get_running_loop()
        loop.add_reader(desk.listener, self._hear, desk)
        loop.add_reader(desk.upstream, self._learn, desk)
        return desk

    def _close(self, desk: _Desk) -> None:
        loop = asyncio.get_running_loop()
        for sock in (desk.listener, desk.upstream):
            loop.remove_reader(sock)
            sock.close()

    def _hear(self, desk: _Desk) -> None:
        with contextlib.suppress(BlockingIOError):
            for _ in range(_AT_ONCE):
                packet, client = desk.listener.recvfrom(_LARGEST)
                question = questions.question(packet)
                if question:
                    self._ask(desk, client, question)

    def _ask(self, desk: _Desk, client: Client, question: Question) -> None:
        """Answer at once what needs no asking."""
        _, policy = self._policies.get(client[0], ("", ()))
        if not allows_name(policy, question.name):
            self._reply(desk, client, questions.reply(question, questions.NO_SUCH_NAME))
            return
        if question.kind != questions.A:
            self._reply(desk, client, questions.reply(question, questions.NO_ERROR))
            return
        while len(desk.pending) >= _MOST_PENDING:  # the oldest was never answered
            del desk.pending[next(iter(desk.pending))]
        number = secrets.randbits(16)
        desk.pending[number] = _Pending(client, question)
        try:
            desk.upstream.send(questions.asked(number, question.name))
        except OSError:  # the resolver is about to be started again
            del desk.pending[number]
            self._reply(desk, client, questions.reply(question, questions.SERVER_FAILURE))

    def _learn(self, desk: _Desk) -> None:
        """Take the resolver's answers. What refuses us is a resolver that has just ended."""
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            for _ in range(_AT_ONCE):
                answer = questions.answer(desk.upstream.recv(_LARGEST))
                asked = desk.pending.get(answer.number) if answer else None
                if answer and asked and asked.question.name == answer.name:
                    del desk.pending[answer.number]
                    self._tell(desk, asked, answer)

    def _tell(self, desk: _Desk, asked: _Pending, answer: Answer) -> None:
        """Open the way, and then tell of it."""
        owner, policy = self._policies.get(asked.client[0], ("", ()))
        if not allows_name(policy, answer.name):  # not any more
            answer = Answer(answer.number, answer.name, questions.NO_SUCH_NAME, ())
        found = [pair for pair in answer.addresses if allows_address(policy, pair[0])]
        code = answer.code
        if answer.addresses and not found:
            code = questions.NO_SUCH_NAME
        new = self._new(owner, asked.client[0], answer.name, found)
        if new is None:
            code, found, new = questions.SERVER_FAILURE, [], []
        packet = questions.reply(asked.question, code, found)
        if not new:
            self._reply(desk, asked.client, packet)
            return

        def opened(future: asyncio.Future[None]) -> None:
            if not future.cancelled() and not future.exception():
                self._reply(desk, asked.client, packet)

        def still() -> bool:
            return self._policies.get(asked.client[0]) == (owner, policy)

        loop = asyncio.get_running_loop()
        loop.run_in_executor(None, self._grant, new, still).add_done_callback(opened)

    def _new(
        self, owner: str, source: str, name: str, found: list[tuple[IPv4Address, int]]
    ) -> list[Grant] | None:
        """What is to be granted now; None where it would be too much. An answer opens the way for
        longer than it says, so that one from the resolver's memory does not need to again."""
        known, now = self._live(source), time.monotonic()
        new = []
        for target, seconds in found:
            needed = min(max(seconds, SHORTEST), LONGEST)
            before = known.get(target)
            if before is None or before.end < now + needed:
                given = Grant(owner, IPv4Address(source), target, needed + SHORTEST)
                known[target] = _Known(given, name, now + needed + SHORTEST)
                new.append(given)
        if len(known) > MOST_GRANTS:
            for given in new:
                del known[given.target]
            return None
        self._known[source] = known
        return new

    def _live(self, source: str) -> dict[IPv4Address, _Known]:
        now = time.monotonic()
        return {t: each for t, each in self._known.get(source, {}).items() if each.end > now}

    def _reply(self, desk: _Desk, client: Client, packet: bytes) -> None:
        with contextlib.suppress(OSError):  # it has gone, or does not listen
            desk.listener.sendto(packet, client)
