"""What a machine's guest is told, and what its answers mean."""

from __future__ import annotations

import pytest

from sublet.domain.errors import CommandNotExecutable, CommandNotFound, StartFailed
from sublet.domain.nics import Nic
from sublet.drivers.container import protocol
from sublet.drivers.vm import messages
from sublet.drivers.vm.messages import Command, Guest, GuestDisk, Identity, Mode, Say
from sublet.drivers.vm.streams import explain

NIC = Nic("02:53:0a:01:00:02", "10.1.0.2", 20, "10.1.0.1")
IDENTITY = Identity("web", "0" * 32, (NIC,), {"/etc/hosts": "127.0.0.1 localhost\n"})


def entries(payload: bytes) -> list[str]:
    assert payload.endswith(b"\0")
    return payload[:-1].decode().split("\0")


def test_a_guest_is_configured() -> None:
    guest = Guest(
        Command(
            ("nginx", "-g", "daemon off;"), ("A=b c",), "www:web", "/srv", tty=True, window=(33, 77)
        ),
        IDENTITY,
        stdin=True,
        disks=(GuestDisk("vol0", "/data", read_only=True), GuestDisk("vol1", "/mail", fill=True)),
        tmpfs=(("/tmp", "size=1m"),),
        shm=4096,
        read_only=True,
        sysctls={"net.core.somaxconn": "100"},
    )
    assert entries(messages.configure(guest, b"\1\xff", 12.5)) == [
        "mode=app",
        "arg=nginx",
        "arg=-g",
        "arg=daemon off;",
        "env=A=b c",
        "user=www:web",
        "cwd=/srv",
        "tty=1",
        "window=33 77",
        "hostname=web",
        f"machine-id={'0' * 32}",
        "nic=0 02:53:0a:01:00:02 10.1.0.2/20 10.1.0.1 -",
        "file=/etc/hosts\n127.0.0.1 localhost\n",
        "entropy=01ff",
        "time=12.500000000",
        "disk=vol0 /data ro",
        "disk=vol1 /mail rw fill",
        "tmpfs=/tmp size=1m",
        "sysctl=net.core.somaxconn 100",
        "stdin=1",
        "readonly=1",
        "shm=4096",
    ]


def test_a_disk_image_boots_its_own_init() -> None:
    guest = Guest(Command(("/sbin/init",)), IDENTITY, Mode.INIT, root_disk=True)
    said = entries(messages.configure(guest, b"", 0))
    assert said[:3] == ["mode=init", "arg=/sbin/init", "cwd=/"]
    assert said[-1] == "rootdisk=1"


def test_a_restored_guest_is_renewed() -> None:
    assert entries(messages.renew(b"\2", 3)) == ["entropy=02", "time=3.000000000"]
    forked = entries(messages.renew(b"\2", 3, IDENTITY, fork=True))
    assert forked[2] == "fork=1"
    assert "nic=0 02:53:0a:01:00:02 10.1.0.2/20 10.1.0.1 -" in forked
    inner = Identity("web", "0" * 32, (Nic("02:53:0a:01:10:02", "10.1.16.2", 20),))
    assert entries(messages.renew(b"", 0, inner))[-1].endswith("10.1.16.2/20 - -")


def test_a_further_process() -> None:
    limited = Command(("tar",), groups=("7",), ulimits=(("nofile", 10, 20),), tool=True)
    assert entries(messages.execution(limited)) == [
        *("arg=tar", "cwd=/", "group=7", "ulimit=nofile 10 20", "tool=1")
    ]


def test_time_is_never_a_whole_second_off() -> None:
    assert "time=1.000000000" in entries(messages.renew(b"", 0.9999999999))


def test_quiescing_may_freeze_the_disks() -> None:
    assert messages.quiesce(freeze=True) == b"fsfreeze=1\0"
    assert messages.quiesce(freeze=False) == b""


@pytest.mark.parametrize("length", [0, 1, protocol.MESSAGE, protocol.MESSAGE + 1])
def test_a_payload_goes_in_packets_that_fit(length: int) -> None:
    payload = bytes(range(256)) * (length // 256 + 1)
    packets = messages.packets(Say.CONFIGURE, payload[:length])
    assert packets[-1] == b"C", "the end"
    assert all(packet[:1] == b"C" and 1 < len(packet) <= 1 + 32768 for packet in packets[:-1])
    assert b"".join(packet[1:] for packet in packets) == payload[:length]


def test_failures_are_the_errors_of_containers() -> None:
    assert isinstance(explain("127:no such command: x"), CommandNotFound)
    assert isinstance(explain("126:permission denied"), CommandNotExecutable)
    told = explain("125:the disk is full")
    assert isinstance(told, StartFailed)
    assert str(told.message) == "The machine could not be started: the disk is full."


def test_a_console_is_told_as_it_is() -> None:
    text = "QEMU ended\n[    1.0] Kernel panic: VFS"
    assert text in explain(text).message
    assert "it said nothing" in explain("").message
