"""The tools that agents are given. Their docstrings are what the model reads."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations

from sublet.domain.agents import Policy, ttl_of
from sublet.domain.errors import SubletError
from sublet.mcp import answers
from sublet.mcp.sandboxes import Sandboxes
from sublet.sdk.sandbox_results import CommandTimeout, PythonResult, PythonTimeout, Result

OUTPUT = 64 << 10
"""Bytes of each stream of a command that a model is given."""

FILE = 256 << 10
"""Bytes of a file that a model is given."""

WRITTEN = 16 << 20
"""Characters of a file that a model may write at once."""

NAMES = 2000
"""Entries of a directory that a model is given."""

LONGEST = 3600.0
"""Seconds that a command may take at most."""

BEAT = 2.0
"""Seconds between two notes of progress: clients that hear nothing give up."""

READS = ToolAnnotations(read_only_hint=True)
ADDS = ToolAnnotations(destructive_hint=False)
ENDS = ToolAnnotations(destructive_hint=True, idempotent_hint=True)


class Tools:
    """The tools of one server."""

    def __init__(self, boxes: Sandboxes, policy: Policy) -> None:
        self._boxes, self._policy = boxes, policy

    def add_to(self, server: MCPServer) -> None:
        """Offer them all."""
        for tool, hints in (
            (self.create_sandbox, ADDS),
            (self.list_sandboxes, READS),
            (self.exec, ToolAnnotations()),
            (self.run_python, ToolAnnotations()),
            (self.read_file, READS),
            (self.write_file, ToolAnnotations()),
            (self.list_files, READS),
            (self.snapshot, ADDS),
            (self.rollback, ToolAnnotations()),
            (self.fork, ADDS),
            (self.expose_port, READS),
            (self.extend_sandbox, ADDS),
            (self.destroy_sandbox, ENDS),
        ):
            server.add_tool(_told(tool), annotations=hints)

    async def create_sandbox(
        self,
        ctx: Context,
        image: str = "",
        isolation: str = "",
        size: str = "",
        ttl: str = "",
        network: list[str] | None = None,
        name: str = "",
        env: dict[str, str] | None = None,
    ) -> answers.Sandbox:
        """Make a new sandbox: a clean Linux machine that is deleted when its time is up. Say what
        it needs, or nothing: each value has a default.

        image: debian:bookworm, python:3.11, node:18, postgres:15 and others.
        isolation: container (starts at once, shares the host's kernel) or vm (a kernel of its own).
        size: vCPUs x GiB of memory, such as 1x0.5 or 2x4. ttl: 30m, 2h.
        network: ["none"], ["internet"], or names it may reach: ["pypi.org", "*.debian.org"].
        Answers with its id, which the other tools take as `sandbox`.
        """
        asked = {"image": image, "isolation": isolation, "size": size, "ttl": ttl}
        async with _beating(ctx) as progress:
            return await self._boxes.create(
                progress, name, env or {}, **asked, network=network or ()
            )

    async def list_sandboxes(self) -> list[answers.Sandbox]:
        """List the sandboxes that are there."""
        return await self._boxes.all()

    async def exec(
        self,
        ctx: Context,
        sandbox: str,
        command: str,
        cwd: str = "",
        env: dict[str, str] | None = None,
        user: str = "",
        input: str = "",
        timeout: float = 60.0,
    ) -> answers.Ended:
        """Run a shell command in a sandbox to its end, as root unless `user` says otherwise.

        It is killed after `timeout` seconds. Of each stream the first 64 KiB are given. A command
        that goes on in the background needs its own redirections: `server >log 2>&1 &`.
        """
        box = await self._boxes.get(sandbox)
        seconds = min(timeout, LONGEST)
        async with _beating(ctx):
            try:
                result = await box.exec(
                    command,
                    cwd=cwd,
                    env=env or {},
                    user=user,
                    input=input,
                    timeout=seconds,
                    limit=OUTPUT,
                )
            except CommandTimeout as late:
                return _ended(late.result, timed_out=True)
        return _ended(result)

    async def run_python(
        self, ctx: Context, sandbox: str, code: str, timeout: float = 60.0
    ) -> answers.Evaluated:
        """Run Python code in a sandbox whose image has python3. Names stay from call to call. The
        value of the last expression is given, of it and of each stream the first 64 KiB."""
        box = await self._boxes.get(sandbox)
        async with _beating(ctx):
            try:
                done = await box.run_python(code, timeout=min(timeout, LONGEST), limit=OUTPUT)
            except PythonTimeout as late:
                return _evaluated(late.result, late.message)
        return _evaluated(done, done.error.traceback if done.error else None)

    async def read_file(self, sandbox: str, path: str) -> answers.File:
        """Read a file of a sandbox, up to 256 KiB; base64 where it is no text."""
        box = await self._boxes.get(sandbox)
        data = await box.files.read(path, limit=FILE)
        try:
            content, encoding = data.decode(), "utf-8"
        except UnicodeDecodeError:
            content, encoding = base64.b64encode(data).decode(), "base64"
        return answers.File(path=path, content=content, encoding=encoding, size=len(data))

    async def write_file(
        self,
        sandbox: str,
        path: str,
        content: str,
        encoding: str = "utf-8",
        executable: bool = False,
    ) -> answers.Written:
        """Write a file in a sandbox, up to 16 MiB, with the directories to it. `encoding` base64:
        the content is that."""
        if len(content) > WRITTEN:
            raise ToolError(
                f"The content is more than {WRITTEN >> 20} MiB. Have a command in the sandbox make"
                " or fetch the file: exec."
            )
        box = await self._boxes.get(sandbox)
        data = _decoded(content) if encoding == "base64" else content.encode()
        await box.files.write(path, data, mode=0o755 if executable else None)
        told = f"{path}: {len(data)} bytes written."
        return answers.Written(message=told, path=path, size=len(data))

    async def list_files(
        self, sandbox: str, path: str = "/", depth: int = 1
    ) -> list[answers.Entry]:
        """List what is in a directory of a sandbox, and with `depth` in those below it, up to
        2000 names."""
        box = await self._boxes.get(sandbox)
        found = await box.files.list(path, depth=depth)
        if len(found) > NAMES:
            raise ToolError(
                f"There are {len(found)} names in {path}, more than {NAMES}. List a directory in"
                " it, go less deep, or look with exec: `ls | head`, `find`."
            )
        return [
            answers.Entry(path=each.path, type=each.type.value, size=each.size) for each in found
        ]

    async def snapshot(self, sandbox: str, name: str = "") -> answers.Kept:
        """Keep a sandbox as it is now (files; a VM's memory, too), to roll it back to. Answers
        with the snapshot's id."""
        box = await self._boxes.get(sandbox)
        taken = await box.snapshot(name)
        return answers.Kept(message=taken, sandbox=box.id, snapshot=taken)

    async def rollback(self, sandbox: str, snapshot: str) -> answers.Done:
        """Put a sandbox back to one of its snapshots. What runs in it ends."""
        box = await self._boxes.get(sandbox)
        await box.rollback(snapshot)
        return answers.Done(message=f"{box.name} is what {snapshot} has kept.")

    async def fork(self, sandbox: str, count: int = 1, snapshot: str = "") -> list[answers.Sandbox]:
        """Make copies of a sandbox that go on by themselves, from now or from a snapshot: to try
        several ways at once."""
        return await self._boxes.fork(sandbox, count, snapshot)

    async def expose_port(self, sandbox: str, port: int) -> answers.Exposed:
        """The URL at which what listens on a port of a sandbox (on 0.0.0.0) answers on the host."""
        box = await self._boxes.get(sandbox)
        if not 0 < port < 65536:
            raise ToolError(f"{port} is no port. Ports are 1 to 65535.")
        url = await box.url(port)
        return answers.Exposed(message=url, sandbox=box.id, port=port, url=url)

    async def extend_sandbox(self, sandbox: str, ttl: str) -> answers.Sandbox:
        """Let a sandbox live so long from now: 30m, 2h. Its whole life has a most, beyond which it
        gets none: `expires` in the answer tells."""
        return await self._boxes.extend(sandbox, ttl_of(self._policy, ttl))

    async def destroy_sandbox(self, sandbox: str) -> answers.Done:
        """Delete a sandbox and all that is in it."""
        await self._boxes.destroy(sandbox)
        return answers.Done(message=f"{sandbox} is gone.")


def _told(tool: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """The tool, whose errors are sentences for the model."""

    @functools.wraps(tool)
    async def told(*args: Any, **keywords: Any) -> Any:
        try:
            return await tool(*args, **keywords)
        except SubletError as error:
            raise ToolError(str(error)) from error

    return told


@contextlib.asynccontextmanager
async def _beating(ctx: Context) -> AsyncIterator[Callable[[str], None]]:
    """Tell the client every few seconds that there is life, with the line that was told last."""
    last = [""]

    async def beat() -> None:
        for count in range(1, int(LONGEST)):
            await asyncio.sleep(BEAT)
            await ctx.report_progress(count, message=last[0] or None)

    def progress(line: str) -> None:
        last[0] = line

    beats = asyncio.create_task(beat())
    try:
        yield progress
    finally:
        beats.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beats


def _ended(result: Result, *, timed_out: bool = False) -> answers.Ended:
    return answers.Ended(
        exit_code=result.exit_code,
        stdout=result.stdout,
        stderr=result.stderr,
        seconds=round(result.seconds, 3),
        truncated=result.truncated,
        timed_out=timed_out,
    )


def _evaluated(done: PythonResult, error: str | None) -> answers.Evaluated:
    value, why = (None if each is None else each[:OUTPUT] for each in (done.repr or None, error))
    cut = done.truncated or (value, why) != (done.repr or None, error)
    return answers.Evaluated(
        stdout=done.stdout, stderr=done.stderr, value=value, error=why, truncated=cut
    )


def _decoded(content: str) -> bytes:
    try:
        return base64.b64decode(content, validate=True)
    except ValueError:
        raise ToolError("The content is not base64.") from None
