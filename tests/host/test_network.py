"""The network driver on a real kernel: reach, policy, ports, names, repair, no leftovers."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from secrets import token_hex

import pytest
from netlab import (
    BRIEFLY,
    Box,
    Servers,
    World,
    ask,
    eventually,
    host_socket,
    ping,
    remains,
    resolve,
    sh,
)

from sublet.domain.config import Config
from sublet.domain.errors import InvalidArgument, PortInUse, StartFailed
from sublet.domain.networks import NamedNetwork
from sublet.domain.ports import Port
from sublet.drivers.network import Caller, Endpoint, Network, Place


class Lab:
    """A network with two boxes attached, a world outside, and servers."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.servers = Servers()
        self.boxes: list[Box] = []
        self.config = Config(root=directory, run=directory)
        self.network = Network(self.config)
        self.world = World(directory, token_hex(4))

    async def box(self, slot: int) -> Box:
        """A new box in the slot, attached."""
        box = Box(self.directory, token_hex(6), self.network.uid_base(slot))
        self.boxes.append(box)
        await self.network.attach(box.name, box.netns, self.network.address(slot))
        return box

    async def close(self) -> None:
        await self.servers.close()
        try:
            await self.network.down()
        finally:  # another world of that address would be in the way of all later tests
            for box in (*self.boxes, self.world):
                box.close()
        await asyncio.sleep(0)


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    lab = Lab(tmp_path)
    try:
        await lab.network.up()
        yield lab
    finally:
        await lab.close()
    assert remains(lab.network) == []


async def test_instances_reach_each_other_and_the_internet(lab: Lab) -> None:
    one, two = await lab.box(1), await lab.box(2)
    await lab.servers.tcp(two.socket(), 5432)
    await lab.servers.tcp(lab.world.socket(), 80)
    assert await ask(one.socket(), lab.network.address(2), 5432) == lab.network.address(1)
    assert await ask(one.socket(), World.address, 80) == World.host, "masqueraded"
    assert await ping(one, lab.network.address(2))
    assert await ping(one, lab.network.gateway)
    assert await ask(host_socket(), lab.network.address(2), 5432) == lab.network.gateway


async def test_an_instance_reaches_neither_host_nor_metadata(lab: Lab) -> None:
    one = await lab.box(1)
    port = await lab.servers.tcp(host_socket())
    lab.world.run("ip", "addr", "add", "169.254.77.77/32", "dev", "lo")
    sh("ip", "route", "add", "169.254.77.77/32", "via", World.address)
    await lab.servers.tcp(lab.world.socket(), 80)
    assert await ask(host_socket(), "169.254.77.77", 80) == World.host
    assert await ask(lab.world.socket(), World.host, port) == World.address
    assert await asyncio.gather(
        ask(one.socket(), lab.network.gateway, port, BRIEFLY),
        ask(one.socket(), World.host, port, BRIEFLY),
        ask(one.socket(), "127.0.0.1", port, BRIEFLY),
        ask(one.socket(), "169.254.77.77", 80, BRIEFLY),
    ) == ["", "", "", ""]
    assert not await ping(one, World.host, BRIEFLY)


async def test_the_host_keeps_its_own_metadata(lab: Lab) -> None:
    """The world plays a cloud: it has 169.254.169.254, for the host. Instances get to ours."""
    one = await lab.box(1)
    lab.world.run("ip", "addr", "add", "169.254.169.254/32", "dev", "lo")
    sh("ip", "route", "add", "169.254.169.254/32", "via", World.address)
    await lab.servers.tcp(lab.world.socket(), 80)
    callers: list[Caller] = []

    def take(caller: Caller, sock: socket.socket) -> None:
        callers.append(caller)
        with sock:
            sock.send(b"ours")

    unanswered = await ask(one.socket(), "169.254.169.254", 80, BRIEFLY)
    assert unanswered == "", "nobody serves it yet"
    await lab.network.listen(take)
    assert await ask(one.socket(), "169.254.169.254", 80) == "ours"
    assert await ask(host_socket(), "169.254.169.254", 80) == World.host
    assert callers == [Caller(0, lab.network.address(1))]
    sh("nft", "delete", "table", "inet", lab.network.identity.table)
    await lab.network.repair([])
    assert await ask(one.socket(), "169.254.169.254", 80) == "ours"
    sh("nft", "delete", "table", "inet", lab.network.identity.table)
    await lab.network.unlisten()
    await lab.network.repair([])
    assert await ask(one.socket(), "169.254.169.254", 80, BRIEFLY) == ""


