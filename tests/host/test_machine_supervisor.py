"""The supervisor of VMs: from its start to its end, whoever goes or dies on the way."""

from __future__ import annotations

import os
import signal
import struct
import time
from collections.abc import Iterator

import pytest
from conftest import eventually
from machinelab import Lab, Machine

from sublet.drivers.container.protocol import Ask, Message, Tell
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


def test_from_ready_to_exited(machines: Lab) -> None:
    machine = machines.start("--deadline=20")
    machine.first.say(Ask.ATTACH)
    qemu, supervisor = machine.configure()
    assert supervisor == machine.process.pid
    assert os.path.exists(f"/proc/{qemu}")
    machine.guest.packet(0, Tell.OUTPUT, b"out\n")
    machine.guest.packet(0, Tell.ERRORS, b"err\n")
    machine.first.expect(Tell.OUTPUT, b"out\n")
    machine.first.expect(Tell.ERRORS, b"err\n")
    machine.guest.exited(7)
    machine.guest.end(0)
    machine.first.expect(Tell.EXITED, struct.pack("<i", 7))
    assert machine.wait() == 0
    assert (machine.file("exit"), machine.file("reason")) == ("7\n", None)
    assert [line.split()[1:] for line in machine.log.splitlines()] == [
        ["stdout", "F", "out"],
        ["stderr", "F", "err"],
    ]


def test_a_refused_start_is_told_and_leaves_nothing(machines: Lab) -> None:
    machine = machines.start()
    machine.guest.ready()
    machine.first.expect(Hear.READY, b"agent 1")
    machine.first.request(Say.CONFIGURE, b"x=1\0")
    machine.guest.expect(1, "n")
    machine.guest.request(1, Say.CONFIGURE)
    machine.guest.packet(1, Tell.FAILED, b"127:no such command")
    machine.first.expect(Tell.FAILED, b"127:no such command")
    assert machine.first.ended()
    assert machine.wait() == 1
    assert machine.file("exit") is None


def test_a_guest_that_is_never_ready(machines: Lab) -> None:
    machine = machines.start("--deadline=4")
    machine.guest.console.sendall(b"\033[1mBooting\033[0m\r\n" + b"x" * 5000 + b"\x00\xffstuck\n")
    reason, console = machine.first.hears(Tell.FAILED).decode().split("\n", 1)
    assert reason == "The machine's agent was not ready in time."
    assert console.endswith("xxxstuck\n")
    assert len(console) == 2000
    assert machine.first.ended()
    assert machine.wait() == 1


def test_qemu_that_ends_at_once_says_why(machines: Lab) -> None:
    machine = machines.start(argv=["/usr/bin/qemu-system-x86_64", "-nonsense"])
    reason = machine.first.hears(Tell.FAILED)
    assert b"QEMU ended with code 1: qemu-system-x86_64: -nonsense: invalid option" in reason


def test_qemu_that_is_not_there(machines: Lab) -> None:
    machine = machines.start(argv=["/usr/bin/no-such-qemu"])
    message = machine.first.hear()
    assert message == Message(
        Tell.FAILED, b"QEMU cannot be started: /usr/bin/no-such-qemu: No such file or directory"
    )


def test_who_goes_before_it_has_started_takes_it_back(machines: Lab) -> None:
    machine = machines.start()
    machine.guest.ready()
    machine.first.expect(Hear.READY, b"agent 1")
    machine.first.close()
    assert machine.wait() == 1
    assert machine.file("exit") is None


def test_it_goes_on_without_the_daemon(machine: Machine) -> None:
    machine.first.close()
    machine.guest.expect(1, "x")
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        os.kill(machine.process.pid, number)
    machine.guest.packet(0, Tell.OUTPUT, b"alone\n")
    eventually(lambda: "alone" in machine.log, "the log")
    client = machine.attach()
    client.say(Ask.INPUT, b"hello")
    machine.guest.expect(0, "p", b"ihello")
    machine.guest.packet(0, Tell.OUTPUT, b"back")
    client.expect(Tell.OUTPUT, b"back")


def test_a_reboot_inside_is_configured_by_the_supervisor(machines: Lab) -> None:
    machine = machines.start()
    machine.configure(b"mode=init\0time=5.0\0entropy=00\0host=x\0")
    running = machine.connect()
    running.request(Ask.EXECUTE, b"")
    machine.guest.expect(2, "n")
    machine.guest.request(2, Ask.EXECUTE)
    for _ in range(3):
        began = time.time()
        machine.guest.ready(b"again")
        machine.guest.expect(257, "n")
        entries = machine.guest.request(257, Say.CONFIGURE).split(b"\0")
        assert entries[:2] == [b"mode=init", b"host=x"]
        seconds, entropy = (entry.split(b"=")[1] for entry in entries[2:4])
        assert began - 1 < float(seconds) < time.time() + 1
        assert len(bytes.fromhex(entropy.decode())) == 64
        assert len(set(entropy)) > 4
        assert entries[4:] == [b""]
        machine.guest.packet(257, Tell.STARTED, b"\1\0\0\0")
        machine.guest.expect(257, "x")
        machine.guest.frame(257, "x")
    assert running.ended()
    machine.first.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        machine.first.socket.recv(10)


