"""A container's file system as a tar stream."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable

from sublet.drivers import linux, run
from sublet.drivers.container.containers import Places

_CHUNK = 1 << 18
_TAR = ["tar", "--create", "--file=-", "--numeric-owner", "--xattrs", "--xattrs-include=*"]


@contextlib.asynccontextmanager
async def packed(at: Places) -> AsyncIterator[AsyncIterator[bytes]]:
    """GNU tar of the mounted root, run as the container's root.

    In the container's user namespace tar sees the ids that the container sees, and can
    read nothing outside that any unprivileged user could not.
    """
    process = await run.spawn(
        [*_TAR, "--sparse", "--warning=no-file-changed", "--warning=no-file-ignored", "."],
        before_exec=_as_inner_root(at),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield _stream(process)
    finally:
        await run.end(process)


def _as_inner_root(at: Places) -> Callable[[], None]:
    def enter() -> None:
        user = os.open(at.user_namespace, os.O_RDONLY)
        os.chdir(at.rootfs)
        linux.setns(user, linux.CLONE_NEWUSER)
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)

    return enter


async def _stream(process: asyncio.subprocess.Process) -> AsyncIterator[bytes]:
    """tar's output; its failure is raised at the end, 1 means that files changed meanwhile."""
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.TaskGroup() as group:
        complaint = group.create_task(process.stderr.read())
        while chunk := await process.stdout.read(_CHUNK):
            yield chunk
    code = await process.wait()
    if code not in (0, 1):
        text = complaint.result().decode(errors="replace")
        raise run.failure(_TAR, run.Result(code, b"", text))
