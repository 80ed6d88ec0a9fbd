# Made from ../_async/service.py by scripts/unasync.py; edit that file.
"""A service that runs: where it is, and a dump for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Callable

from sublet.domain import services as rules
from sublet.domain.errors import LoadFailed
from sublet.sdk._sync import wire
from sublet.sdk._sync.client import Instance
from sublet.sdk.results import exec_spec

TYPE_CHECKING = False  # typing itself costs milliseconds of every command
if TYPE_CHECKING:
    from sublet.domain.catalog import Offer

Output = Callable[[int, bytes], None]
"""Is told what a process writes, to its stream 1 or 2."""


class Service:
    """A service that answers at `host` and `port` (0: it has none), with the `url` that its image
    has a template for (empty: none). `kind` is what it is, `offered` what its image says of it,
    `environment` what it was started with, `instance` what it runs as."""

    def __init__(
        self,
        wanted: rules.Wanted,
        offered: Offer,
        environment: dict[str, str],
        instance: Instance,
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

    def load(self, pieces: Iterator[bytes], output: Output) -> None:
        """Feed a dump to the database's own client, which stops at the first error; what it says
        goes to `output`. The first piece tells which kind of dump it is. Raises LoadFailed, and
        InvalidArgument where it is no database."""
        first = next(pieces, b"")
        argv, env = rules.loader(self.kind, self.environment, first)
        session = self.instance.exec_session(exec_spec(argv, env=env))
        try:
            code = _fed(session, first, pieces, output)
        finally:
            session.close()
        if code:
            raise LoadFailed(f"{argv[0]} in {self.name} ended with {code}: not all is loaded.")


def _fed(
    session: wire.Session, piece: bytes, pieces: Iterator[bytes], output: Output
) -> int:
    """The exit code of a process that is given all pieces, or as many as it takes."""
    while piece:
        session.send_input(piece)
        while session.connection.pending() or session.ready():
            code = _heard(session, output)
            if code is not None:
                return code
        piece = next(pieces, b"")
    session.close_input()
    while (code := _heard(session, output)) is None:
        pass
    return code


def _heard(session: wire.Session, output: Output) -> int | None:
    """Take what has come, or comes next; the exit code if it is that."""
    if not session.ready():
        session.take()
    while session.ready():
        message = session.receive()
        if isinstance(message, bytes):
            output(message[0], message[1:])
        elif message["type"] == "exit":
            return int(message["code"])
    return None
