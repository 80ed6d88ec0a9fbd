"""Whether this host runs guests on its CPU (KVM) or translates them (TCG): decided by a boot.

/dev/kvm may be there, open and make VMs, and a stock kernel never gets past its first
instructions all the same; no ioctl tells. So a tiny guest is booted once, shut in as all are, and
has a deadline to say that it is ready. The answer is remembered in `ROOT/acceleration.json` until
the host's kernel, its CPU or QEMU is another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import shutil
import signal
import socket
import tempfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sublet.domain.errors import SubletError, ToolMissing
from sublet.drivers import run
from sublet.drivers.confine import NOBODY
from sublet.drivers.container import protocol
from sublet.drivers.descriptors import closing, opened, ready
from sublet.drivers.vm import qemu as qemu_argv
from sublet.drivers.vm.kernels import Kernel
from sublet.drivers.vm.messages import Hear
from sublet.drivers.vm.saving import MACHINE

log = logging.getLogger(__name__)

DEADLINE = 5
"""Seconds that the guest has; with KVM it takes one."""

END_DEADLINE = 5.0

DEVICE = Path("/dev/kvm")

_MEMORY = 192
"""MiB of the guest that tries."""

_versions: dict[tuple[str, int, int], str] = {}
"""What the QEMU of a file said: to ask takes 30 ms, a tenth of a start."""


class Kind(StrEnum):
    """What executes a guest's instructions."""

    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, slots=True)
class Acceleration:
    """What was decided, and why, in a sentence."""

    kind: Kind
    reason: str


@dataclass(frozen=True, slots=True)
class Host:
    """What the answer depends on."""

    kernel: str
    qemu: str
    cpu: str

    @property
    def name(self) -> str:
        """For what must not change hosts: under KVM the guest has seen the CPU."""
        return f"kvm {self.cpu}"


class Probe:
    """Decides once; `root` is where the answer is kept. `wanted`: the owner's own decision, or
    `auto`."""

    def __init__(self, root: Path, wanted: str = "auto") -> None:
        self._wanted = wanted
        self._file = root / "acceleration.json"
        self._deciding = asyncio.Lock()
        self.known: Acceleration | None = None
        """The answer, when there is one."""

    async def decide(self, kernel: Kernel) -> Acceleration:
        """The answer, by booting `kernel` if need be. Raises ToolMissing without QEMU."""
        async with self._deciding:
            if self.known is None:
                self.known = await self._decide(kernel)
                log.info("guests run on %s: %s", self.known.kind, self.known.reason)
            return self.known

    async def _decide(self, kernel: Kernel) -> Acceleration:
        if self._wanted != "auto":
            return Acceleration(Kind(self._wanted), "The setting `acceleration` says so.")
        problem = _closed(DEVICE)
        if problem:
            return Acceleration(Kind.TCG, problem)
        host = await this_host()
        remembered = self._remembered(host)
        if remembered is None:
            remembered = await boot(kernel)
            self._remember(host, remembered)
        return remembered

    def _remembered(self, host: Host) -> Acceleration | None:
        try:
            data = json.loads(self._file.read_bytes())
            if data["host"] == dataclasses.asdict(host):
                return Acceleration(Kind(data["kind"]), str(data["reason"]))
        except (OSError, ValueError, TypeError, KeyError):
            pass
        return None

    def _remember(self, host: Host, answer: Acceleration) -> None:
        partial = self._file.with_suffix(".partial")
        data = {**dataclasses.asdict(answer), "host": dataclasses.asdict(host)}
        with partial.open("w") as file:
            json.dump(data, file)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(self._file)


async def this_host() -> Host:
    """The host as it is now. Raises ToolMissing without QEMU."""
    return Host(os.uname().release, await version(), cpu())


def program() -> str:
    """The path of the QEMU for this host's architecture. Raises ToolMissing."""
    name = f"qemu-system-{os.uname().machine}"
    found = shutil.which(name)
    if not found:
        raise ToolMissing(f"{name} is not installed on this host.")
    return found


async def version() -> str:
    """QEMU's version, as it says itself, packaging included. Raises ToolMissing."""
    file = program()
    status = os.stat(file)
    stamp = (file, status.st_ino, status.st_mtime_ns)
    if stamp not in _versions:
        said = (await run.run([file, "--version"])).stdout.decode(errors="replace")
        _versions.clear()
        _versions[stamp] = said.partition("\n")[0].removeprefix("QEMU emulator version ").strip()
    return _versions[stamp]


