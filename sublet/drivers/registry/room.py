"""A room of its own for buildah and skopeo: namespaces that end with everything in them.

buildah and its storage mount below the store (overlays, a private bind of it), start an
OCI runtime and leave both behind when they are killed. Inside mount and pid namespaces
that one process holds, its end is the end of all of them: a build that is cancelled, or
whose daemon is killed, leaves no mount and no process on the host.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from sublet.domain.errors import HostUnsupported
from sublet.drivers import run

Inside = Callable[[Sequence[str]], list[str]]

TOP = Path("/var/lib/containers")
"""Where the containers libraries keep a cache of their own, whatever they are told: it is
covered, so that the host's own engines and ours never see each other's."""


@asynccontextmanager
async def opened(binds: Mapping[str, Path]) -> AsyncIterator[Inside]:
    """A room; the value puts a command into it. Its end kills what still runs inside.

    `binds` are directories that are seen below TOP, by name: there the unprivileged root
    of a build's user namespace reaches them, whatever the modes of the directories above.
    Raises HostUnsupported.
    """
    TOP.mkdir(mode=0o755, exist_ok=True)
    # `cat` ends when the daemon does, as its standard input closes then.
    pipe = asyncio.subprocess.PIPE
    holder = await run.spawn(run.alone(["cat"]), stdin=pipe, stdout=pipe)
    try:
        await _echo(holder)
        spaces = f"/proc/{holder.pid}/ns"
        enter = ["nsenter", f"--mount={spaces}/mnt", f"--pid={spaces}/pid_for_children", "--"]

        def inside(argv: Sequence[str]) -> list[str]:
            return [*enter, *argv]

        await run.run(inside(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(TOP)]))
        for name, path in binds.items():
            bind = ["mount", "-o", "bind,X-mount.mkdir", str(path), str(TOP / name)]
            await run.run(inside(bind))
        yield inside
    finally:
        await run.end(holder)


async def _echo(holder: asyncio.subprocess.Process) -> None:
    """Wait until the namespaces stand: then `cat` runs, and gives back what it is given."""
    assert holder.stdin
    assert holder.stdout
    try:
        holder.stdin.write(b"\n")
        async with asyncio.timeout(10):
            ready = await holder.stdout.readline()
    except (TimeoutError, OSError):
        ready = b""
    if not ready:
        raise HostUnsupported("This host does not allow mount and pid namespaces.")
