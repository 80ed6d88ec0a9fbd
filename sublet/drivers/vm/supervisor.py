"""The supervisor of one machine (`machine/`), started: from QEMU's first moment to its guest's.

What is said on the first connection depends on where the guest comes from. One that boots, and
one from a template, is READY, takes its CONFIGURE, and has STARTED then; one that goes on where
it was has STARTED at once, and takes a RENEW.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sublet.domain.errors import StartFailed, WrongState
from sublet.domain.spec import LogConfig
from sublet.drivers import run
from sublet.drivers.cgroup import Entrances
from sublet.drivers.container import protocol
from sublet.drivers.container.protocol import Ask, Tell
from sublet.drivers.vm import messages
from sublet.drivers.vm.messages import ENTROPY, Guest, Hear, Identity, Say
from sublet.drivers.vm.qemu import FIRST
from sublet.drivers.vm.saving import MACHINE
from sublet.drivers.vm.streams import NeverReady, answer, say

BOOT_DEADLINE = 120
"""Seconds that a guest has to boot: two without KVM, and many may boot at once."""

RESUME_DEADLINE = 60.0
CONFIGURE_DEADLINE = 600.0
"""To mount and, for the first time, fill the volumes takes as long as the image is large."""

END_DEADLINE = 15.0


@dataclass(frozen=True, slots=True)
class Supervision:
    """What the supervisor needs for one machine; `restored`: its memory is not empty, `runs`: and
    in it runs its main process already. `console`: its output is what the console prints."""

    directory: Path
    log_file: Path
    log: LogConfig
    own_cgroups: Entrances
    cgroups: Entrances
    uid: int
    kvm: bool
    console: bool
    restored: bool
    runs: bool


def supervisor_argv(spec: Supervision, descriptors: int, qemu: list[str]) -> list[str]:
    """The supervisor's command line; `descriptors`: how many of QEMU's follow the connection."""
    argv = [str(MACHINE), f"--directory={spec.directory}", f"--uid={spec.uid}"]
    if spec.log.driver != "none":
        argv += [f"--log={spec.log_file}", f"--log-size={spec.log.max_size}"]
        argv.append(f"--log-files={spec.log.max_files}")
    argv += spec.cgroups.options(spec.own_cgroups)
    argv += ["--kvm"] if spec.kvm else []
    argv += ["--console-output"] if spec.console else []
    if spec.restored:
        argv.append("--resumed" if spec.runs else "--ready")
    else:
        argv.append(f"--deadline={BOOT_DEADLINE}")
    return [*argv, *(f"--fd={FIRST + n}" for n in range(descriptors)), "--", *qemu]


class Start:
    """A start under way: `pid` and `supervisor` when they are known."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.pid = self.supervisor = 0

    @classmethod
    def begin(cls, spec: Supervision, descriptors: Sequence[int], qemu: list[str]) -> Start:
        """Launch the supervisor, and that QEMU."""
        ours, theirs = protocol.pair()
        with theirs:
            argv = supervisor_argv(spec, len(descriptors), qemu)
            pid = run.launch(argv, descriptors=(theirs.fileno(), *descriptors))
        run.reap_later(pid)
        return cls(ours)

    async def ready(self) -> None:
        """The guest has booted. Raises StartFailed with the end of the console."""
        await self._hear(Hear.READY, BOOT_DEADLINE + END_DEADLINE, "boot")

    async def quiesce(self) -> None:
        """The guest has taken what it was told, and waits."""
        await say(self.connection, [bytes([Say.QUIESCE]) + messages.quiesce(freeze=False)])
        await self._hear(Hear.DONE, RESUME_DEADLINE, "fall silent")

    async def go_on(self) -> None:
        """It waits no more."""
        await say(self.connection, [bytes([Say.GO])])

    async def configure(self, guest: Guest, *, attach: bool) -> None:
        """The guest runs its command. Raises CommandNotFound, CommandNotExecutable and StartFailed
        with the reason that the guest tells."""
        if attach:
            await say(self.connection, [protocol.packet(Ask.ATTACH)])
        await self._say(Say.CONFIGURE, messages.configure(guest, entropy(), time.time()))
        await self.started(CONFIGURE_DEADLINE)

    async def started(self, deadline: float = RESUME_DEADLINE) -> None:
        """Whatever runs in the machine runs, for all that the supervisor knows."""
        message = await self._hear(Tell.STARTED, deadline, "start")
        self.pid, self.supervisor = message.numbers

    async def renew(self, guest: Guest, identity: Identity | None, *, fork: bool) -> None:
        """The guest goes on, with new randomness and the time. `guest` is for the supervisor, which
        tells it again when the guest reboots."""
        await self._say(Say.CONFIGURE, messages.configure(guest, b"", time.time()))
        renewal = messages.renew(entropy(), time.time(), identity, fork=fork)
        await self._say(Say.RENEW, renewal)
        await self._hear(Hear.DONE, RESUME_DEADLINE, "resume")

    async def _say(self, kind: Say, payload: bytes) -> None:
        try:
            async with asyncio.timeout(RESUME_DEADLINE):
                await say(self.connection, messages.packets(kind, payload))
        except ConnectionError:
            pass  # why it has ended is the next that is heard
        except TimeoutError as error:
            raise StartFailed("The machine does not take its settings.") from error

    async def _hear(self, kind: int, deadline: float, what: str) -> protocol.Message:
        """The answer of that kind; output before it was the kernel's."""
        end = time.monotonic() + deadline
        while True:
            try:
                message = await answer(self.connection, end - time.monotonic(), what)
            except WrongState as error:
                raise NeverReady("The machine's supervisor has ended.") from error
            if message.kind == kind:
                return message

    async def undo(self) -> None:
        """Nothing of the machine runs when this returns, or soon after; closes the connection."""
        with contextlib.closing(self.connection), contextlib.suppress(TimeoutError, OSError):
            if self.pid:  # the supervisor does not take it back any more
                os.kill(self.pid, signal.SIGKILL)
            self.connection.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(END_DEADLINE):
                while await protocol.receive(self.connection):
                    pass


def entropy() -> bytes:
    """Random bytes for one guest, once."""
    return secrets.token_bytes(ENTROPY)
