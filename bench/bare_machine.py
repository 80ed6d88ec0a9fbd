"""QEMU without Sublet: the same kernel, initramfs, machine and image, started by hand.

The command line is the one that Sublet makes (`drivers/vm/qemu.py`); what is left out is all
that surrounds it: the daemon, the supervisor, the jail, network rules, cgroups. The guest is told
over its serial port to run a command, and the time is taken when its first output arrives.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.engines import IMAGE
from bench.host import call
from bench.lab import Lab
from sublet.domain.nics import Nic
from sublet.drivers.container.protocol import Tell
from sublet.drivers.vm import equipment, kernels, messages, qemu

DEADLINE = 60.0
MAC = "02:00:00:00:00:01"
FRAME = struct.Struct("<HBBI")
"""Channel, kind, zero, length: guest/frames.h."""

_TUNSETIFF, _TAP, _NO_INFORMATION, _VNET_HEADER = 0x400454CA, 0x0002, 0x1000, 0x4000


class BareMachine:
    """Starts machines of `memory` bytes and one CPU."""

    def __init__(self, lab: Lab, memory: int) -> None:
        seen = lab.client.inspect_image(IMAGE)
        self._image = Path(seen["file"]), seen["squashfs"]["offset"], seen["squashfs"]["length"]
        self._memory, self._kernel = memory, kernels.newest()
        self._blank, self._disk = lab.work / "blank.img", lab.work / "disk.img"
        tree = lab.work / "blank"
        for name in ("upper", "work"):
            (tree / name).mkdir(parents=True)
        options = "lazy_itable_init=1,lazy_journal_init=1,nodiscard"
        argv = ["mkfs.ext4", "-q", "-F", "-E", options, "-d", str(tree), str(self._blank), "16g"]
        call(*argv)

    def first_output(self, *command: str) -> tuple[float, bytes]:
        """Boot a machine that runs the command: milliseconds until it wrote, and what."""
        call("cp", "--sparse=always", str(self._blank), str(self._disk))
        with ExitStack() as stack:
            agent, argv, fds = self._prepare(stack)
            begin = time.perf_counter()
            machine = subprocess.Popen(argv, pass_fds=fds, stdin=subprocess.DEVNULL)
            stack.callback(_end, machine)
            agent.settimeout(DEADLINE)
            written = _run(agent, command)
            return (time.perf_counter() - begin) * 1000, written

    def _prepare(self, stack: ExitStack) -> tuple[socket.socket, list[str], list[int]]:
        """Our end of the guest's port, the command line, and the descriptors that it names."""
        agent, port = _pair(stack)
        _, console = _pair(stack)
        monitor = stack.enter_context(socket.socket(socket.AF_UNIX))
        monitor.bind(f"\0sublet-bench-{os.getpid()}-{console.fileno()}")
        monitor.listen()
        ram = os.memfd_create("ram")
        stack.callback(os.close, ram)
        os.ftruncate(ram, self._memory)
        file, offset, length = self._image
        hardware = qemu.Hardware(
            acceleration="tcg",
            memory=self._memory,
            vcpus=1,
            ram=ram,
            firmware=_open(stack, equipment.firmware()),
            kernel=_open(stack, self._kernel.vmlinuz),
            initramfs=_open(stack, self._kernel.initramfs),
            nics=((_tap(stack), MAC),),
            drives=(
                qemu.Drive(_open(stack, file), "image", True, offset=offset, length=length),
                qemu.Drive(_open(stack, self._kernel.modules), "modules", True),
                qemu.Drive(_open(stack, self._disk, os.O_RDWR), "disk"),
            ),
        )
        places = {"@agent@": port, "@console@": console, "@qmp@": monitor}
        argv = qemu.argv(hardware)
        for word, place in places.items():
            argv = [part.replace(word, str(place.fileno())) for part in argv]
        drives = [drive.fd for drive in hardware.drives]
        fds = [ram, hardware.firmware, hardware.kernel, hardware.initramfs]
        fds += [*drives, hardware.nics[0][0]]
        return agent, argv, [*fds, *(place.fileno() for place in places.values())]


def _pair(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    stack.enter_context(ours)
    stack.enter_context(theirs)
    return ours, theirs


def _open(stack: ExitStack, file: Path, flags: int = os.O_RDONLY) -> int:
    fd = os.open(file, flags | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


def _tap(stack: ExitStack) -> int:
    """A network card's other end, plugged in nowhere; it goes when it is closed."""
    fd = _open(stack, Path("/dev/net/tun"), os.O_RDWR)
    flags = _TAP | _NO_INFORMATION | _VNET_HEADER
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("=16sH22x", b"bench%d", flags))
    return fd


def _run(agent: socket.socket, command: tuple[str, ...]) -> bytes:
    """Wait until the guest has booted, tell it what to run; the first that the command writes."""
    ready = _packet(agent, messages.Hear.READY)
    if token := ready.partition(b"sync=")[2][:32]:
        agent.sendall(_frame(ord("s"), token))
    nic = Nic(MAC, "10.255.255.2", 24, "10.255.255.1")
    identity = messages.Identity("bare", os.urandom(16).hex(), (nic,))
    guest = messages.Guest(messages.Command(command), identity)
    payload = messages.configure(guest, os.urandom(messages.ENTROPY), time.time())
    for packet in messages.packets(messages.Say.CONFIGURE, payload):
        agent.sendall(_frame(ord("p"), packet))
    return _packet(agent, Tell.OUTPUT)


def _frame(kind: int, payload: bytes) -> bytes:
    return FRAME.pack(0, kind, 0, len(payload)) + payload


def _packet(agent: socket.socket, wanted: int) -> bytes:
    """The next packet of this type, without the type. Raises RuntimeError where the guest says
    that something failed."""
    for kind, payload in _frames(agent):
        if kind != ord("p"):
            continue
        if payload[0] == Tell.FAILED:
            raise RuntimeError(payload[1:].decode(errors="replace"))
        if payload[0] == wanted:
            return payload[1:]
    raise RuntimeError("the guest has gone")


def _frames(agent: socket.socket) -> Iterator[tuple[int, bytes]]:
    while head := agent.recv(FRAME.size, socket.MSG_WAITALL):
        _, kind, _, length = FRAME.unpack(head)
        yield kind, agent.recv(length, socket.MSG_WAITALL) if length else b""


def _end(machine: subprocess.Popen[bytes]) -> None:
    machine.kill()
    machine.wait()


@contextmanager
def bare_machine(lab: Lab, memory: int) -> Iterator[BareMachine]:
    """The peer, whose files go afterwards."""
    try:
        yield BareMachine(lab, memory)
    finally:
        shutil.rmtree(lab.work / "blank", ignore_errors=True)
        for name in ("blank.img", "disk.img"):
            (lab.work / name).unlink(missing_ok=True)
