"""A browser in an instance of its own, for one page, and gone afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from sublet.browser import chromium, firefox
from sublet.browser.conversation import CommandRefused
from sublet.browser.failures import late
from sublet.browser.page import Page
from sublet.browser.sight import Sight
from sublet.browser.stdio import Streams
from sublet.domain.browsing import Kind, Visit, kind_of, page_of
from sublet.domain.errors import BrowserFailed
from sublet.domain.seccomp import NESTED
from sublet.sdk import AsyncClient
from sublet.sdk.results import instance_spec

LABEL = "io.sublet.browser"

Say = Callable[[str], None]

START = 90.0
"""Seconds in which a browser has to be there; a first start on a busy host is slow."""

_SPARE = 120.0
"""Seconds that an instance lives beyond all its deadlines, where its lease does not end it."""


def request(
    image: str, command: Sequence[str], shown: Sequence[int], **options: Any
) -> dict[str, Any]:
    """An instance for a browser. It may make namespaces inside, for its own sandbox: each page is
    shut in in the browser as well, and the browser in the instance."""
    return instance_spec(
        image,
        command,
        entrypoint=[],
        remove=True,
        seccomp=NESTED,
        shm_size="512m",
        host_ports=sorted(set(shown)),
        log={"driver": "none"},
        **options,
    )


async def look(
    client: AsyncClient,
    image: str,
    visit: Visit,
    *,
    ports: Sequence[int] = (),
    memory: str = "2g",
    progress: Say = lambda text: None,
) -> Sight:
    """See a page as the browser of an image shows it. `ports` of this host's loopback are shown to
    it, and the one that the URL names. Raises PageUnreachable, BrowserFailed."""
    kind, page = kind_of(image), page_of(visit.url)
    shown = [*ports, *([page.port] if page.port else [])]
    command = chromium.COMMAND if kind is Kind.CHROMIUM else firefox.command(visit)
    async with client.lease() as lease:
        spec = request(
            image,
            command,
            shown,
            cpus=2,
            memory=memory,
            stdin=True,
            lease=lease.id,
            ttl=START + visit.timeout + _SPARE,
            labels={LABEL: kind.value},
        )
        session, _ = await client.foreground(spec, progress)
        try:
            made = chromium.Chromium if kind is Kind.CHROMIUM else firefox.Firefox
            return await _visit(made(Streams(session), visit), visit)
        except CommandRefused as error:
            raise BrowserFailed(f"The browser refused a command: {error}.") from error
        finally:
            await session.close()


async def _visit(browser: Page, visit: Visit) -> Sight:
    try:
        async with asyncio.timeout(START):
            await browser.begin()
    except TimeoutError:
        raise BrowserFailed(f"The browser was not ready within {START:g} s.") from None
    since, stage = time.monotonic(), "it was loading"
    try:
        async with asyncio.timeout(visit.timeout):
            await browser.load()
            stage = "its picture was being taken"
            await browser.take()
    except TimeoutError:
        waited = f"nothing matches '{visit.selector}'" if visit.selector else stage
        raise late(visit, waited if stage == "it was loading" else stage) from None
    browser.sight.seconds = round(time.monotonic() - since, 3)
    return browser.sight
