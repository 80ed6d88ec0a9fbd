"""A VM without Sublet: bare QEMU, and this process as the host's side of the guest agent.

`Machine` boots a kernel of `make setup` with an image and a writable disk; its channels speak
guest/frames.h over a socket pair.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import secrets
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / ".venv/libexec/kernels"
HEADER = struct.Struct("<HBBI")
CREDIT, WORTH = 1 << 16, 1 << 14
DEADLINE = 150.0
MAC = "52:54:00:00:00:01"


class Gone(Exception):
    """The guest has closed the channel, or QEMU has ended."""


class Channel:
    """One client's connection to the guest. With `stalled`, what arrives earns no credit."""

    def __init__(self, link: Link, number: int) -> None:
        self.link, self.number = link, number
        self.stalled = False
        self.credit, self.owed = CREDIT, 0
        self.packets: queue.Queue[tuple[str, bytes] | None] = queue.Queue()
        self.shut = False

    def send(self, kind: str, data: bytes = b"") -> None:
        """One packet, when the guest has given credit for it."""
        with self.link.changed:
            enough = self.link.changed.wait_for(lambda: self.credit > len(data), DEADLINE)
            assert enough, f"no credit on channel {self.number} after {DEADLINE:g} s"
            self.credit -= len(data) + 1
        self.link.frame(self.number, "p", kind.encode() + data)

    def request(self, kind: str, items: list[str]) -> None:
        """A request of `key=value` texts, in as many packets as it takes."""
        payload = b"".join(item.encode() + b"\0" for item in items)
        for start in range(0, len(payload), 1 << 15):
            self.send(kind, payload[start : start + (1 << 15)])
        self.send(kind)

    def receive(self, within: float = DEADLINE) -> tuple[str, bytes]:
        """The next packet. Raises Gone after the last one, TimeoutError."""
        try:
            packet = self.packets.get(timeout=within)
        except queue.Empty:
            raise TimeoutError(f"channel {self.number} is silent") from None
        if packet is None:
            raise Gone(self.number)
        self._earn(len(packet[1]) + 1)
        return packet

    def _earn(self, count: int) -> None:
        self.owed += count
        if not self.stalled and self.owed >= WORTH:
            owed, self.owed = self.owed, 0
            self.link.frame(self.number, "c", struct.pack("<I", owed))

    def go_on(self) -> None:
        """Give the credit that was held back."""
        self.stalled = False
        self._earn(0)

    def expect(self, kind: str) -> bytes:
        got, data = self.receive()
        assert got == kind, f"{got} {data!r} instead of {kind}"
        return data

    def collect(self, within: float = DEADLINE) -> tuple[int, bytes, bytes]:
        """Everything up to the end: exit code, output, errors."""
        streams = {"o": bytearray(), "r": bytearray()}
        end = time.monotonic() + within
        while True:
            kind, data = self.receive(max(0.01, end - time.monotonic()))
            if kind == "x":
                return struct.unpack("<i", data)[0], bytes(streams["o"]), bytes(streams["r"])
            streams[kind] += data

    def until(self, text: bytes, within: float = DEADLINE) -> bytes:
        """What it writes up to and with `text`."""
        seen, end = b"", time.monotonic() + within
        while text not in seen:
            kind, data = self.receive(max(0.01, end - time.monotonic()))
            assert kind in "or", f"{kind} {data!r} after {seen!r}"
            seen += data
        return seen

    def close(self) -> None:
        self.link.frame(self.number, "x")


class Link:
    """The host's end of the port: frames to channels, in a thread of its own."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        self.changed = threading.Condition()
        self.writing = threading.Lock()
        self.channels = {0: Channel(self, 0)}
        self.next = 1
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def open(self) -> Channel:
        channel = Channel(self, self.next)
        self.next += 1
        self.channels[channel.number] = channel
        self.frame(channel.number, "n")
        return channel

    def frame(self, number: int, kind: str, data: bytes = b"") -> None:
        with self.writing:
            self.end.sendall(HEADER.pack(number, ord(kind), 0, len(data)) + data)

    def leave(self) -> None:
        """Close the host's end."""
        with contextlib.suppress(OSError):
            self.end.shutdown(socket.SHUT_RDWR)
        self.thread.join(5)
        self.end.close()

    def _read(self) -> None:
        with self.end.makefile("rb") as stream, contextlib.suppress(OSError):
            while head := stream.read(HEADER.size):
                number, kind, zero, length = HEADER.unpack(head)
                assert (zero, length <= (1 << 15) + 1) == (0, True), head
                self._take(self.channels[number], chr(kind), stream.read(length))
        for channel in self.channels.values():
            channel.packets.put(None)

    def _take(self, channel: Channel, kind: str, data: bytes) -> None:
        if kind == "p":
            channel.packets.put((chr(data[0]), data[1:]))
        elif kind == "c":
            with self.changed:
                channel.credit += struct.unpack("<I", data)[0]
                self.changed.notify_all()
        elif kind == "x":
            channel.shut = True
            channel.packets.put(None)
        else:
            raise AssertionError(f"a frame of kind {kind}")