def cpu() -> str:
    """The model of the host's CPU (/proc/cpuinfo)."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "CPU part"):
            return value.strip()
    return os.uname().machine


def _closed(device: Path) -> str:
    """Why nobody needs to try, or nothing."""
    try:
        with opened(device, os.O_RDWR):
            return ""
    except FileNotFoundError:
        return f"There is no {device}: the CPU or the machine's settings do not offer it."
    except OSError as error:
        return f"{device} cannot be opened: {error.strerror}."


def arguments(qemu: str, kind: Kind) -> list[str]:
    """QEMU's command line for the guest that tries: descriptors 4, 5 and 6 are the kernel, the
    initramfs and the modules. Pure."""
    cpu = "host" if kind is Kind.KVM else "max"
    machine = "q35" if qemu.endswith("x86_64") else "virt"
    return [
        *(qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", f"{machine},accel={kind}", "-cpu", cpu, "-smp", "1", "-m", str(_MEMORY)),
        *("-kernel", "/proc/self/fd/4", "-initrd", "/proc/self/fd/5"),
        *("-append", f"console={'ttyS0' if machine == 'q35' else 'ttyAMA0'} panic=-1"),
        *qemu_argv.channels(),
        *("-blockdev", "driver=file,node-name=modules,filename=/proc/self/fd/6,read-only=on"),
        *("-device", "virtio-blk-pci,drive=modules,serial=modules"),
        *qemu_argv.sandbox(),
    ]


async def boot(kernel: Kernel) -> Acceleration:
    """Boot it under KVM and see. Whatever happens, no QEMU is left."""
    try:
        said = await attempt(kernel, Kind.KVM, DEADLINE)
    except SubletError as error:
        return Acceleration(Kind.TCG, f"KVM could not be tried: {error.message}")
    if said is None:
        return Acceleration(Kind.KVM, "A guest has booted on it.")
    return Acceleration(
        Kind.TCG, f"{DEVICE} is there, but a guest does not boot on it: {why(said)}"
    )


def why(said: str) -> str:
    """The first line of what a supervisor said of a guest that did not boot, as a sentence's end.

    >>> why("The machine's agent was not ready in time.")
    'it was not ready within 5 s.'
    """
    line = said.strip().partition("\n")[0].strip().rstrip(".")
    if "in time" in line:
        return f"it was not ready within {DEADLINE} s."
    return f"{line[:200]}."


async def attempt(kernel: Kernel, kind: Kind, deadline: int) -> str | None:
    """None when a guest says that it is ready within that many seconds; else why it does not.

    Raises ToolMissing.
    """
    argv = arguments(program(), kind)
    ours, theirs = protocol.pair()
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="sublet-probe-"))
        stack.enter_context(theirs)
        stack.enter_context(ours)
        files = [kernel.vmlinuz, kernel.initramfs, kernel.modules]
        passed = [stack.enter_context(opened(file)) for file in files]
        options = [f"--directory={directory}", f"--uid={NOBODY}", f"--deadline={deadline}"]
        options += ["--kvm"] if kind is Kind.KVM else []
        options += [f"--fd={4 + number}" for number in range(len(passed))]
        pid = run.launch([str(MACHINE), *options, "--", *argv], [theirs.fileno(), *passed])
        theirs.close()
        try:
            return await _answer(ours, deadline + END_DEADLINE)
        finally:
            ours.close()  # the machine's supervisor takes the start back
            await asyncio.shield(_ended(pid))


async def _answer(connection: socket.socket, deadline: float) -> str | None:
    try:
        async with asyncio.timeout(deadline):
            message = await protocol.receive(connection)
    except TimeoutError:
        return "its supervisor did not answer"
    if message is None:
        return "its supervisor ended"
    return None if message.kind == Hear.READY else message.data.decode(errors="replace")


async def _ended(pid: int) -> None:
    """Wait for the supervisor's end, and bring it about where it does not come."""
    with closing(os.pidfd_open(pid)) as fd:
        try:
            async with asyncio.timeout(END_DEADLINE):
                await ready(fd)
        except TimeoutError:
            signal.pidfd_send_signal(fd, signal.SIGKILL)  # its QEMU dies with it
            await ready(fd)
    run.reap(pid)
