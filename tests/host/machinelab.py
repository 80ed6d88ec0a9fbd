"""Supervisors of machines without a daemon. In QEMU's place is real QEMU, or a process that hands
its end of the guest's channel to the test, which plays the guest and all that it might do."""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import socket
import struct
import subprocess
import tempfile
import termios
import time
from dataclasses import dataclass, field
from pathlib import Path

from conftest import ended, eventually

from sublet.drivers import run
from sublet.drivers.container import protocol
from sublet.drivers.container.protocol import Ask, Message, Tell
from sublet.drivers.vm.messages import Say

PROGRAM = run.HELPER.with_name("sublet-machine")
UID = 4_234_567_000
"""Half of all that there are for instances are above 2^31."""

WINDOW, MOST = 65536, protocol.MESSAGE + 1
DEADLINE = 60.0

STAND_IN = """
import os, signal, socket
control = socket.socket(fileno=4)
socket.send_fds(control, [b"!"], [5, 6, 7])
for fd in (5, 6, 7): os.close(fd)
order = control.recv(4096).decode()
os.write(2, order[order.find(" ") + 1:].encode())
number = int(order.split()[0])
if number < 0:
    import ctypes
    ctypes.string_at(0) # SIGSEGV
os._exit(number)
"""
"""Gives the sockets of agent, console and QMP away, and ends when and as it is told."""


@dataclass(frozen=True)
class Frame:
    """What the supervisor says to the guest."""

    channel: int
    kind: str
    data: bytes


class Guest:
    """The guest's end of a machine's sockets."""

    def __init__(self, control: socket.socket) -> None:
        control.settimeout(DEADLINE)
        _, fds, _, _ = socket.recv_fds(control, 16, 3)
        self.control = control
        self.agent, self.console, self.qmp = (socket.socket(fileno=fd) for fd in fds)
        self.agent.settimeout(DEADLINE)

    def frame(self, channel: int, kind: str, data: bytes = b"") -> None:
        self.agent.sendall(struct.pack("<HBBI", channel, ord(kind), 0, len(data)) + data)

    def packet(self, channel: int, kind: int, data: bytes = b"") -> None:
        self.frame(channel, "p", bytes([kind]) + data)

    def ready(self, text: bytes = b"agent 1") -> None:
        self.packet(0, ord("R"), text)

    def exited(self, code: int) -> None:
        self.packet(0, Tell.EXITED, struct.pack("<i", code))

    def next(self) -> Frame:
        """The supervisor's next frame."""
        channel, kind, zero, length = struct.unpack("<HBBI", self._exactly(8))
        assert zero == 0
        assert length <= MOST
        return Frame(channel, chr(kind), self._exactly(length))

    def expect(self, channel: int, kind: str, data: bytes = b"") -> None:
        assert self.next() == Frame(channel, kind, data)

    def request(self, channel: int, kind: int) -> bytes:
        """A whole request in packets of one type, up to the empty one."""
        text = b""
        while True:
            frame = self.next()
            assert (frame.channel, frame.kind, frame.data[0]) == (channel, "p", kind)
            if len(frame.data) == 1:
                return text
            text += frame.data[1:]

    def hears_nothing(self, seconds: float = 0.2) -> bool:
        return not select.select([self.agent], [], [], seconds)[0]

    def end(self, code: int = 0, words: str = "") -> None:
        """End what is in QEMU's place."""
        self.control.send(f"{code} {words}".encode())

    def close(self) -> None:
        for each in (self.agent, self.console, self.qmp, self.control):
            each.close()

    def _exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            piece = self.agent.recv(length - len(data))
            assert piece, "the supervisor has closed its end"
            data += piece
        return data


