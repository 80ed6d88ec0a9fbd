"""A machine that is given more virtual CPUs and memory while it runs.

QEMU plugs them in; the guest's kernel finds them by ACPI, and takes memory by itself. A program of
ours in the guest (`guest/online.c`) begins before that, brings the new CPUs on line, and ends when
all is there: so a guest whose agent does not answer is given nothing that it would not take.
Nothing is taken out again: that needs the guest's consent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from sublet.domain.errors import ProcessFailed, StartFailed, SubletError, WrongState
from sublet.domain.machine import (
    MEMORY_BLOCK,
    MEMORY_SLOTS,
    MODULES,
    MOST_VCPUS,
    Room,
    modules,
    most_memory,
)
from sublet.drivers import trace
from sublet.drivers.vm import channel
from sublet.drivers.vm.messages import Command
from sublet.drivers.vm.qmp import Monitor, monitor
from sublet.drivers.vm.tool import Tool

ANSWER = 10.0
"""Seconds that a guest may take to say that it is there, before anything is plugged in."""

TAKES = 30.0
"""Seconds that it may take to have it: without KVM a CPU needs about half of one."""


REGION = 2 << 20
"""Bytes of translated code that TCG gives to a virtual CPU at a time."""

SPARE = 2
"""Regions that others may take in the moment in which a CPU is plugged in."""


PASSES, PIECES = 24, 16384
"""How often a guest is asked to have so many pieces of code translated: a pass takes 5 MB."""


class Silent(StartFailed):
    """The guest's agent does not answer, or does not help: nothing was plugged in."""


async def room(directory: Path) -> Room:
    """What the machine has, and could be given. Raises WrongState, ProcessFailed."""
    async with monitor(directory) as machine:
        return await _room(machine)


async def check_as_booted(machine: Monitor, vcpus: int) -> None:
    """Raises WrongState where the machine has more than the memory and `vcpus` that it has booted
    with: what it remembers would not go on in one that is started anew."""
    present, _ = await machine.vcpus()
    _, plugged = await machine.memory()
    if plugged or present != vcpus:
        raise WrongState(
            "It was given CPUs or memory while it ran: until it starts again, its memory cannot "
            "be kept.",
            hint="`sublet restart` it first; a snapshot without --memory needs none.",
        )


async def grow(directory: Path, vcpus: int, memory: int) -> bool:
    """Give the machine what it lacks of that many virtual CPUs and bytes; whether its guest has
    taken all of it. Raises Silent, and WrongState or ProcessFailed where QEMU does not give it:
    `room` tells what of it was plugged in, the memory first."""
    has = await room(directory)
    blocks = max(0, memory - has.memory) // MEMORY_BLOCK
    more = max(0, vcpus - has.vcpus)
    if not (more or blocks):
        return True
    await _make_room(directory, more)
    async with _watched(directory, more, blocks) as taken:
        with trace.step("plug"):
            async with monitor(directory) as machine:
                await _plug(machine, blocks, vcpus)
        with trace.step("taken"):
            return await taken()


async def _room(machine: Monitor) -> Room:
    present, free = await machine.vcpus()
    base, plugged = await machine.memory()
    has = base + sum(plugged)
    most = most_memory(base) if len(plugged) + MODULES <= MEMORY_SLOTS else has
    return Room(present, present + len(free), has, most)


async def _startable(machine: Monitor, present: int) -> int:
    """How many more virtual CPUs can start now. Each takes a region of translated code as its
    first act, and TCG ends with a failed assertion where all are taken, as it drops them only
    when a CPU that runs needs another (`tcg_region_initial_alloc` of QEMU)."""
    code = await machine.code()
    if code is None:
        return MOST_VCPUS
    used, capacity = code
    taken = used // (REGION - REGION // 32) + 1 + present
    return max(0, -(-capacity // REGION) - taken - SPARE)


async def _make_room(directory: Path, vcpus: int) -> None:
    """Let so many more virtual CPUs be startable. Nothing tells TCG to drop its code but a guest
    that has it translate more than there is room for. Raises Silent."""
    for _ in range(PASSES if vcpus else 0):
        async with monitor(directory) as machine:
            present, _ = await machine.vcpus()
            if await _startable(machine, present) >= vcpus:
                return
        with trace.step("translate"):
            await _translate(directory)
    if vcpus:
        raise Silent("The guest leaves no room for the code of more CPUs.")


async def _translate(directory: Path) -> None:
    command = Command(("translate", str(PIECES)), tool=True)
    try:
        async with asyncio.timeout(ANSWER):
            tool = Tool(await channel.execute(directory, command))
    except (SubletError, TimeoutError) as error:
        raise Silent("The guest does not answer.") from error
    try:
        async for _ in tool.output(ANSWER):
            pass
    except SubletError as error:
        raise Silent("The guest does not answer.") from error
    finally:
        await asyncio.shield(tool.close(tidy=False))


async def _plug(machine: Monitor, blocks: int, vcpus: int) -> None:
    _, plugged = await machine.memory()
    for number, size in enumerate(modules(blocks * MEMORY_BLOCK), len(plugged)):
        await machine.plug_memory(number, size)
    present, free = await machine.vcpus()
    for number, slot in enumerate(free[: max(0, vcpus - present)], present):
        if not await _startable(machine, number):
            raise ProcessFailed("QEMU has no room for the code of another CPU now; try again.")
        await machine.plug_vcpu(slot)


@asynccontextmanager
async def _watched(
    directory: Path, vcpus: int, blocks: int
) -> AsyncIterator[Callable[[], Awaitable[bool]]]:
    """The program in the guest knows what is there, and waits for that many more; in the block,
    whether all came."""
    argv = ("online", str(vcpus), str(blocks), str(round(TAKES * 1000)))
    try:
        async with asyncio.timeout(ANSWER):
            tool = Tool(await channel.execute(directory, Command(argv, tool=True)))
    except (SubletError, TimeoutError) as error:
        raise Silent("The guest does not answer.") from error
    try:
        async with aclosing(tool.output(TAKES + ANSWER)) as words:
            try:
                async with asyncio.timeout(ANSWER):
                    await anext(words)
            except (SubletError, TimeoutError, StopAsyncIteration) as error:
                raise Silent("The guest does not answer.") from error
            yield lambda: _ends_well(words)
    finally:
        await asyncio.shield(tool.close(tidy=False))


async def _ends_well(words: AsyncIterator[bytes]) -> bool:
    try:
        async for _ in words:
            pass
    except WrongState:  # the machine has ended
        raise
    except SubletError:
        return False
    return True
