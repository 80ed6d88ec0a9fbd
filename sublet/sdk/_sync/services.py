# Made from ../_async/services.py by scripts/unasync.py; edit that file.
"""Services for a while: databases and the like, started together, and gone together.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial

from sublet.domain import services as rules
from sublet.domain import size_names
from sublet.domain.errors import (
    DaemonUnavailable,
    NoSuchInstance,
    NotHealthy,
    SubletError,
)
from sublet.domain.size import Size
from sublet.sdk import _launch
from sublet.sdk._sync import client as clients
from sublet.sdk._sync import threads
from sublet.sdk._sync.calls import Progress, silent
from sublet.sdk._sync.service import Service
from sublet.sdk.results import Environment, environment, instance_spec

TYPE_CHECKING = False  # typing itself costs milliseconds of every command
if TYPE_CHECKING:
    from typing import Any

_LOOK, _RETRY = 0.05, 1.0
"""Seconds between looks at whether a service answers, and whether a daemon is there again."""

_INDENT = "\n" + " " * 8
"""Between the lines of an error."""


class Services:
    """Several services, by name: `services["postgres"].url`. As a context manager it starts them
    all at once, fetching what is not on this host, and waits until they are healthy; those whose
    images have no health check, until their port takes a connection.

    `services` are images or `NAME=IMAGE`. `env` is NAME=VALUE for all, SERVICE:NAME=VALUE for one.
    `publish`: by name, [ADDRESS:]PORT of this host that leads to one as well; ADDRESS is 127.0.0.1
    if it is not given. `timeout`: seconds until they must be healthy. They are gone when the
    context is left, or this process has ended, however; unless they `stay`, then after `ttl`.
    `check_every`: seconds between their health checks until they are healthy.
    `progress` is told what happens to them, also later: that one has ended, say. `options` are
    those of `Client.run`. Raises NotHealthy, which says what a service wrote last.
    """

    def __init__(
        self,
        client: clients.Client,
        services: Sequence[str],
        *,
        env: Environment = (),
        timeout: float = 60.0,
        check_every: float = rules.START_INTERVAL,
        stay: bool = False,
        publish: Mapping[str, str] | None = None,
        progress: Progress = silent,
        **options: Any,
    ) -> None:
        self._client = client
        self._wanted = rules.parse_all(services)
        self._env = rules.settings(environment(env), [each.name for each in self._wanted])
        self._timeout, self._stay, self._progress = timeout, stay, progress
        self._check_every = check_every
        self._publish, self._options = publish or {}, options
        self._started: list[str] = []
        self._lease = None if stay else client.lease(self._lost)
        self._found: dict[str, Service] = {}
        self._watchers: list[threads.Background] = []
        self._over = False
        self._watching = clients.Client(client.socket or _launch.socket_path())

    def __getitem__(self, name: str) -> Service:
        return self._found[name]

    def __iter__(self) -> Iterator[Service]:
        return iter(self._found.values())

    @property
    def environment(self) -> dict[str, str]:
        """The variables that tell a program of them: NAME_HOST, NAME_PORT, NAME_URL of each, and
        DATABASE_URL of the first SQL database."""
        running = [rules.Running(s.prefix, s.host, s.port, s.url, s.sql) for s in self]
        return rules.variables(running)

    def __enter__(self) -> Services:
        try:
            if self._lease:
                self._lease.open()
            self._check_size()
            starts = [partial(self._start, wanted) for wanted in self._wanted]
            for service in threads.all_of(starts):
                self._found[service.name] = service
            self._healthy(time.monotonic())
        except BaseException:
            self.close()
            raise
        for service in self:
            watch = partial(self._watch, service)
            self._watchers.append(threads.Background(f"sublet {service.name}", watch))
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_size(self) -> None:
        """Raises InvalidArgument for a size that is none: before an image is built for it."""
        if text := self._options.get("size"):
            known = {row["name"]: Size.parse(row["size"]) for row in self._client.sizes()}
            size_names.resolve(text, tuple(known.items()))

    def wait(self) -> None:
        """Wait until one of them has ended, which `progress` was told then."""
        while not any([watcher.ended(_RETRY) for watcher in self._watchers]):
            pass

    def delete(self) -> None:
        """Delete those that were to stay."""
        for instance in self._started:
            with suppress(NoSuchInstance):
                self._client.remove(instance, force=True, volumes=True)

    def close(self) -> None:
        """Delete them, unless they stay."""
        self._over = True
        if self._lease and self._lease.id:
            self._lease.close()
        for watcher in self._watchers:
            if self._stay or not watcher.ended(1.0):
                watcher.drop()

    def _start(self, wanted: rules.Wanted) -> Service:
        def told(line: str) -> None:
            self._progress(f"{wanted.name}: {line}")

        image = self._client.ensure(wanted.image, told)
        config = (self._client.inspect_image(image["digest"]))["config"]
        offered = rules.offer(wanted.image, config)
        own = (*rules.defaults(offered, config), *self._env[wanted.name])
        lease = self._lease.id if self._lease else ""
        spec = instance_spec(
            wanted.image,
            env=own,
            health={"start_interval": self._check_every},
            lease=lease,
            ports=rules.published(self._publish.get(wanted.name, ""), offered.port),
            **self._options,
        )
        started = self._client.launch(spec, told)
        self._started.append(started["id"])
        for warning in started.get("warnings", ()):
            told(warning)
        instance = clients.Instance(self._client, started)
        full = {**offered.environment, **rules.pairs(own)}
        return Service(wanted, offered, full, instance)

    # Health

    def _healthy(self, begun: float) -> None:
        """Wait until all are. Raises NotHealthy."""
        left = list(self)
        while True:
            for service in list(left):
                if state := self._reached(service):
                    left.remove(service)
                    place = f"{service.host}:{service.port}" if service.port else service.host
                    after = time.monotonic() - begun
                    self._progress(f"{service.name}: {state} after {after:.1f} s, at {place}")
            if not left:
                return
            if time.monotonic() - begun > self._timeout:
                raise self._failed(left[0], f"is not healthy after {self._timeout:g} s")
            threads.pause(_LOOK)

    def _reached(self, service: Service) -> str:
        """`healthy`; `started`, where its image tells no more of itself; empty: neither yet."""
        found = self._client.inspect(service.id)
        if not service.host:
            service.placed(found["address"] or "127.0.0.1")
        if found["state"] != "running":
            code = found["exit_code"]
            how = f"ended with {code}" if code is not None else f"is {found['state']}"
            raise self._failed(service, f"{how} before it was healthy")
        if found["health"] == "unhealthy":
            raise self._failed(service, "is unhealthy")
        if found["health"] != "none":
            return "healthy" if found["health"] == "healthy" else ""
        if not service.port:
            return "started"
        return "healthy" if threads.accepts(service.host, service.port) else ""

    def _failed(self, service: Service, what: str) -> NotHealthy:
        """The error that tells of it, with what it wrote last."""
        checked = rules.failing(self._client.inspect(service.id), service.port)
        told = self._last_lines(service)
        wrote = ["It wrote:", *told] if told else ["It wrote nothing."]
        return NotHealthy(
            f"{service.name} ({service.image}) {what}. " + _INDENT.join([*checked, *wrote]),
            hint="Give it more time (--timeout) or more memory (--size); `sublet with --keep` "
            "leaves it for a look.",
        )

    def _last_lines(self, service: Service) -> list[str]:
        texts = [line["data"] for line in self._client.logs(service.id, tail=rules.LINES)]
        return "".join(texts).splitlines()

    def _lost(self, error: SubletError) -> None:
        self._progress(f"the services are lost. {error.message}")

    def _watch(self, service: Service) -> None:
        """Tell if it ends before it is to. The daemon is not started for that."""
        while not self._over:
            try:
                code = self._watching.wait(service.id)
            except DaemonUnavailable:
                threads.pause(_RETRY)
                continue
            except SubletError as error:
                what = "is gone" if isinstance(error, NoSuchInstance) else error.message
            else:
                what = f"has ended with {code}"
            if not self._over:
                self._progress(f"{service.name} {what}")
            return
