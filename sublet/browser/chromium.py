"""Chromium, by the DevTools protocol (https://chromedevtools.github.io/devtools-protocol/)."""

from __future__ import annotations

from typing import Any

from sublet.browser import scripts
from sublet.browser.conversation import CommandRefused, decoded
from sublet.browser.failures import crashed, downloaded, unreachable
from sublet.browser.page import Page
from sublet.browser.stdio import Streams, ZeroEnded
from sublet.domain.browsing import Visit
from sublet.domain.errors import BrowserFailed

FLAGS = (
    "--headless=new",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--disable-extensions",
    "--disable-gpu",
    "--hide-scrollbars",
    "--mute-audio",
    "--password-store=basic",
    "--user-data-dir=/tmp/profile",
)

PROGRAM = ("sh", "-c", 'exec "$0" "$@" 3<&0 4>&1 </dev/null 1>&2', "chromium", *FLAGS)
"""Reads commands where its standard input was, and answers where its output was."""

COMMAND = (*PROGRAM, "--remote-debugging-pipe", "about:blank")

LONGEST = 16384
"""Pixels of the longest picture that it makes."""


def named(product: str) -> str:
    """What people call a product, which itself says HeadlessChrome/1.2.3."""
    return product.replace("Headless", "").replace("Chrome/", "Chromium ")


class Chromium(Page):
    """One page of one Chromium."""

    def __init__(self, streams: Streams, visit: Visit) -> None:
        super().__init__(ZeroEnded(streams), visit)
        self._session = ""
        self._frame = self._loader = ""
        self._done: set[str] = set()

    def address(self, method: str) -> dict[str, Any]:
        ours = self._session and not method.startswith(("Target.", "Browser."))
        return {"sessionId": self._session} if ours else {}

    async def heard(self, method: str, params: dict[str, Any]) -> None:
        if method == "Page.javascriptDialogOpening":  # it would wait for an answer for ever
            await self.post("Page.handleJavaScriptDialog", accept=False)
        elif method == "Inspector.targetCrashed":
            raise crashed()
        elif method == "Page.lifecycleEvent" and params.get("frameId") == self._frame:
            if params.get("name") == "init":
                self._done.clear()
            self._done.add(str(params.get("name")))
        elif method == "Network.responseReceived" and params.get("type") == "Document":
            response = params.get("response")
            if params.get("frameId") == self._frame and isinstance(response, dict):
                self.answered(response.get("status"))

    async def begin(self) -> None:
        visit, version = self.visit, await self.call("Browser.getVersion")
        self.sight.browser = named(str(version.get("product", "")))
        made = await self.call("Target.createTarget", url="about:blank")
        target = made.get("targetId")
        session = await self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = str(session.get("sessionId", ""))
        for domain in ("Page", "Network", "Inspector"):
            await self.call(f"{domain}.enable")
        await self.call("Page.setLifecycleEventsEnabled", enabled=True)
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=visit.width,
            height=visit.height,
            deviceScaleFactor=visit.scale,
            mobile=False,
        )
        agent = visit.user_agent or str(version.get("userAgent", "")).replace("Headless", "")
        await self.call("Network.setUserAgentOverride", userAgent=agent)
        if visit.dark:
            feature = {"name": "prefers-color-scheme", "value": "dark"}
            await self.call("Emulation.setEmulatedMedia", features=[feature])
        if visit.insecure:
            await self.call("Security.setIgnoreCertificateErrors", ignore=True)
        tree = await self.call("Page.getFrameTree")
        self._frame = str(tree.get("frameTree", {}).get("frame", {}).get("id", ""))

    async def go(self) -> None:
        self._done.clear()
        went = await self.call("Page.navigate", url=self.visit.url)
        if problem := went.get("errorText"):
            raise (
                downloaded()
                if problem == "net::ERR_ABORTED"
                else unreachable(self.visit.url, str(problem))
            )
        await self.until(lambda: "load" in self._done)

    async def rested(self) -> None:
        await self.until(lambda: "networkIdle" in self._done)
        await self.evaluate(scripts.FONTS)

    async def evaluate(self, expression: str) -> Any:
        found = await self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if found.get("exceptionDetails"):
            raise CommandRefused(str(found["exceptionDetails"].get("text", "")))
        return found.get("result", {}).get("value")

    async def picture(self) -> bytes:
        whole = await self._whole() if self.visit.full_page else {}
        return decoded(await self.call("Page.captureScreenshot", format="png", **whole))

    async def printed(self) -> bytes:
        return decoded(await self.call("Page.printToPDF", printBackground=True))

    async def _whole(self) -> dict[str, Any]:
        """What asks for a picture of the page down to its end."""
        size = (await self.call("Page.getLayoutMetrics")).get("cssContentSize", {})
        width, height = (float(size.get(key, 0)) for key in ("width", "height"))
        longest = LONGEST / self.visit.scale
        if height > longest:
            self.sight.notes += (f"The page is {height:g} pixels high; this is the beginning.",)
        if min(width, height) <= 0:
            raise BrowserFailed("The page has no size.")
        clip = {"x": 0, "y": 0, "width": min(width, longest), "height": min(height, longest)}
        return {"captureBeyondViewport": True, "clip": {**clip, "scale": 1}}
