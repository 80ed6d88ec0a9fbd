"""Firefox, by WebDriver BiDi (https://w3c.github.io/webdriver-bidi/)."""

from __future__ import annotations

import json
from typing import Any

from sublet.browser import scripts
from sublet.browser.conversation import CommandRefused, decoded
from sublet.browser.failures import unreachable
from sublet.browser.page import Page
from sublet.browser.stdio import Streams, WebSocket
from sublet.domain.browsing import Visit

_PORT = 9222
_QUIET = 0.5
"""Seconds without a request in flight after which a page is at rest."""

_PREFERENCES = {
    "app.normandy.enabled": False,
    "app.update.auto": False,
    "browser.aboutwelcome.enabled": False,
    "browser.safebrowsing.downloads.remote.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.healthreport.uploadEnabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "dom.security.https_first": False,
    "extensions.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "network.http.http3.enable": False,
    "services.settings.server": "data:,#remote-settings-dummy/v1",
    "toolkit.telemetry.enabled": False,
    "ui.caretBlinkTime": 0,
    "ui.useOverlayScrollbars": 1,
}

_PROGRAM = """
mkdir -p /tmp/profile && printf '%s' "$1" > /tmp/profile/user.js || exit 1
"$0" --headless --no-remote --profile /tmp/profile --remote-debugging-port PORT >&2 </dev/null &
exec socat - TCP:127.0.0.1:PORT,retry=900,interval=0.1
""".replace("PORT", str(_PORT))
"""The browser, and what carries its WebSocket over the standard streams."""


def command(visit: Visit) -> tuple[str, ...]:
    """What its instance runs."""
    preferences: dict[str, Any] = dict(_PREFERENCES)
    preferences["layout.css.prefers-color-scheme.content-override"] = 0 if visit.dark else 1
    if visit.user_agent:
        preferences["general.useragent.override"] = visit.user_agent
    lines = [f"user_pref({json.dumps(k)}, {json.dumps(v)});" for k, v in preferences.items()]
    return ("sh", "-c", _PROGRAM, "firefox-esr", "\n".join(lines))


class Firefox(Page):
    """One page of one Firefox."""

    def __init__(self, streams: Streams, visit: Visit) -> None:
        self._socket = WebSocket(streams)
        super().__init__(self._socket, visit)
        self._context = ""
        self._flying: set[str] = set()

    async def heard(self, method: str, params: dict[str, Any]) -> None:
        if params.get("context") != self._context:
            return
        asked = params.get("request")
        number = str(asked.get("request", "")) if isinstance(asked, dict) else ""
        if method == "network.beforeRequestSent":
            self._flying.add(number)
        elif method in ("network.responseCompleted", "network.fetchError"):
            self._flying.discard(number)
        response = params.get("response")
        if method == "network.responseStarted" and params.get("navigation"):
            self.answered(response.get("status") if isinstance(response, dict) else None)

    async def begin(self) -> None:
        visit = self.visit
        await self._socket.open(f"127.0.0.1:{_PORT}", "/session")
        wanted = {
            "acceptInsecureCerts": visit.insecure,
            "unhandledPromptBehavior": {"default": "dismiss"},
        }
        made = await self.call("session.new", capabilities={"alwaysMatch": wanted})
        found = made.get("capabilities", {})
        self.sight.browser = f"Firefox {found.get('browserVersion', '')}".strip()
        names = ("beforeRequestSent", "responseStarted", "responseCompleted", "fetchError")
        await self.call("session.subscribe", events=[f"network.{name}" for name in names])
        tree = await self.call("browsingContext.getTree", maxDepth=0)
        self._context = str((tree.get("contexts") or [{}])[0].get("context", ""))
        await self.call(
            "browsingContext.setViewport",
            context=self._context,
            viewport={"width": visit.width, "height": visit.height},
            devicePixelRatio=visit.scale,
        )

    async def go(self) -> None:
        try:
            await self.call(
                "browsingContext.navigate",
                context=self._context,
                url=self.visit.url,
                wait="complete",
            )
        except CommandRefused as error:
            raise unreachable(self.visit.url, str(error)) from error

    async def rested(self) -> None:
        await self.evaluate(scripts.FONTS)
        while True:
            await self.until(lambda: not self._flying)
            await self.listen(_QUIET)
            if not self._flying:
                return

    async def evaluate(self, expression: str) -> Any:
        found = await self.call(
            "script.evaluate",
            expression=expression,
            target={"context": self._context},
            awaitPromise=True,
        )
        if found.get("type") != "success":
            raise CommandRefused(str(found.get("exceptionDetails", {}).get("text", "")))
        return found.get("result", {}).get("value")

    async def picture(self) -> bytes:
        origin = "document" if self.visit.full_page else "viewport"
        method = "browsingContext.captureScreenshot"
        return decoded(await self.call(method, context=self._context, origin=origin))

    async def printed(self) -> bytes:
        method = "browsingContext.print"
        return decoded(await self.call(method, context=self._context, background=True))