async def test_strangers_reach_no_instance(lab: Lab, tmp_path: Path) -> None:
    one = await lab.box(1)
    await lab.servers.tcp(one.socket(), 80)
    run = tmp_path / "other"
    run.mkdir()
    other = Network(Config(root=run, run=run))
    stranger = Box(tmp_path, token_hex(6), 0x1100_0000)
    try:
        await other.up()
        assert other.subnet != lab.network.subnet
        await other.attach(stranger.name, stranger.netns, other.address(1))
        await lab.servers.tcp(stranger.socket(), 80)
        lab.world.run("ip", "route", "add", lab.network.subnet, "via", World.host)
        assert await asyncio.gather(
            ask(stranger.socket(), lab.network.address(1), 80, BRIEFLY),
            ask(stranger.socket(), lab.network.gateway, 53, BRIEFLY),
            ask(one.socket(), other.address(1), 80, BRIEFLY),
            ask(lab.world.socket(), lab.network.address(1), 80, BRIEFLY),
        ) == ["", "", "", ""]
        assert not await ping(lab.world, lab.network.gateway, BRIEFLY)
    finally:
        await other.down()
        stranger.close()
    assert remains(other) == []


async def test_a_source_address_cannot_be_chosen(lab: Lab) -> None:
    one, two = await lab.box(1), await lab.box(2)
    await lab.servers.tcp(two.socket(), 80)
    one.run("ip", "addr", "add", f"{lab.network.address(9)}/16", "dev", "eth0")
    assert await ask(one.socket(), lab.network.address(2), 80) == lab.network.address(1)
    liar = one.socket()
    liar.bind((lab.network.address(9), 0))
    assert await ask(liar, lab.network.address(2), 80, BRIEFLY) == ""
    one.run("ip", "link", "set", "eth0", "address", "02:42:00:00:00:09")
    assert await ask(one.socket(), lab.network.address(2), 80, BRIEFLY) == ""


async def test_published_ports(lab: Lab) -> None:
    one, two = await lab.box(1), await lab.box(2)
    await lab.servers.tcp(one.socket(), 80)
    address = lab.network.address(1)
    asked = [Port(80), Port(80, 0, "127.0.0.1"), Port(80, 0, World.host)]
    everywhere, local, outer = await lab.network.publish(one.name, address, asked)
    world = lab.world.socket
    assert 0 < everywhere.host_port < 65536
    assert await ask(host_socket(), "127.0.0.1", everywhere.host_port) == lab.network.gateway
    assert await ask(host_socket(), World.host, everywhere.host_port) == lab.network.gateway
    assert await ask(world(), World.host, everywhere.host_port) == World.address, "source kept"
    assert await ask(host_socket(), "127.0.0.1", local.host_port) == lab.network.gateway
    assert await ask(world(), World.host, local.host_port, BRIEFLY) == ""
    assert await ask(world(), World.host, outer.host_port) == World.address
    assert await ask(two.socket(), World.host, everywhere.host_port) == lab.network.gateway
    assert await ask(one.socket(), World.host, everywhere.host_port) == lab.network.gateway
    await lab.network.unpublish(one.name)
    await lab.network.unpublish(one.name)
    assert await ask(world(), World.host, everywhere.host_port, BRIEFLY) == ""
    assert await ask(host_socket(), "127.0.0.1", everywhere.host_port, BRIEFLY) == ""
    assert await lab.network.leftovers({two.name}) == await link_and_rule(lab, one)


async def link_and_rule(lab: Lab, box: Box) -> list[object]:
    """What an attached box without ports has."""
    found = await lab.network.leftovers({b.name for b in lab.boxes if b is not box})
    assert [left.kind for left in found] == ["link", "rule"]
    return list(found)


async def test_published_udp(lab: Lab) -> None:
    one = await lab.box(1)
    await lab.servers.udp(one.socket(socket.SOCK_DGRAM), 5000)
    [port] = await lab.network.publish(
        one.name, lab.network.address(1), [Port(5000, protocol="udp")]
    )
    local, world = host_socket(socket.SOCK_DGRAM), lab.world.socket(socket.SOCK_DGRAM)
    assert await ask(local, "127.0.0.1", port.host_port) == lab.network.gateway
    assert await ask(world, World.host, port.host_port) == World.address


