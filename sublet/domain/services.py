"""Services: what an image offers, under which names, and which variables tell of it.

Pure. An image says itself what it offers, by labels (`catalog.py`); of those that are often used
and say nothing a table knows it.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from sublet.domain import catalog
from sublet.domain.catalog import PORT, SERVICE, SQL, URL, Offer
from sublet.domain.errors import InvalidArgument
from sublet.domain.health import TIMED_OUT

LINES = 10
"""Of what a service wrote, and of what its health check did, that are shown when it has failed."""

START_INTERVAL = 0.2
"""Seconds between health checks until a service is healthy, whatever its image says."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")
_VARIABLE = re.compile(r"\{(\w+)\}")

_POSTGRES = Offer(
    "postgres",
    5432,
    "postgresql://{POSTGRES_USER}:{POSTGRES_PASSWORD}@{host}:{port}/{POSTGRES_DB}",
    {"POSTGRES_USER": "postgres", "POSTGRES_PASSWORD": "postgres", "POSTGRES_DB": "postgres"},
    sql=True,
)
_MYSQL = Offer(
    "mysql",
    3306,
    "mysql://{MYSQL_USER}:{MYSQL_PASSWORD}@{host}:{port}/{MYSQL_DATABASE}",
    {
        "MYSQL_ROOT_PASSWORD": "mysql",
        "MYSQL_USER": "mysql",
        "MYSQL_PASSWORD": "mysql",
        "MYSQL_DATABASE": "app",
    },
    sql=True,
)
_REDIS = Offer("redis", 6379, "redis://{host}:{port}/0")
_KNOWN = {
    "postgres": _POSTGRES,
    "postgis": _POSTGRES,
    "pgvector": _POSTGRES,
    "timescaledb": _POSTGRES,
    "mysql": _MYSQL,
    "mariadb": replace(_MYSQL, service="mariadb"),
    "redis": _REDIS,
    "valkey": replace(_REDIS, service="valkey"),
    "mongo": Offer("mongo", 27017, "mongodb://{host}:{port}/"),
    "rabbitmq": Offer("rabbitmq", 5672, "amqp://guest:guest@{host}:{port}/%2F"),
    "nats": Offer("nats", 4222, "nats://{host}:{port}"),
    "memcached": Offer("memcached", 11211),
}
"""By the last part of the repository's name: images of Docker Hub, and what starts them."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A service that is asked for: its name, as `-e` has it, and its image."""

    name: str
    image: str

    @property
    def prefix(self) -> str:
        """What the names of its variables begin with."""
        return self.name.upper().replace("-", "_")


@dataclass(frozen=True, slots=True)
class Running:
    """A service that answers: `port` 0 and `url` empty where it has none."""

    prefix: str
    host: str
    port: int = 0
    url: str = ""
    sql: bool = False


def parse(text: str) -> Wanted:
    """The service in `IMAGE`, which has the name of its repository, or in `NAME=IMAGE`. Raises
    InvalidArgument."""
    name, equals, image = text.partition("=")
    if not equals:
        name, image = _name_of(text), text
    if not image or not _NAME.fullmatch(name):
        raise InvalidArgument(
            f"'{text}' is not a service.",
            hint="Write an image, such as postgres:15, or NAME=IMAGE with letters, digits, - and _ "
            "in the name.",
        )
    return Wanted(name, image)


def parse_all(texts: Iterable[str]) -> tuple[Wanted, ...]:
    """Several; no two may set the same variables. Raises InvalidArgument."""
    found: dict[str, Wanted] = {}
    for wanted in map(parse, texts):
        other = found.setdefault(wanted.prefix, wanted)
        if other is not wanted:
            raise InvalidArgument(
                f"{other.image} and {wanted.image} would both set {wanted.prefix}_HOST.",
                hint=f"Give one of them another name: second={wanted.image}.",
            )
    return tuple(found.values())


def _name_of(image: str) -> str:
    """A name for a service of this image or packed file: `postgres` of `team/postgres:15`."""
    name = _last(image)
    return f"_{name}" if name[:1].isdigit() else name