class Client:
    """A connection to a supervisor."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        connection.setblocking(True)
        connection.settimeout(DEADLINE)

    def say(self, kind: int, data: bytes = b"") -> None:
        self.socket.send(bytes([kind]) + data)

    def request(self, kind: int, data: bytes) -> None:
        for at in range(0, len(data), protocol.MESSAGE):
            self.say(kind, data[at : at + protocol.MESSAGE])
        self.say(kind)

    def hear(self) -> Message | None:
        """The next message; None when the connection has ended."""
        data = self.socket.recv(MOST)
        return Message(data[0], data[1:]) if data else None

    def hears(self, kind: int) -> bytes:
        """What comes with the next message, which is of that type."""
        message = self.hear()
        assert message, "the connection has ended"
        assert message.kind == kind, message
        return message.data

    def expect(self, kind: int, data: bytes = b"") -> None:
        assert self.hear() == Message(kind, data)

    def has_been_heard(self) -> bool:
        """Whether all that was said has been read (SIOCOUTQ, unix(7))."""
        return fcntl.ioctl(self.socket, termios.TIOCOUTQ, b"\0" * 4) == b"\0" * 4

    def ended(self) -> bool:
        return self.hear() is None

    def close(self) -> None:
        self.socket.close()


@dataclass
class Machine:
    """A supervisor with its directory."""

    home: Path
    first: Client
    process: subprocess.Popen[bytes]
    guests: list[Guest] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)

    @property
    def log(self) -> str:
        return (self.home / "log").read_text()

    @property
    def guest(self) -> Guest:
        return self.guests[0]

    def connect(self) -> Client:
        client = Client(self._connected())
        self.clients.append(client)
        return client

    def _connected(self) -> socket.socket:
        """However many wait to be let in."""
        until = time.monotonic() + DEADLINE
        while True:
            try:
                return protocol.connect(self.home)
            except BlockingIOError:
                assert time.monotonic() < until, "nobody is let in"
                time.sleep(0.005)

    def attach(self) -> Client:
        """A client that will hear whatever is said from now on."""
        client = self.connect()
        client.say(Ask.ATTACH)
        eventually(client.has_been_heard, "the supervisor takes it")
        return client

    def configure(self, text: bytes = b"mode=app\0") -> tuple[int, int]:
        """From READY to STARTED; the pids of QEMU and the supervisor."""
        self.guest.ready()
        self.first.expect(ord("R"), b"agent 1")
        self.first.request(Say.CONFIGURE, text)
        self.guest.expect(1, "n")
        assert self.guest.request(1, Say.CONFIGURE) == text
        self.guest.packet(1, Tell.STARTED, struct.pack("<i", 77))
        return self.started()

    def started(self) -> tuple[int, int]:
        qemu, supervisor = struct.unpack("=2i", self.first.hears(Tell.STARTED))
        return qemu, supervisor

    def file(self, name: str) -> str | None:
        try:
            return (self.home / name).read_text()
        except FileNotFoundError:
            return None

    def wait(self) -> int:
        """Until the supervisor has ended; its exit code."""
        return self.process.wait(DEADLINE)


class Lab:
    """Starts supervisors, and leaves nothing of them."""

    def __init__(self, program: Path = PROGRAM) -> None:
        self.program = program
        self.home = Path(tempfile.mkdtemp(prefix="sublet-machine-"))
        self.machines: list[Machine] = []

    def start(
        self, *options: str, argv: list[str] | None = None, fds: tuple[int, ...] = ()
    ) -> Machine:
        """A supervisor of `argv`, which has those descriptors; else of a stand-in for QEMU, whose
        guest is the test."""
        home = Path(tempfile.mkdtemp(dir=self.home))
        ours, theirs = protocol.pair()
        control, given = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        passed = fds if argv else (given.fileno(),)
        command = [str(self.program), f"--directory={home}", f"--uid={UID}", *options]
        command += [f"--log={home}/log", "--log-size=1000000", "--log-files=2"]
        command += [f"--fd={4 + n}" for n in range(len(passed))]
        command += ["--", *(argv or ["/usr/bin/python3", "-ISc", STAND_IN])]
        with theirs, given:
            process = _spawn(command, (theirs.fileno(), *passed))
        machine = Machine(home, Client(ours), process)
        self.machines.append(machine)
        if argv:
            control.close()
        else:
            machine.guests.append(Guest(control))
        return machine

    def close(self) -> None:
        for machine in self.machines:
            children = _children(machine.process.pid)
            if machine.process.poll() is None:
                machine.process.kill()
            machine.process.wait(DEADLINE)
            for each in (*machine.guests, *machine.clients, machine.first):
                each.close()
            for pid in children:  # they end with their supervisor
                eventually(lambda pid=pid: ended(pid), "QEMU ends")
        shutil.rmtree(self.home)


def _spawn(command: list[str], descriptors: tuple[int, ...]) -> subprocess.Popen[bytes]:
    """Like run.launch, but as our child, whose standard errors are ours."""
    copies = [os.dup2(fd, 100 + n) for n, fd in enumerate(descriptors)]
    numbered = " ".join(f"{3 + n}<&{fd}" for n, fd in enumerate(copies))
    closed = " ".join(f"{fd}<&-" for fd in copies)
    try:
        return subprocess.Popen(
            ["bash", "-c", f'exec "$@" {numbered} {closed}', "sh", *command],
            stdin=subprocess.DEVNULL,
            pass_fds=copies,
        )
    finally:
        for fd in copies:
            os.close(fd)


def _children(pid: int) -> list[int]:
    try:
        return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