@dataclass
class Machine:
    """One VM in `directory`, of the disks there; `resumed`: from the memory image there."""

    directory: Path
    disks: tuple[tuple[str, Path, bool], ...]  # serial, file, read only
    nics: int = 1
    memory: int = 192 << 20
    resumed: Path | None = None
    process: subprocess.Popen[bytes] = field(init=False)
    link: Link = field(init=False)
    _qmp: Any = None

    def __enter__(self) -> Machine:
        self.directory.mkdir(exist_ok=True)
        self.memory_file = self.directory / "memory"
        incoming: list[int] = []
        if self.resumed:
            shutil.copyfile(self.resumed / "memory", self.memory_file)
            incoming = [os.open(self.resumed / "devices", os.O_RDONLY)]
        ours, theirs = socket.socketpair()
        with theirs:
            fds = [theirs.fileno(), *incoming]
            self.process = subprocess.Popen(self._argv(*fds), pass_fds=fds)
        for fd in incoming:
            os.close(fd)
        self.link = Link(ours)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        if self._qmp:
            self._qmp.close()
        self.link.leave()

    def _argv(self, agent: int, incoming: int = -1) -> list[str]:
        kernel = newest_kernel()
        shape = "q35,accel=tcg,memory-backend=ram,graphics=off,usb=off,smbus=off,sata=off"
        argv = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"]
        argv += ["-machine", shape + ",suppress-vmdesc=on", "-cpu", "max", "-smp", "1"]
        argv += ["-m", f"{self.memory >> 20}M", "-action", "panic=exit-failure"]
        argv += ["-global", "migration.send-configuration=off"]
        argv += ["-global", "migration.store-global-state=off"]
        memory = f"id=ram,mem-path={self.memory_file},size={self.memory},share=on"
        argv += ["-object", f"memory-backend-file,{memory}"]
        argv += ["-kernel", str(kernel / "vmlinuz"), "-initrd", str(kernel / "initramfs")]
        argv += ["-append", "console=ttyS0 quiet panic=0 tsc=reliable no_timer_check net.ifnames=0"]
        argv += ["-serial", f"file:{self.directory}/console"]
        argv += ["-qmp", f"unix:{self.directory}/qmp,server=on,wait=off"]
        argv += ["-device", "virtio-rng-pci", "-device", "virtio-serial-pci,max_ports=2"]
        argv += ["-chardev", f"socket,id=agent,fd={agent}"]
        argv += ["-device", "virtserialport,chardev=agent,name=sublet.agent"]
        for number in range(self.nics):
            argv += ["-netdev", f"hubport,id=n{number},hubid=0"]
            argv += ["-device", f"virtio-net-pci,netdev=n{number},mac={MAC},romfile="]
        for serial, file, read_only in self.disks:
            options = f"file={file},format=raw,if=none,id={serial},read-only="
            argv += ["-drive", options + ("on" if read_only else "off")]
            argv += ["-device", f"virtio-blk-pci,drive={serial},serial={serial}"]
        argv += ["-device", "pvpanic-pci"]
        return argv + (["-incoming", f"fd:{incoming}"] if incoming >= 0 else [])

    def ready(self) -> str:
        """Wait until the guest has booted; what it says of itself."""
        try:
            text = self.link.channels[0].expect("R").decode()
        except (TimeoutError, Gone) as error:
            raise AssertionError(f"it did not boot: {self.console()[-4000:]}") from error
        self.link.frame(0, "s", text.partition("sync=")[2].encode())
        return text

    def configure(self, *items: str, mode: str = "app") -> Channel:
        """Make it an instance; the channel that asked for it."""
        channel = self.link.open()
        now = time.time_ns()
        given = {item.partition("=")[0] for item in items}
        usual = {
            "mode": mode,
            "hostname": "guest",
            "entropy": secrets.token_hex(64),
            "time": f"{now // 10**9}.{now % 10**9:09}",
            "env": "PATH=/bin:/usr/bin",
        }
        settled = [f"{key}={value}" for key, value in usual.items() if key not in given]
        channel.request("C", [*settled, *items])
        return channel

    def execute(self, *argv: str, extra: tuple[str, ...] = ()) -> Channel:
        """Start a process; raises AssertionError with the guest's words where it does not."""
        channel = self.link.open()
        items = [f"arg={each}" for each in argv]
        channel.request("e", [*items, "env=PATH=/bin:/usr/bin", *extra])
        channel.expect("s")
        return channel

    def run(self, *argv: str, extra: tuple[str, ...] = ()) -> str:
        """The output of a command that succeeds."""
        channel = self.execute(*argv, extra=extra)
        channel.send("c")
        code, out, err = channel.collect()
        channel.close()
        assert code == 0, f"{argv}: {code}, {err.decode()}"
        return out.decode()

    def silence(self, *items: str) -> None:
        """Have the guest say nothing until GO or RENEW."""
        channel = self.link.open()
        channel.send("Q", b"".join(item.encode() + b"\0" for item in items))
        channel.expect("d")

    def renew(self, *items: str) -> None:
        """Tell a restored guest who it is now."""
        channel = self.link.open()
        now = time.time_ns()
        usual = [f"entropy={secrets.token_hex(64)}", f"time={now // 10**9}.{now % 10**9:09}"]
        channel.request("N", [*usual, *items])
        channel.expect("d")

    def console(self) -> str:
        return (self.directory / "console").read_text(errors="replace")

    def qmp(self, command: str, **arguments: object) -> Any:
        if self._qmp is None:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(DEADLINE)
            connection.connect(str(self.directory / "qmp"))
            with connection:
                self._qmp = connection.makefile("rw")
            self._qmp.readline()
            self.qmp("qmp_capabilities")
        self._qmp.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._qmp.flush()
        while True:
            answer = json.loads(self._qmp.readline())
            assert "error" not in answer, answer
            if "return" in answer:
                return answer["return"]

    def save(self, target: Path) -> None:
        """Leave a memory image; the machine stands still afterwards."""
        target.mkdir()
        self.qmp("stop")
        self.qmp("xen-save-devices-state", filename=str(target / "devices"))
        subprocess.run(
            ["cp", "--sparse=always", self.memory_file, target / "memory"], check=True, timeout=60
        )