def _last(image: str) -> str:
    """The last part of the repository's name, or of a path without its ending."""
    name = posixpath.basename(image.partition("@")[0]).partition(":")[0].removesuffix(".sif")
    return re.sub(r"[^A-Za-z0-9_-]", "-", name)


def settings(entries: Iterable[str], names: Collection[str]) -> dict[str, tuple[str, ...]]:
    """What each service gets of `NAME=VALUE`, which is for all, and of `SERVICE:NAME=VALUE`.
    Raises InvalidArgument."""
    found: dict[str, list[str]] = {name: [] for name in names}
    for entry in entries:
        service, colon, rest = entry.partition(":")
        if not colon or "=" in service:  # that is one of a value
            service, rest = "", entry
        if service and service not in found:
            raise InvalidArgument(
                f"'{entry}' is for a service '{service}', which is not asked for.",
                hint=f"There is {', '.join(found)}. Without `{service}:` it is for all of them.",
            )
        for name in [service] if service else found:
            found[name].append(rest)
    return {name: tuple(values) for name, values in found.items()}


def offer(image: str, config: Mapping[str, Any]) -> Offer:
    """What an image offers, by its OCI configuration; its environment is what an instance has
    besides what is asked for. Raises InvalidArgument for a label that makes no sense."""
    labels = config.get("Labels") or {}
    own = pairs(config.get("Env") or ())
    if not {SERVICE, PORT, URL} & set(labels):
        known = _KNOWN.get(_last(image), Offer(_last(image)))
        port = known.port or _first_port(config.get("ExposedPorts") or {})
        return replace(known, port=port, environment={**known.environment, **own})
    if not labels.get(URL, "").isprintable():
        raise InvalidArgument(
            f"The image {image} has a label {URL} that is no URL.",
            hint="It holds characters that a terminal would take for commands.",
        )
    port = labels.get(PORT, "")
    if port and not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise InvalidArgument(
            f"The image {image} has the label {PORT}={port}, which is no port.",
            hint="Build it again with one of 1 to 65535.",
        )
    return Offer(
        labels.get(SERVICE, _last(image)),
        int(port) if port else _first_port(config.get("ExposedPorts") or {}),
        labels.get(URL, ""),
        own,
        sql=labels.get(SQL) == "true",
    )


def kind_by_name(image: str) -> str:
    """What the service of an image is that is not here, by its name alone; empty: unknown."""
    if choice := catalog.find(image):
        return choice.entry.name
    known = _KNOWN.get(_last(image))
    return known.service if known else ""


def defaults(offered: Offer, config: Mapping[str, Any]) -> tuple[str, ...]:
    """What a service needs in its environment that its image has not."""
    own = pairs(config.get("Env") or ())
    return tuple(f"{k}={v}" for k, v in offered.environment.items() if k not in own)


def published(place: str, port: int) -> tuple[str, ...]:
    """What publishes a service at `[ADDRESS:]PORT` of the host, as `-p` of `run` takes it; on
    loopback where no address is given: the passwords are no secret. Nothing for nothing."""
    if not place:
        return ()
    if not port:
        raise InvalidArgument("The service has no port to be published.", hint="Leave -p out.")
    return (f"{place if ':' in place else f'127.0.0.1:{place}'}:{port}",)


def pairs(entries: Iterable[str]) -> dict[str, str]:
    """NAME=VALUE texts by name."""
    return {name: value for name, _, value in (entry.partition("=") for entry in entries)}


def _first_port(exposed: Iterable[str]) -> int:
    """The lowest TCP port of an image that exposes some (`5432/tcp`), 0 for none."""
    ports = [text.partition("/") for text in exposed]
    numbers = [int(n) for n, _, kind in ports if kind in ("", "tcp") and n.isdecimal()]
    return min((n for n in numbers if 0 < n < 65536), default=0)