def test_a_reboot_that_cannot_be_configured_ends_the_machine(machine: Machine) -> None:
    machine.guest.ready()
    machine.guest.expect(257, "n")
    machine.guest.request(257, Say.CONFIGURE)
    machine.guest.packet(257, Tell.FAILED, b"125:no disk")
    assert machine.wait() == 0
    assert machine.file("exit") == "255\n"
    reason = "The machine was restarted inside, and then: 125:no disk\n"
    assert machine.file("reason") == reason


def test_a_clone_of_one_that_was_ready(machines: Lab) -> None:
    machine = machines.start("--ready")
    machine.first.expect(Hear.READY)
    machine.first.request(Say.CONFIGURE, b"a=b\0")
    machine.guest.expect(1, "n")
    assert machine.guest.request(1, Say.CONFIGURE) == b"a=b\0"
    machine.guest.packet(1, Tell.STARTED, b"\0\0\0\0")
    machine.started()


def test_one_that_is_resumed(machines: Lab) -> None:
    machine = machines.start("--resumed")
    machine.started()
    machine.first.request(Say.CONFIGURE, b"kept=1\0")
    machine.first.request(Say.RENEW, b"fork=1\0")
    machine.guest.expect(1, "n")
    assert machine.guest.request(1, Say.RENEW) == b"fork=1\0"
    machine.guest.packet(1, Hear.DONE)
    machine.first.expect(Hear.DONE)
    machine.guest.ready()
    machine.guest.expect(257, "n")
    assert machine.guest.request(257, Say.CONFIGURE).startswith(b"kept=1\0time=")


def test_one_that_is_resumed_in_vain(machines: Lab) -> None:
    machine = machines.start("--resumed")
    machine.started()
    machine.guest.end(1, "qemu: Unknown savevm section\n")
    text = b"QEMU ended with code 1: qemu: Unknown savevm section\n"
    machine.first.expect(Tell.FAILED, text)
    machine.wait()
    assert (machine.file("exit"), machine.file("reason")) == ("255\n", text.decode())


def test_a_panic(machine: Machine) -> None:
    attached = machine.attach()
    machine.guest.console.sendall(b"Kernel panic - not syncing: Attempted to kill init!\n")
    machine.guest.end(1)
    attached.expect(Tell.EXITED, struct.pack("<i", 255))
    assert machine.wait() == 0
    assert machine.file("exit") == "255\n"
    reason, console = (machine.file("reason") or "").split("\n", 1)
    assert reason == "The machine's kernel panicked."
    assert console == "Kernel panic - not syncing: Attempted to kill init!\n"


def test_qemu_that_is_killed_leaves_a_reason_and_no_code(machines: Lab) -> None:
    machine = machines.start()
    qemu, _ = machine.configure()
    os.kill(qemu, signal.SIGKILL)
    assert machine.wait() == 0
    assert (machine.file("exit"), machine.file("reason")) == (
        None,
        "QEMU was killed by signal 9.\n",
    )


def test_qemu_that_crashes_has_its_last_words(machines: Lab) -> None:
    machine = machines.start()
    machine.guest.end(-11, "info\nerror: failed to set MSR 0x10a\n")
    reason = machine.first.hears(Tell.FAILED)
    assert reason == b"QEMU was killed by signal 11: error: failed to set MSR 0x10a\n"


def test_qemu_ends_with_its_supervisor(machines: Lab) -> None:
    machine = machines.start()
    qemu, supervisor = machine.configure()
    os.kill(supervisor, signal.SIGKILL)
    eventually(lambda: not os.path.exists(f"/proc/{qemu}"), "QEMU's end")


def test_an_orderly_power_off(machine: Machine) -> None:
    machine.guest.end(0)
    assert machine.wait() == 0
    assert (machine.file("exit"), machine.file("reason")) == ("0\n", None)


@pytest.mark.slow
def test_one_that_does_not_power_off_is_ended(machine: Machine) -> None:
    machine.guest.exited(4)
    began = time.monotonic()
    assert machine.wait() == 0
    assert 9 < time.monotonic() - began < 12
    assert machine.file("exit") == "4\n"


def test_the_last_words_are_not_lost(machine: Machine) -> None:
    attached = machine.attach()
    for n in range(6):
        machine.guest.packet(0, Tell.OUTPUT, b"%d" % n * 10_000)
    machine.guest.exited(0)
    machine.guest.end(0)
    assert machine.wait() == 0
    for n in range(6):
        attached.expect(Tell.OUTPUT, b"%d" % n * 10_000)
    attached.expect(Tell.EXITED, b"\0\0\0\0")


def test_the_console_is_kept_within_bounds(machines: Lab) -> None:
    machine = machines.start("--console-output")
    machine.configure()
    attached = machine.attach()
    machine.guest.console.sendall(b"login: ")
    attached.expect(Tell.OUTPUT, b"login: ")
    machine.guest.console.sendall(b"root")

    def prompt() -> str:
        """In one piece, or in two where the second was late."""
        lines = (line.partition(" stdout P ")[2] for line in machine.log.splitlines())
        return "".join(lines)

    eventually(lambda: prompt() == "login: root", "the line in the log")
    for n in range(40):
        machine.guest.console.sendall(b"%05d\n" % n * 2000)
    machine.guest.console.sendall(b"the end\n")
    eventually(lambda: (machine.file("console") or "").endswith("the end\n"), "its end")
    assert 64 << 10 <= len(machine.file("console") or "") <= 128 << 10
