"""Cables of virtual machines on a real bridge: the tests are what is at the other end."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path
from secrets import token_hex

import pytest
from netlab import BRIEFLY, PATIENCE, remains, sh

from sublet.domain import subnets
from sublet.domain.config import Config
from sublet.drivers.descriptors import ready
from sublet.drivers.network import Endpoint, Network, Place
from sublet.drivers.network.identity import veth

_HEADER = 10
"""Bytes of virtio-net's header before a frame."""


@pytest.fixture
async def network(tmp_path: Path) -> AsyncIterator[Network]:
    network = Network(Config(root=tmp_path, run=tmp_path))
    await network.up()
    try:
        yield network
    finally:
        await network.down()
    assert remains(network) == []


def who_has(network: Network, sender: str, hardware: str) -> bytes:
    """The sender asks for the gateway's hardware address (RFC 826)."""
    mac = bytes.fromhex(hardware.replace(":", ""))
    request = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + mac + IPv4Address(sender).packed
    request += bytes(6) + IPv4Address(network.gateway).packed
    return bytes(_HEADER) + b"\xff" * 6 + mac + b"\x08\x06" + request


async def answered(
    network: Network, tap: int, sender: str, hardware: str, patience: float = PATIENCE
) -> bool:
    """Whether the bridge answers what comes in by the tap."""
    os.write(tap, who_has(network, sender, hardware))
    wanted = IPv4Address(network.gateway).packed + bytes.fromhex(hardware.replace(":", ""))
    try:
        async with asyncio.timeout(patience):
            while True:
                await ready(tap)
                frame = os.read(tap, 2048)[_HEADER:]
                if frame[12:14] == b"\x08\x06" and frame[28:38] == wanted:
                    return True
    except TimeoutError:
        return False


def mac(address: str) -> str:
    return subnets.mac(IPv4Address(address))


async def test_a_tap_is_on_the_network_as_long_as_it_is_held(network: Network) -> None:
    instance_id, address = token_hex(6), network.address(1)
    tap = await network.attach_tap(instance_id, address)
    assert await answered(network, tap, address, mac(address))
    assert await network.leftovers(set()), "known as that of an instance"
    assert await network.leftovers({instance_id}) == []
    os.close(tap)
    await network.detach(instance_id)
    assert await network.leftovers(set()) == []


async def test_a_machine_speaks_for_itself_alone(network: Network) -> None:
    address, other = network.address(1), network.address(2)
    tap = await network.attach_tap(token_hex(6), address)
    assert not await answered(network, tap, other, mac(address), BRIEFLY)
    assert not await answered(network, tap, address, mac(other), BRIEFLY)
    os.close(tap)


async def test_nobody_gets_the_frames_of_another(network: Network) -> None:
    """A bridge sends frames to where it last saw their MAC as a source (bridge(8), fdb)."""
    mine, other = network.address(1), network.address(2)
    ours, theirs = token_hex(6), token_hex(6)
    tap, victim = [
        await network.attach_tap(each, address) for each, address in ((ours, mine), (theirs, other))
    ]
    assert await answered(network, victim, other, mac(other))
    stolen = bytes.fromhex(mac(other).replace(":", ""))
    asking = who_has(network, mine, mac(mine))
    for destination in (b"\xff" * 6, *(b"\1\x80\xc2\0\0" + bytes([n]) for n in range(16))):
        os.write(tap, asking[:_HEADER] + destination + stolen + asking[_HEADER + 12 :])
    assert await answered(network, tap, mine, mac(mine)), "what was sent before has arrived"
    known = sh("bridge", "fdb", "show", "br", network.identity.bridge).splitlines()
    places = {line.split()[0]: line.split()[2] for line in known}
    assert places[mac(other)] == veth(theirs)
    assert places[mac(mine)] == veth(ours)
    os.close(tap)
    os.close(victim)


async def test_a_second_tap_of_the_name_replaces_the_first(network: Network) -> None:
    instance_id, address = token_hex(6), network.address(1)
    first = await network.attach_tap(instance_id, address)
    second = await network.attach_tap(instance_id, address)
    assert await answered(network, second, address, mac(address))
    with pytest.raises(OSError, match="bad state"):
        os.write(first, who_has(network, address, mac(address)))
    os.close(first)
    os.close(second)


async def test_a_tap_is_repaired_as_a_veth_is(network: Network) -> None:
    instance_id, address = token_hex(6), network.address(1)
    tap = await network.attach_tap(instance_id, address)
    sh("ip", "link", "del", network.identity.bridge)
    sh("nft", "delete", "table", "bridge", network.identity.table)
    await network.repair([Endpoint(instance_id, (Place(address),))])
    assert await answered(network, tap, address, mac(address))
    os.close(tap)


async def test_a_tap_is_taken_away_while_it_is_held(network: Network) -> None:
    instance_id = token_hex(6)
    tap = await network.attach_tap(instance_id, network.address(1))
    await network.detach(instance_id)
    assert not os.path.exists(f"/sys/class/net/{veth(instance_id)}")
    os.close(tap)


async def test_a_cancelled_attachment_leaves_no_tap(network: Network) -> None:
    instance_id = token_hex(6)
    task = asyncio.create_task(network.attach_tap(instance_id, network.address(1)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await network.detach(instance_id)
    assert not os.path.exists(f"/sys/class/net/{veth(instance_id)}")