def url(offered: Offer, host: str, port: int, environment: Mapping[str, str]) -> str:
    """The service's URL, empty where it has no template; what the environment says is quoted (RFC
    3986, section 2.1). Raises InvalidArgument where it lacks a variable."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name in ("host", "port"):
            return host if name == "host" else str(port)
        if name not in environment:
            raise InvalidArgument(
                f"The URL of {offered.service} needs {name}, which its image does not set.",
                hint=f"Set it: -e {name}=VALUE.",
            )
        return quote(environment[name], safe="")

    return _VARIABLE.sub(value, offered.url)


def variables(services: Sequence[Running]) -> dict[str, str]:
    """What tells a command of them: NAME_HOST, NAME_PORT, NAME_URL of each, and DATABASE_URL of
    the first SQL database."""
    found: dict[str, str] = {}
    for service in services:
        found[f"{service.prefix}_HOST"] = service.host
        if service.port:
            found[f"{service.prefix}_PORT"] = str(service.port)
        if service.url:
            found[f"{service.prefix}_URL"] = service.url
    if first := next((each.url for each in services if each.sql and each.url), ""):
        found.setdefault("DATABASE_URL", first)
    return found


def failing(found: Mapping[str, Any], port: int) -> list[str]:
    """Why an instance, as `inspect` has it, is not healthy, line by line: its last health check, or
    its port where it has none; nothing where that tells nothing."""
    if found["health"] == "none":
        return [f"Its port {port} takes no connection."] if port else []
    results = found["health_results"]
    if not results or results[-1]["exit_code"] == 0:
        return []
    code, said = results[-1]["exit_code"], results[-1]["output"].splitlines()[-LINES:]
    how = "did not end" if code == TIMED_OUT else f"ended with {code}"
    return [f"Its last health check {how}{':' if said else ', silently.'}", *said]


def takes_dumps(kind: str) -> None:
    """Raises InvalidArgument where there is no way to load a dump into a service of this kind."""
    if kind not in ("postgres", "mariadb", "mysql"):
        raise InvalidArgument(
            f"There is no way to load a dump into {kind}.",
            hint="--load is for PostgreSQL, MariaDB and MySQL.",
        )


def loader(
    kind: str, environment: Mapping[str, str], first: bytes
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The command in a database's instance that loads a dump from standard input, whose `first`
    bytes tell its format, and its environment. Raises InvalidArgument where it takes none."""
    if kind == "postgres":
        user, database = environment["POSTGRES_USER"], environment["POSTGRES_DB"]
        place = ("--host=127.0.0.1", f"--username={user}", f"--dbname={database}")
        quick = "-c synchronous_commit=off"  # a dump of single INSERTs would wait for each
        secret = {"PGPASSWORD": environment["POSTGRES_PASSWORD"], "PGOPTIONS": quick}
        if first.startswith(b"PGDMP"):
            return ("pg_restore", "--exit-on-error", "--no-owner", *place), secret
        quiet = ("--no-psqlrc", "--quiet", "--output=/dev/null", "--set=ON_ERROR_STOP=1")
        return ("psql", *quiet, *place), secret
    takes_dumps(kind)
    root = _first(environment, "MARIADB_ROOT_PASSWORD", "MYSQL_ROOT_PASSWORD")
    database = _first(environment, "MARIADB_DATABASE", "MYSQL_DATABASE")
    return (kind, "--user=root", f"--database={database}"), {"MYSQL_PWD": root}


def connecting(service: Running, kind: str, environment: Mapping[str, str]) -> str:
    """The command line of a host that has the database's client, empty where none is known."""
    if kind == "postgres":
        return f"psql {shlex.quote(service.url)}"
    if kind in ("redis", "valkey"):
        return f"{kind}-cli -u {shlex.quote(service.url)}"
    if kind not in ("mariadb", "mysql"):
        return ""
    words = [
        kind,
        f"--host={service.host}",
        f"--port={service.port}",
        f"--user={_first(environment, 'MARIADB_USER', 'MYSQL_USER')}",
        f"--password={_first(environment, 'MARIADB_PASSWORD', 'MYSQL_PASSWORD')}",
        _first(environment, "MARIADB_DATABASE", "MYSQL_DATABASE"),
    ]
    return shlex.join(words)


def _first(environment: Mapping[str, str], *names: str) -> str:
    return next((environment[name] for name in names if name in environment), "")
