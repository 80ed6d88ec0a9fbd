"""A service that runs: where it is, and a dump for it.

The blocking client is made from this file by `scripts/unasync.py`; edit this one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from sublet.domain import services as rules
from sublet.domain.errors import LoadFailed
from sublet.sdk._async import wire
from sublet.sdk._async.client import AsyncInstance
from sublet.sdk.results import exec_spec

TYPE_CHECKING = False  # typing itself costs milliseconds of every command
if TYPE_CHECKING:
    from sublet.domain.catalog import Offer

Output = Callable[[int, bytes], None]
"""Is told what a process writes, to its stream 1 or 2."""


class AsyncService:
    """A service that answers at `host` and `port` (0: it has none), with the `url` that its image
    has a template for (empty: none). `kind` is what it is, `offered` what its image says of it,
    `environment` what it was started with, `instance` what it runs as."""

    def __init__(
        self,
        wanted: rules.Wanted,
        offered: Offer,
        environment: dict[str, str],
        instance: AsyncInstance,
    ) -> None:
        self.name, self.image, self.prefix = wanted.name, wanted.image, wanted.prefix
        self.kind, self.port, self.sql = offered.service, offered.port, offered.sql
        self.environment = environment
        self.instance, self.id = instance, instance.id
        self.host = self.url = ""
        self.offered = offered

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.url or self.host}>"

    def placed(self, host: str) -> None:
        """It is to be reached there. Raises InvalidArgument where its URL lacks a variable."""
        self.host = host
        self.url = rules.url(self.offered, host, self.port, self.environment)

    async def load(self, pieces: AsyncIterator[bytes], output: Output) -> None:
        """Feed a dump to the database's own client, which stops at the first error; what it says
        goes to `output`. The first piece tells which kind of dump it is. Raises LoadFailed, and
        InvalidArgument where it is no database."""
        first = await anext(pieces, b"")
        argv, env = rules.loader(self.kind, self.environment, first)
        session = await self.instance.exec_session(exec_spec(argv, env=env))
        try:
            code = await _fed(session, first, pieces, output)
        finally:
            await session.close()
        if code:
            raise LoadFailed(f"{argv[0]} in {self.name} ended with {code}: not all is loaded.")


async def _fed(
    session: wire.AsyncSession, piece: bytes, pieces: AsyncIterator[bytes], output: Output
) -> int:
    """The exit code of a process that is given all pieces, or as many as it takes."""
    while piece:
        await session.send_input(piece)
        while session.connection.pending() or session.ready():
            code = await _heard(session, output)
            if code is not None:
                return code
        piece = await anext(pieces, b"")
    await session.close_input()
    while (code := await _heard(session, output)) is None:
        pass
    return code


async def _heard(session: wire.AsyncSession, output: Output) -> int | None:
    """Take what has come, or comes next; the exit code if it is that."""
    if not session.ready():
        await session.take()
    while session.ready():
        message = await session.receive()
        if isinstance(message, bytes):
            output(message[0], message[1:])
        elif message["type"] == "exit":
            return int(message["code"])
    return None