async def test_a_port_in_use_publishes_nothing(lab: Lab) -> None:
    one = await lab.box(1)
    taken = await lab.servers.tcp(host_socket(), 0, "127.0.0.1")
    address = lab.network.address(1)
    with pytest.raises(PortInUse, match=str(taken)):
        await lab.network.publish(one.name, address, [Port(80), Port(80, taken)])
    with pytest.raises(InvalidArgument, match=r"203\.0\.113\.7"):
        await lab.network.publish(one.name, address, [Port(80), Port(80, 0, "203.0.113.7")])
    await link_and_rule(lab, one)


async def test_names(lab: Lab) -> None:
    one, two = await lab.box(1), await lab.box(2)
    gateway, address = lab.network.gateway, lab.network.address(2)

    async def look(name: str = "db") -> str:
        return await resolve(one.socket(socket.SOCK_DGRAM), gateway, name)

    await lab.network.register(two.name, address, ["db", two.name])
    assert await eventually(look) == address
    assert await look(two.name) == address
    await lab.network.register(one.name, lab.network.address(1), ["web"])
    assert await eventually(lambda: look("web")) == lab.network.address(1)
    await lab.network.unregister(two.name)
    await lab.network.unregister(two.name)
    answers = []
    for number in range(40):
        await lab.network.register(f"{number:012x}", lab.network.address(99), [f"n{number}"])
        answers.append(await look("web"))
    assert answers == [lab.network.address(1)] * 40, "no query is lost while names come and go"

    async def gone() -> bool:
        return not await look()

    assert await eventually(gone)
    assert f"nameserver {gateway}\n" in lab.network.resolv_conf()


async def test_repairs_what_others_remove(lab: Lab) -> None:
    one, two = await lab.box(1), await lab.box(2)
    network = lab.network
    await lab.servers.tcp(one.socket(), 80)
    await lab.servers.tcp(lab.world.socket(), 80)
    ports = await network.publish(one.name, network.address(1), [Port(80)])
    await network.register(one.name, network.address(1), ["web"])
    endpoints = [
        Endpoint(one.name, (Place(network.address(1), ("web",)),), tuple(ports), one.netns),
        Endpoint(two.name, (Place(network.address(2)),), netns=two.netns),
    ]
    breakages = [
        ["nft", "delete", "table", "inet", network.identity.table],
        ["nft", "delete", "table", "bridge", network.identity.table],
        ["ip", "link", "del", network.identity.bridge],
        ["sh", "-c", f"kill -9 $(cat {lab.directory}/dns.pid)"],
    ]

    async def look() -> str:
        return await resolve(two.socket(socket.SOCK_DGRAM), network.gateway, "web")

    async def ill() -> bool:
        return not await network.healthy()

    for breakage in breakages:
        assert await network.healthy()
        sh(*breakage)
        assert await eventually(ill), breakage
        await network.repair(endpoints)
        assert await network.healthy()
        assert await ask(two.socket(), network.address(1), 80) == network.address(2)
        assert await ask(two.socket(), World.address, 80) == World.host
        assert await ask(host_socket(), "127.0.0.1", ports[0].host_port) == network.gateway
        assert await ask(lab.world.socket(), World.host, ports[0].host_port) == World.address
        assert await eventually(look) == network.address(1)
    sh("ip", "link", "del", f"v{two.name}")
    for group in network._forwarders.running()[one.name]:
        os.killpg(group, signal.SIGKILL)
    await network.repair(endpoints)
    answer = await eventually(lambda: ask(two.socket(), network.address(1), 80))
    assert answer == network.address(2)
    assert await ask(host_socket(), "127.0.0.1", ports[0].host_port) == network.gateway


