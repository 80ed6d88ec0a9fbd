"""Errors of pages, in words: what the browsers call them, and what one can do."""

from __future__ import annotations

import re

from sublet.domain.browsing import Visit, page_of
from sublet.domain.errors import BrowserFailed, InvalidArgument, PageUnreachable

_REFUSED, _CUT = "nothing listens there", "the connection was cut off"
_CERTIFICATE = "its certificate is not valid"

_REASONS = (
    ("NAME_NOT_RESOLVED|UNKNOWN_HOST|dnsNotFound", "its host name is not known"),
    ("CONNECTION_REFUSED|connectionFailure", _REFUSED),
    ("CONNECTION_(RESET|CLOSED)|EMPTY_RESPONSE|SOCKET_NOT|NET_(RESET|INTERRUPT)|netReset|netInter",
     _CUT),
    ("TIMED_OUT|NET_TIMEOUT|netTimeout", "nobody answered in time"),
    ("SSL_PROTOCOL_ERROR|RX_RECORD_TOO_LONG|SSL_VERSION", "what answers there speaks no HTTPS"),
    ("CERT_|SEC_ERROR|SSL_|MOZILLA_PKIX|nssFailure|nssBadCert|BAD_CERT", _CERTIFICATE),
    ("TOO_MANY_REDIRECTS|REDIRECT_LOOP|redirectLoop", "it leads round in a circle"),
    ("UNSAFE_PORT|PORT_ACCESS|deniedPort", "browsers refuse this port"),
    ("DISCONNECTED|(ADDRESS|HOST|NETWORK)_UNREACHABLE|netOffline", "there is no way there"),
)  # fmt: skip
"""What net::ERR_… of Chromium and NS_ERROR_… of Firefox mean; the first that fits counts."""


def unreachable(url: str, problem: str) -> PageUnreachable:
    """For a page that did not come; `problem` is what the browser says."""
    page = page_of(url)
    reason = next((text for words, text in _REASONS if re.search(words, problem)), "")
    if page.port and reason in (_REFUSED, _CUT):  # the host's refusal cuts off the instance's
        return PageUnreachable(
            f"{url} cannot be reached: nothing answers at port {page.port} of this host's "
            "loopback.",
            hint=f"Start your server; `ss -ltn` shows whether it listens at 127.0.0.1:{page.port}.",
        )
    told = problem.strip().splitlines()[0][:200] if problem.strip() else "no reason was told"
    hint = "Give --insecure if you know why." if reason == _CERTIFICATE else None
    return PageUnreachable(f"{url} cannot be reached: {reason or told}.", hint=hint)


def late(visit: Visit, seen: str) -> PageUnreachable:
    """For a page that takes longer than it may."""
    return PageUnreachable(
        f"{visit.url} did not finish within {visit.timeout:g} s: {seen}.",
        hint="Give it longer: --timeout 60s.",
    )


def downloaded() -> PageUnreachable:
    """For a URL that gives no page."""
    return PageUnreachable("The URL leads to a download, not to a page.", hint="Use curl for it.")


def unselectable(selector: str) -> InvalidArgument:
    """For what is no selector."""
    return InvalidArgument(
        f"'{selector}' is no CSS selector.", hint="Write --wait-for '#main' or '.ready'."
    )


def crashed() -> BrowserFailed:
    """For a page whose process has ended."""
    return BrowserFailed(
        "The page's process crashed, perhaps for want of memory.",
        hint="Give the browser more: --memory 4g.",
    )
