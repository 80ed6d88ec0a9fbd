"""A service as a test has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sublet.domain.catalog import Offer
    from sublet.sdk import Client, ExecResult

_LOOK = 0.01
"""Seconds between looks at whether it answers."""

_LINES = 20
"""Lines of what it wrote that a failure shows."""


class Service:
    """A service that answers at `host` and `port` (0: it has none), with a `url` (empty: its image
    has no template for one). `environment` is what it was started with, `instance` the name of the
    instance that it runs in, `image` that one's image."""

    def __init__(
        self, client: Client, image: str, offered: Offer, environment: Mapping[str, str], id: str
    ) -> None:
        self.image, self.port, self.id = image, offered.port, id
        self.environment = dict(environment)
        self.host = self.url = self.instance = ""
        self._client, self._offered = client, offered

    def __repr__(self) -> str:
        return f"<Service {self.image} {self.url or self.host} in {self.instance}>"

    def exec(self, command: str | Sequence[str], **options: Any) -> ExecResult:
        """Run a command in its instance, a text with `sh -c`: `exit_code`, `stdout`, `stderr`.
        Options as of `Client.exec`: `input` (bytes), `env`, `user`, `working_dir`, `timeout`."""
        argv = ["sh", "-c", command] if isinstance(command, str) else command
        return self._client.exec(self.id, argv, **options)

    def logs(self, lines: int | None = None) -> str:
        """What it wrote, or the last lines of it."""
        return "".join(line["data"] for line in self._client.logs(self.id, tail=lines))

    def await_healthy(self, timeout: float) -> None:
        """Wait until it answers. Raises NotHealthy, with what it wrote."""
        import time

        until = time.monotonic() + timeout
        while not self._answers():
            if time.monotonic() > until:
                raise self._failure(f"is not healthy after {timeout:g} s")
            time.sleep(_LOOK)

    def _answers(self) -> bool:
        from sublet.sdk._sync import threads

        found = self._client.inspect(self.id)
        if not self.host:
            self._placed(found["name"], found["address"] or "127.0.0.1")
        if found["state"] != "running":
            raise self._failure(f"is {found['state']}")
        if found["health"] == "unhealthy":
            raise self._failure("is unhealthy")
        if found["health"] == "none" and self.port:
            return threads.accepts(self.host, self.port)
        return found["health"] in ("none", "healthy")

    def _placed(self, name: str, host: str) -> None:
        from sublet.domain import services as rules

        self.instance, self.host = name, host
        self.url = rules.url(self._offered, host, self.port, self.environment)

    def _failure(self, what: str) -> Exception:
        from sublet.domain.errors import NotHealthy

        wrote = self.logs(_LINES).rstrip()
        told = f"It wrote:\n{wrote}" if wrote else "It wrote nothing."
        return NotHealthy(f"A fork of {self.image} {what}. {told}")

    def told(self) -> str:
        """What a failure shows of it."""
        from sublet.domain.errors import SubletError

        try:
            return self.logs(_LINES).rstrip() or "(nothing)"
        except SubletError as error:
            return error.message
