"""What an instance is told of a notice, where it asked for that: a signal, a command."""

from __future__ import annotations

import asyncio
import logging

from sublet.domain.errors import SubletError
from sublet.domain.instance import Instance, State
from sublet.domain.signals import signal_number
from sublet.domain.spec import ExecSpec
from sublet.domain.spot import Spot
from sublet.engine import ending, inside
from sublet.engine.lifecycle import Lifecycle

log = logging.getLogger(__name__)


async def send(lifecycle: Lifecycle, instance: Instance, spot: Spot) -> bool:
    """Send the signal that was asked for; whether there was one, and it was sent."""
    if not spot.notice_signal:
        return False
    try:
        await ending.send(lifecycle, instance, signal_number(spot.notice_signal))
    except (SubletError, OSError) as error:
        log.warning("%s was not sent to %s: %s", spot.notice_signal, instance.name, error)
        return False
    return True


async def execute(
    lifecycle: Lifecycle, instance: Instance, spot: Spot, seconds: float
) -> int | None:
    """Run the command that was asked for, for as long as the notice; its exit code, None where
    there is none: no command, or not within the time."""
    if not spot.notice_exec or instance.state is not State.RUNNING:
        return None
    code: int | None = None
    try:
        async with asyncio.timeout(seconds):
            code = await _run(lifecycle, instance, ExecSpec(spot.notice_exec))
    except (SubletError, OSError) as error:
        log.warning("the notice's command of %s did not run: %s", instance.name, error)
        code = getattr(error, "exit_code", 1)
    except TimeoutError:
        log.warning("the notice's command of %s did not end in time", instance.name)
    ended = {} if code is None else {"exit_code": str(code)}
    lifecycle.tell("notice-exec", instance, **ended)
    return code


async def _run(lifecycle: Lifecycle, instance: Instance, spec: ExecSpec) -> int:
    async def drop(stream: int, data: bytes) -> None:
        pass

    execution = await inside.execute(lifecycle, instance, spec)
    try:
        await execution.streams.close_input()
        await execution.streams.pump(drop)
        return await execution.wait()
    finally:
        execution.close()