def newest_kernel() -> Path:
    found = [each for each in KERNELS.iterdir() if (each / "initramfs").exists()]
    assert found, "no kernel for VMs: run make setup"
    return max(found, key=lambda each: each.stat().st_mtime)


def make_image(directory: Path) -> Path:
    """A small image: busybox, a shell, passwd, and a few commands for tests."""
    tree = directory / "tree"
    for name in ("bin", "etc", "root", "tmp", "proc", "sys", "dev", "usr/bin"):
        (tree / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", tree / "bin/busybox")
    for name in ("sh", "cat", "echo", "sleep", "stty", "head", "od", "ls", "id", "ps", "mount"):
        (tree / "bin" / name).symlink_to("busybox")
    (tree / "sbin").mkdir()
    (tree / "sbin/init").symlink_to("../bin/busybox")
    (tree / "etc/machine-id").touch()
    (tree / "srv/data").mkdir(parents=True)
    (tree / "srv/data/given").write_text("by the image\n")
    (tree / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nweb:x:33:33::/tmp:/bin/sh\n")
    (tree / "etc/group").write_text("root:x:0:\nweb:x:33:\nmedia:x:44:web\n")
    tree.chmod(0o751)
    file = directory / "image.squashfs"
    argv = ["mksquashfs", tree, file, "-comp", "zstd", "-all-root", "-quiet", "-no-progress"]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)
    return file


def make_disk(file: Path, *directories: str, size: int = 64 << 20) -> Path:
    """An ext4 file system with these directories in it."""
    with file.open("wb") as made:
        made.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-F", file], check=True)
    for name in directories:
        argv = ["debugfs", "-w", "-R", f"mkdir {name}", file]
        subprocess.run(argv, check=True, timeout=60, stderr=subprocess.DEVNULL)
    return file


@contextlib.contextmanager
def machine(
    directory: Path,
    image: Path | None,
    *volumes: tuple[str, Path, bool],
    disk: Path | None = None,
    resumed: Path | None = None,
) -> Iterator[Machine]:
    """A booted machine that waits to become an instance, or one that goes on from memory.

    Its writable disk is made in `directory`, unless it is given.
    """
    directory.mkdir(exist_ok=True)
    disk = disk or make_disk(directory / "disk.img")
    modules = newest_kernel() / "modules.squashfs"
    disks = [("modules", modules, True), ("disk", disk, False), *volumes]
    if image:
        disks.insert(0, ("image", image, True))
    with Machine(directory, tuple(disks), resumed=resumed) as made:
        if not resumed:
            made.ready()
        yield made
