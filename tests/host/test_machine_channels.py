"""Between clients and guests of VMs: nobody holds up another, and a guest harms only itself."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import eventually
from machinelab import MOST, WINDOW, Lab, Machine

from sublet.drivers.container.protocol import Ask, Tell
from sublet.drivers.vm.messages import Hear, Say

NO_AGENT = b"125:The machine's agent does not answer"


@pytest.fixture
def machines() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


@pytest.fixture
def machine(machines: Lab) -> Machine:
    """One whose main process runs."""
    machine = machines.start()
    machine.configure()
    return machine


def test_a_long_configuration_waits_for_the_guest_to_take_it(machines: Lab) -> None:
    machine = machines.start()
    machine.guest.ready(b"")
    machine.first.expect(Hear.READY)
    text = b"file=/x\n" + os.urandom(1 << 17).replace(b"\0", b"") + b"\0"
    says = threading.Thread(target=machine.first.request, args=(Say.CONFIGURE, text))
    says.start()
    machine.guest.expect(1, "n")
    taken = b""
    for _ in range(1):
        taken += machine.guest.next().data[1:]
    assert machine.guest.hears_nothing(), "more than it was granted"
    machine.guest.frame(1, "c", struct.pack("<I", 1 << 20))
    while taken != text:
        taken += machine.guest.next().data[1:]
    machine.guest.expect(1, "p", bytes([Say.CONFIGURE]))
    says.join()


def test_a_process_beside_the_main_one(machine: Machine) -> None:
    client = machine.connect()
    client.request(Ask.EXECUTE, b"arg=true\0")
    client.say(Ask.INPUT, b"in")
    channel = machine.guest.next().channel
    assert machine.guest.request(channel, Ask.EXECUTE) == b"arg=true\0"
    machine.guest.expect(channel, "p", b"iin")
    machine.guest.packet(channel, Tell.STARTED, struct.pack("<i", 5))
    machine.guest.packet(channel, Tell.OUTPUT, b"out")
    machine.guest.packet(channel, Tell.EXITED, struct.pack("<i", 3))
    machine.guest.frame(channel, "x")
    for kind, data in (
        (Tell.STARTED, b"\5\0\0\0"),
        (Tell.OUTPUT, b"out"),
        (Tell.EXITED, b"\3\0\0\0"),
    ):
        client.expect(kind, data)
    assert client.ended()
    machine.guest.expect(channel, "x")


def test_a_client_that_goes_is_told_to_the_guest_once(machine: Machine) -> None:
    client = machine.connect()
    client.say(Ask.SIGNAL, struct.pack("<i", 15))
    client.close()  # at once: it is told all the same
    channel = machine.guest.next().channel
    machine.guest.expect(channel, "p", b"k" + struct.pack("<i", 15))
    machine.guest.expect(channel, "x")
    machine.guest.packet(channel, Tell.OUTPUT, b"too late")
    others = machine.connect()
    others.request(Ask.EXECUTE, b"")
    frame = machine.guest.next()
    assert frame.kind == "n"
    assert frame.channel != channel, "used before the guest had shut it"
    machine.guest.frame(channel, "x")


def test_a_reader_that_is_slow_holds_up_nobody_else(machine: Machine) -> None:
    slow, quick = machine.connect(), machine.connect()
    slow.request(Ask.EXECUTE, b"")
    machine.guest.expect(2, "n")
    machine.guest.request(2, Ask.EXECUTE)
    quick.request(Ask.EXECUTE, b"")
    machine.guest.expect(3, "n")
    machine.guest.request(3, Ask.EXECUTE)
    granted, sent = WINDOW, 0
    while granted >= MOST:  # until the supervisor takes no more
        machine.guest.packet(2, Tell.OUTPUT, b"s" * (MOST - 1))
        sent += 1
        granted -= MOST
        while not machine.guest.hears_nothing(0.05):
            frame = machine.guest.next()
            assert (frame.channel, frame.kind) == (2, "c")
            granted += struct.unpack("<I", frame.data)[0]
        assert sent < 100, "nothing stops it"
    machine.guest.packet(3, Tell.OUTPUT, b"quick")
    quick.expect(Tell.OUTPUT, b"quick")
    for _ in range(sent):
        slow.expect(Tell.OUTPUT, b"s" * (MOST - 1))


def test_one_that_does_not_read_makes_the_main_process_wait(machine: Machine) -> None:
    stalled = machine.attach()
    granted, sent = WINDOW, 0
    while granted >= 10_001:
        machine.guest.packet(0, Tell.OUTPUT, b"%d" % (sent % 10) * 10_000)
        sent += 1
        granted -= 10_001
        while not machine.guest.hears_nothing(0.05):
            granted += struct.unpack("<I", machine.guest.next().data)[0]
        assert sent < 200, "nothing stops it"
    stalled.close()
    eventually(lambda: len(machine.log.splitlines()) == sent, "all of it in the log")


def test_a_guest_that_never_reads(machine: Machine) -> None:
    fillers = [machine.connect() for _ in range(8)]
    for client in fillers:
        client.socket.setblocking(False)
        try:
            for _ in range(1000):
                client.say(Ask.INPUT, b"x" * 30_000)
        except BlockingIOError:
            pass
    attached = machine.attach()
    machine.guest.packet(0, Tell.OUTPUT, b"alive")
    attached.expect(Tell.OUTPUT, b"alive")
    status = Path(f"/proc/{machine.process.pid}/status").read_text()
    resident = int(status.split("VmRSS:")[1].split()[0])
    assert resident < 8_000, f"{resident} kB"


BROKEN = {
    "overdraw": lambda m: [m.guest.packet(0, Tell.OUTPUT, b"x" * 32768) for _ in range(40)],
    "too long": lambda m: m.guest.agent.sendall(struct.pack("<HBBI", 0, ord("p"), 0, MOST + 1)),
    "longest": lambda m: m.guest.agent.sendall(struct.pack("<HBBI", 0, ord("p"), 0, 0xFFFFFFFF)),
    "no channel": lambda m: m.guest.packet(300, Tell.OUTPUT, b"x"),
    "kind": lambda m: m.guest.frame(1, "?"),
    "zero": lambda m: m.guest.agent.sendall(b"\0\0p\1\0\0\0\0"),
    "empty": lambda m: m.guest.frame(0, "p"),
    "credit": lambda m: m.guest.frame(0, "c", struct.pack("<I", 0xFFFFFFFF)),
    "short credit": lambda m: m.guest.frame(0, "c", b"1"),
    "no credit": lambda m: m.guest.frame(0, "c", struct.pack("<I", 0)),
    "strays": lambda m: m.guest.agent.sendall(struct.pack("<HBBI", 99, ord("x"), 0, 0) * 1025),
    "boots": lambda m: [m.guest.ready() for _ in range(31)],
    "shut": lambda m: m.guest.frame(0, "x"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_protocol_costs_the_guest_its_channels(machine: Machine, what: str) -> None:
    working, attached = machine.connect(), machine.attach()
    working.request(Ask.EXECUTE, b"")
    assert machine.guest.next().kind == "n"
    with contextlib.suppress(BrokenPipeError):
        BROKEN[what](machine)
    assert working.ended()
    eventually(lambda: "broke the protocol" in machine.log, "a note in the log")
    late = machine.connect()
    late.request(Ask.EXECUTE, b"arg=x\0")
    assert late.hears(Tell.FAILED).startswith(NO_AGENT)
    attached.close()
    machine.guest.console.sendall(b"still there\n")
    eventually(lambda: machine.file("console") == "still there\n", "the console")


def test_an_agent_that_comes_back_is_talked_to_again(machine: Machine) -> None:
    machine.guest.agent.sendall(b"\xff" * 5000)
    eventually(lambda: "broke the protocol" in machine.log, "a note in the log")
    token = "0123456789abcdef" * 2
    machine.guest.agent.sendall(b"p\0\0\0" * 10)
    machine.guest.ready(f"agent 1 sync={token}".encode())
    machine.guest.expect(0, "s", token.encode())
    machine.guest.expect(257, "n")
    assert b"mode=app\0" in machine.guest.request(257, Say.CONFIGURE)
    machine.guest.packet(257, Tell.STARTED, b"\1\0\0\0")
    machine.guest.expect(257, "x")
    client = machine.connect()
    client.request(Ask.EXECUTE, b"arg=x\0")
    channel = machine.guest.next().channel
    assert machine.guest.request(channel, Ask.EXECUTE) == b"arg=x\0"


def test_nothing_is_said_to_a_guest_that_is_to_be_quiet(machine: Machine) -> None:
    other = machine.connect()
    machine.first.say(Say.QUIESCE, b"fsfreeze=1\0")
    machine.guest.expect(1, "p", b"Qfsfreeze=1\0")
    other.request(Ask.EXECUTE, b"arg=x\0")
    machine.guest.packet(1, Hear.DONE)
    machine.first.expect(Hear.DONE)
    assert machine.guest.hears_nothing()
    machine.first.say(Say.GO)
    machine.guest.expect(1, "p", b"G")
    machine.guest.expect(2, "n")
    machine.guest.request(2, Ask.EXECUTE)
    third = machine.connect()
    third.say(Say.QUIESCE)
    machine.guest.expect(3, "n")
    machine.guest.expect(3, "p", b"Q")
    other.say(Ask.INPUT, b"later")
    assert machine.guest.hears_nothing()
    third.close()  # who was to say GO
    machine.guest.expect(3, "p", b"G")
    frames = {machine.guest.next().channel for _ in range(2)}
    assert frames == {2, 3}


def test_nonsense_from_clients_does_not_end_it(machine: Machine) -> None:
    for message in (b"", b"?", b"e", b"w\1", b"k", b"i" * 100_000, b"a", b"C", b"N", b"\0" * 9):
        client = machine.connect()
        client.socket.send(message)
        client.close()
    with open("/dev/null") as file:
        client = machine.connect()
        socket.send_fds(client.socket, [b"a"], [file.fileno()] * 9)
    eventually(client.has_been_heard, "the supervisor takes it")
    machine.guest.packet(0, Tell.OUTPUT, b"alive")
    client.expect(Tell.OUTPUT, b"alive")


def test_more_clients_than_there_is_room_for(machine: Machine) -> None:
    many = [machine.connect() for _ in range(300)]
    assert many[-1].ended(), "it was let in"
    for client in many:
        client.close()
    client = machine.attach()
    machine.guest.packet(0, Tell.OUTPUT, b"alive")
    client.expect(Tell.OUTPUT, b"alive")
    assert machine.guest.hears_nothing(), "nobody has said anything to the guest"


def test_frames_in_pieces(machine: Machine) -> None:
    client = machine.attach()
    frame = struct.pack("<HBBI", 0, ord("p"), 0, 6) + b"ohello"
    for byte in frame:
        machine.guest.agent.sendall(bytes([byte]))
        time.sleep(0.001)
    client.expect(Tell.OUTPUT, b"hello")
