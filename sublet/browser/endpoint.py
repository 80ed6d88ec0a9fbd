"""A Chromium that programs of this host drive: Playwright, Puppeteer, whatever speaks DevTools.

Chromium answers on the loopback of its instance alone, whatever it is told. socat carries there
what comes to the instance's address from its gateway, which is this host; what other instances
send, whose addresses are theirs and cannot be chosen, it hangs up on. The port is published on
this host's 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sublet.browser import chromium
from sublet.browser.looking import LABEL, START, Say, request
from sublet.domain.browsing import Kind, kind_of
from sublet.domain.errors import BrowserFailed, InvalidArgument
from sublet.sdk import AsyncClient, AsyncInstance

_INNER, _OUTER = 9222, 9223
_PAUSE = 0.1
_MOST = 1 << 16

_PROGRAM = f"""
gateway=$(awk '$2 == "00000000" {{
    for (i = 7; i > 0; i -= 2) print "0x" substr($3, i, 2)
    exit
}}' /proc/net/route)
[ "$gateway" ] || {{ echo "no route: nobody could connect" >&2; exit 1; }}
range=$(printf %d.%d.%d.%d $gateway)/32
socat TCP-LISTEN:{_OUTER},fork,reuseaddr,range=$range TCP:127.0.0.1:{_INNER},retry=50,interval=0.1 &
exec "$0" "$@"
"""
"""Of a route, /proc/net/route has the gateway in hexadecimal, the last byte first (proc(5))."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where it answers: `url` is what Playwright's `connect_over_cdp` takes, `websocket` the
    browser's own address; `id` and `name` of the instance."""

    id: str
    name: str
    browser: str
    url: str
    websocket: str


async def serve(
    client: AsyncClient,
    image: str,
    flags: Sequence[str],
    *,
    url: str = "about:blank",
    ports: Sequence[int] = (),
    progress: Say = lambda text: None,
    **options: Any,
) -> Endpoint:
    """Start a Chromium with further `flags`, which shows `url`; when it answers, where. It goes
    with what `options` of `instance_spec` say: a lease, a time to live. Raises BrowserFailed."""
    if kind_of(image) is not Kind.CHROMIUM:
        raise InvalidArgument(
            "--cdp is Chromium's protocol; Firefox does not speak it.",
            hint="Give --browser chromium:bookworm.",
        )
    debugging = f"--remote-debugging-port={_INNER}"
    command = ("sh", "-c", _PROGRAM, "chromium", *chromium.FLAGS, debugging, *flags, url)
    options = {"labels": {LABEL: Kind.CHROMIUM.value}, "cpus": 2, "init": True, **options}
    published = [f"127.0.0.1:0:{_OUTER}"]
    spec = request(image, command, ports, **options, ports=published)
    row = await client.launch(spec, progress)
    instance = AsyncInstance(client, row)
    try:
        return await _answer(instance, int(row["ports"][0]["host_port"]))
    except BaseException:
        await asyncio.shield(instance.remove(force=True))
        raise


async def _answer(instance: AsyncInstance, port: int) -> Endpoint:
    last = "nothing"
    try:
        async with asyncio.timeout(START):
            while True:
                try:
                    version = await _version(port)
                    break
                except (OSError, ValueError, EOFError) as error:
                    last = str(error) or type(error).__name__
                await asyncio.sleep(_PAUSE)
    except TimeoutError:
        raise BrowserFailed(f"The browser did not answer within {START:g} s: {last}.") from None
    return Endpoint(
        instance.id,
        instance.name,
        chromium.named(str(version.get("Browser", ""))),
        f"http://127.0.0.1:{port}",
        str(version.get("webSocketDebuggerUrl", "")),
    )


async def _version(port: int) -> dict[str, Any]:
    """What it says of itself, by HTTP. Raises OSError, ValueError while it does not."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET /json/version HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.partition("content-length:")[2].split("\r\n")[0])
        if not 0 < length <= _MOST:
            raise ValueError(f"an answer of {length} bytes")
        found = json.loads(await reader.readexactly(length))
    finally:
        writer.transport.abort()
    if not isinstance(found, dict):
        raise ValueError("no object")
    return found
