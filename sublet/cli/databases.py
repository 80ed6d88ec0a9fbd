"""`sublet db`: a database for as long as one looks at it."""

from __future__ import annotations

import gzip
import io
import signal
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from typing import IO, Any, NoReturn, cast

import click

from sublet.cli.common import JSON
from sublet.cli.completing import image_or_catalog_names
from sublet.cli.output import print_json, printable
from sublet.cli.run import completed
from sublet.cli.services import Reports, beside, service_of
from sublet.domain import services as rules
from sublet.domain.errors import CorruptArchive, InvalidArgument, NoSuchImage
from sublet.domain.units import format_bytes, parse_duration
from sublet.sdk import Client

TYPE_CHECKING = False  # typing itself costs milliseconds of every command
if TYPE_CHECKING:
    from sublet.sdk._sync.service import Service
    from sublet.sdk._sync.services import Services

_PIECE, _SHOWN = 1 << 16, 1 << 14
_TELL = 2.0
"""Seconds between lines on how much is loaded."""


@click.command()
@click.argument("database", metavar="[NAME=]DATABASE", shell_complete=image_or_catalog_names)
@click.option("--load", metavar="FILE", help="Load a dump: .sql, .sql.gz, of pg_dump -Fc, or -.")
@click.option("-d", "--detach", is_flag=True, help="Leave it, and print its id and URL.")
@click.option("--ttl", default="1h", metavar="TIME", help="With -d: delete it then; default 1h.")
@click.option("--name", default="", metavar="NAME", help="Name of the instance.")
@click.option(
    "-p", "--publish", default="", metavar="[ADDRESS:]PORT",
    help="Also at this port of the host; on 127.0.0.1 unless ADDRESS says otherwise.",
)  # fmt: skip
@beside
@JSON
def db(
    database: str,
    load: str | None,
    detach: bool,
    ttl: str,
    name: str,
    publish: str,
    env: tuple[str, ...],
    size: str,
    vm: bool,
    timeout: str,
    as_json: bool,
) -> int:
    """Start a database, print its URL, and delete it on Ctrl-C.

    DATABASE is an image, such as postgres:17 or mariadb:11.8. With --load it is filled first, by
    its own client; if that fails, it is deleted. With -d it stays in the background for a while.
    """
    service = service_of(database)
    parse_duration(ttl)  # and the port: before an image is built for them
    if not publish.rpartition(":")[2].isdecimal() and publish:
        raise InvalidArgument(f"'{publish}' is not a port.", hint="Write -p 5432.")
    client, reports = Client(), Reports()
    services = client.services(
        [service],
        env=completed(env),
        size=size,
        vm=vm,
        timeout=parse_duration(timeout),
        stay=detach,
        publish={rules.parse(service).name: publish} if publish else {},
        progress=reports,
        name=name,
        **({"ttl": ttl} if detach else {}),
    )
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    with ExitStack() as stack:
        dump = stack.enter_context(_opened(load)) if load else None
        stack.enter_context(reports)
        if dump:
            _check_kind(client, rules.parse(service), reports)
        try:
            return _serve(services, reports, dump, ttl if detach else "", as_json=as_json)
        except BaseException:
            services.delete()
            raise


def _check_kind(client: Client, wanted: rules.Wanted, reports: Reports) -> None:
    """Raises InvalidArgument where the database takes no dump, before it is started; where its name
    tells that, before its image is built, too."""
    image = wanted.image
    try:
        found = client.inspect_image(image)
    except NoSuchImage:
        if kind := rules.kind_by_name(image):
            rules.takes_dumps(kind)
        made = client.ensure(image, lambda line: reports(f"{wanted.name}: {line}"))
        found = client.inspect_image(made["digest"])
    rules.takes_dumps(rules.offer(image, found["config"]).service)


def _serve(
    services: Services, reports: Reports, dump: IO[bytes] | None, ttl: str, *, as_json: bool
) -> int:
    with services:
        (service,) = services
        if dump:
            _load(service, dump, reports)
        reports.started()
        _show(service, ttl=ttl, as_json=as_json)
        if ttl:
            return 0
        try:
            services.wait()
        except KeyboardInterrupt:
            return 0
        return 1


def _interrupted(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _opened(path: str) -> IO[bytes]:
    """A dump, or standard input for `-`; what gzip has compressed is decompressed."""
    file = sys.stdin.buffer if path == "-" else open(path, "rb")  # noqa: SIM115
    if cast(io.BufferedReader, file).peek(2).startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.GzipFile(fileobj=file))
    return file


def _load(service: Service, dump: IO[bytes], reports: Reports) -> None:
    """Fill the database. Raises LoadFailed, when what its client said has been shown."""
    said = bytearray()

    def output(stream: int, data: bytes) -> None:
        said.extend(data)
        del said[:-_SHOWN]

    def told(pieces: Iterator[bytes]) -> Iterator[bytes]:
        done, next_line = 0, 0.0
        for piece in pieces:
            if time.monotonic() >= next_line:
                so_far = f", {format_bytes(done)} so far" if done else ""
                reports(f"{service.name}: loading{so_far}")
                next_line = time.monotonic() + _TELL
            done += len(piece)
            yield piece

    try:
        service.load(told(_pieces(dump)), output)
    finally:
        if said:
            reports.started()
            text = said.decode(errors="replace").rstrip("\n")
            print(printable(text, lines=True), file=sys.stderr, flush=True)


def _pieces(dump: IO[bytes]) -> Iterator[bytes]:
    try:
        while piece := cast(Any, dump).read1(_PIECE):
            yield piece
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise CorruptArchive(f"The dump is damaged, or was cut off: {error}.") from error


def _show(service: Service, *, ttl: str, as_json: bool) -> None:
    """The URL on standard output, after the id if it stays for `ttl`; how to use it on the other
    one."""
    running = rules.Running(service.prefix, service.host, service.port, service.url)
    line = rules.connecting(running, service.kind, service.environment)
    published = [f"{p['host_ip']}:{p['host_port']}" for p in service.instance.ports]
    if as_json:
        print_json(
            {
                "id": service.id,
                "name": service.instance.name,
                "kind": service.kind,
                "host": service.host,
                "port": service.port or None,
                "url": service.url or None,
                "connect": line or None,
                "published": published,
            }
        )
    else:
        where = service.url or f"{service.host}:{service.port}"
        print(f"{service.id}\n{where}" if ttl else where)
    sys.stdout.flush()
    name = service.instance.name
    end = f"It is deleted after {ttl}, or: sublet rm -f {name}" if ttl else "Ctrl-C deletes it."
    also = [f"also at {address}" for address in published]
    for note in filter(None, [line, *also, end]):
        print(f"  {printable(note)}", file=sys.stderr, flush=True)


COMMANDS = {"db": db}