async def test_a_new_daemon_adopts(lab: Lab) -> None:
    one = await lab.box(1)
    old = lab.network
    await lab.servers.tcp(one.socket(), 80)
    [port] = await old.publish(one.name, old.address(1), [Port(80)])
    await old.register(one.name, old.address(1), ["web"])
    new = lab.network = Network(lab.config)
    await new.up()
    assert new.subnet == old.subnet
    assert await new.healthy()
    assert await ask(host_socket(), "127.0.0.1", port.host_port) == new.gateway
    assert await ask(lab.world.socket(), World.host, port.host_port) == World.address

    async def look() -> str:
        return await resolve(one.socket(socket.SOCK_DGRAM), new.gateway, "web")

    assert await eventually(look) == new.address(1)
    assert {left.kind for left in await new.leftovers(set())} == {"link", "rule", "process", "name"}
    assert {left.owner for left in await new.leftovers(set())} == {one.name}
    assert await new.leftovers({one.name}) == []
    await asyncio.gather(new.unregister(one.name), new.unpublish(one.name), new.detach(one.name))
    assert await new.leftovers(set()) == []
    assert await ask(host_socket(), "127.0.0.1", port.host_port, BRIEFLY) == ""


async def test_cancelled_at_any_moment(lab: Lab) -> None:
    one = await lab.box(1)
    address = lab.network.address(1)

    async def start() -> None:
        await lab.network.attach(one.name, one.netns, address)
        await lab.network.publish(one.name, address, [Port(80), Port(81, protocol="udp")])
        await lab.network.register(one.name, address, ["web"])

    for tenths in range(0, 160, 8):
        task = asyncio.create_task(start())
        await asyncio.sleep(tenths / 10_000)
        task.cancel()
        await asyncio.wait([task])
        await lab.network.unregister(one.name)
        await lab.network.unpublish(one.name)
        await lab.network.detach(one.name)
        for _ in range(1000):  # a forwarder that was just killed is still listed for a moment
            if not (left := await lab.network.leftovers(set())):
                break
            await asyncio.sleep(0.01)
        assert left == [], tenths


async def test_a_namespace_that_is_gone(lab: Lab) -> None:
    with pytest.raises(StartFailed):
        await lab.network.attach(token_hex(6), lab.directory / "none", lab.network.address(1))


async def test_many_at_once(lab: Lab) -> None:
    network, count = lab.network, 24
    await asyncio.gather(*(lab.box(slot) for slot in range(1, count + 1)))
    slots = range(1, count + 1)
    pairs = list(zip(lab.boxes, slots, strict=True))
    for box, _ in pairs[:4]:
        await lab.servers.tcp(box.socket(), 80)
    published = await asyncio.gather(
        *(network.publish(box.name, network.address(slot), [Port(80)]) for box, slot in pairs)
    )
    assert len({port.host_port for ports in published for port in ports}) == count
    for [port] in published[:4]:
        assert await ask(lab.world.socket(), World.host, port.host_port) == World.address
    await asyncio.gather(
        *(network.detach(box.name) for box in lab.boxes),
        *(network.unpublish(box.name) for box in lab.boxes),
    )
    assert await network.leftovers(set()) == []


async def test_hundreds_leave_at_once(lab: Lab) -> None:
    one = await lab.box(1)
    await asyncio.gather(*(lab.network.detach(token_hex(6)) for _ in range(600)))
    await link_and_rule(lab, one)
    await lab.network.detach(one.name)
    assert await lab.network.leftovers(set()) == []


async def test_networks_of_nobody(lab: Lab) -> None:
    network = NamedNetwork("a" * 12, "back", 16)
    await lab.network.add(network)
    bridge = lab.network.identity.bridge_of(16)
    assert await lab.network.healthy()
    sh("ip", "link", "del", bridge)
    assert not await lab.network.healthy()
    await lab.network.repair([])
    assert await lab.network.healthy()
    lab.network = Network(lab.config)  # a daemon that knows no such network
    await lab.network.up()
    assert [(left.kind, left.name) for left in await lab.network.leftovers(set())] == [
        ("link", bridge)
    ]
    await lab.network.clean()
    assert await lab.network.leftovers(set()) == []


async def test_everything_twice(lab: Lab) -> None:
    one, two = await lab.box(1), await lab.box(2)
    network = lab.network
    await network.up()
    await network.attach(one.name, one.netns, network.address(1))
    await lab.servers.tcp(two.socket(), 80)
    answer = await eventually(lambda: ask(one.socket(), network.address(2), 80))
    assert answer == network.address(1)
    await asyncio.gather(*(network.detach(box.name) for box in (one, two, one)))
    await network.detach(one.name)
    assert await network.leftovers(set()) == []
    await network.down()
    assert remains(network) == []
    await network.down()
