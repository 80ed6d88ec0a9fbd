"""`sublet browse`: a page as one version of one browser shows it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sublet.cli.common import JSON
from sublet.cli.completing import one_of
from sublet.cli.output import Progress, one_line, print_json
from sublet.domain.browsing import Page, Visit, file_name, kind_of, page_of, window_of
from sublet.domain.errors import InvalidArgument
from sublet.domain.units import parse_duration

if TYPE_CHECKING:
    from sublet.browser import Sight

BROWSER = "chromium:bookworm"
BROWSERS = (BROWSER, "chromium:trixie", "firefox-esr:bookworm", "firefox-esr:trixie")

Options = dict[str, Any]
T = TypeVar("T")


@click.command()
@click.argument("url", default="")
@click.option(
    "--browser", default=BROWSER, metavar="IMAGE", shell_complete=one_of(*BROWSERS),
    help=f"The browser and its version; default {BROWSER}.",
)  # fmt: skip
@click.option(
    "--screenshot", default="", metavar="FILE", help="Write a picture of the page, a PNG."
)
@click.option("--pdf", default="", metavar="FILE", help="Print the page into a PDF.")
@click.option(
    "--size", default="1280x800", metavar="WxH", help="The window, in CSS pixels; default 1280x800."
)
@click.option(
    "--scale", default=1.0, metavar="N", help="Pixels of the picture for each CSS pixel; default 1."
)
@click.option("--full-page", is_flag=True, help="All of the page, however long it is.")
@click.option("--dark", is_flag=True, help="Tell the page that dark colours are preferred.")
@click.option(
    "--wait", default="", metavar="TIME", help="Wait so long after it has loaded, such as 500ms."
)
@click.option(
    "--wait-for", default="", metavar="SELECTOR", help="Wait until something in the page matches."
)
@click.option(
    "--timeout", default="30s", metavar="TIME", help="For the page and its pictures; default 30s."
)
@click.option("--user-agent", default="", metavar="TEXT", help="What the browser calls itself.")
@click.option("--insecure", is_flag=True, help="Take any certificate.")
@click.option(
    "--host-port",
    multiple=True,
    metavar="PORT",
    help="A further port of this host's localhost that the page needs; repeatable.",
)
@click.option(
    "-m", "--memory", default="2g", metavar="SIZE", help="Memory of the browser; default 2g."
)
@click.option(
    "--compare",
    nargs=2,
    metavar="IMAGE IMAGE",
    help="Look with both browsers; draw what differs.",
    shell_complete=one_of(*BROWSERS),
)
@click.option("--cdp", is_flag=True, help="Print an endpoint for Playwright, and stay.")
@click.option("-d", "--detach", is_flag=True, help="With --cdp: leave the browser running.")
@click.option("--ttl", default="", metavar="TIME", help="With -d: delete it then; default 1h.")
@JSON
def browse(url: str, cdp: bool, as_json: bool, **options: Any) -> None:
    """Show a page as a certain version of a browser shows it.

    URLs of this host (localhost:3000) work. Without --screenshot or --pdf, a picture is written
    into this directory. The browser is deleted afterwards.
    """
    if os.path.isfile(url):
        url = os.path.join(".", url)  # not a host of that name
    if cdp:
        from sublet.cli.browse_cdp import answer

        answer(page_of(url) if url else None, options, as_json=as_json)
        return
    if options["detach"] or options["ttl"]:
        raise InvalidArgument("--detach and --ttl are for --cdp.", hint="Add --cdp.")
    page = page_of(url)
    if options["compare"]:
        from sublet.cli.browse_compare import both

        both(page, options["compare"], options, as_json=as_json)
    else:
        _one(page, options, as_json=as_json)


def _one(page: Page, options: Options, *, as_json: bool) -> None:
    from sublet.cli import browse_files as files

    image = options["browser"]
    kind_of(image)
    paths = {key: options[key] for key in ("screenshot", "pdf") if options[key]}
    paths = paths or {"screenshot": f"{file_name(page, image)}.png"}
    for path in paths.values():
        files.check_writable(path)
    visit = visit_of(page, options, screenshot="screenshot" in paths, pdf="pdf" in paths)
    with Progress() as progress:
        seen = run(look(image, visit, options, progress))
    for key, path in paths.items():
        files.write(path, getattr(seen, key))
    if as_json:
        print_json({**files.told(seen, image), **dict.fromkeys(("screenshot", "pdf")), **paths})
        return
    warn(image, files.warnings(seen))
    print(f"{one_line(seen.browser)}: {one_line(seen.title) or '(no title)'}", file=sys.stderr)
    for path in paths.values():
        print(path)


def visit_of(page: Page, options: Options, **wanted: bool) -> Visit:
    """How the options say that the page is to be looked at. Raises InvalidArgument."""
    width, height = window_of(options["size"])
    if not 0.1 <= options["scale"] <= 8:
        raise InvalidArgument(f"{options['scale']:g} is no scale.", hint="Write --scale 2.")
    return Visit(
        page.url,
        width=width,
        height=height,
        scale=options["scale"],
        full_page=options["full_page"],
        dark=options["dark"],
        user_agent=options["user_agent"],
        wait=parse_duration(options["wait"]) if options["wait"] else 0.0,
        selector=options["wait_for"],
        timeout=parse_duration(options["timeout"]),
        insecure=options["insecure"],
        **wanted,
    )


def look(
    image: str, visit: Visit, options: Options, progress: Progress
) -> Coroutine[Any, Any, Sight]:
    """See the page with the browser of an image."""
    from sublet.browser import look
    from sublet.sdk import AsyncClient

    ports, memory = ports_of(options), options["memory"]
    return look(AsyncClient(), image, visit, ports=ports, memory=memory, progress=progress)


def ports_of(options: Options) -> list[int]:
    """The ports of this host that the page may use beside its own. Raises InvalidArgument."""
    texts = options["host_port"]
    for text in texts:
        if not text.isdecimal():
            raise InvalidArgument(f"'{text}' is not a port.", hint="Write --host-port 8080.")
    return [int(text) for text in texts]


def run(work: Coroutine[Any, Any, T]) -> T:
    """Do the work; of SIGTERM, as of Ctrl-C, it hears, and deletes what it has made."""
    import signal

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return asyncio.run(work)


def warn(image: str, sentences: list[str]) -> None:
    """Say on standard error what one should know."""
    for sentence in sentences:
        print(f"sublet: warning: {image}: {one_line(sentence)}", file=sys.stderr)


COMMANDS = {"browse": browse}
