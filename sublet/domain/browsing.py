"""What `sublet browse` is asked for: a page, a browser, the size of a window."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import SplitResult, urlsplit

from sublet.domain.errors import InvalidArgument

_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://|about:|data:")
_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")
_EVERYWHERE = frozenset({"0.0.0.0", "::", "::1"})
_STANDARD = {"http": 80, "https": 443}
_LEAST, _MOST = 16, 16384
"""Pixels of a window's side; the latter is what one picture of a browser's has at most."""


class Kind(StrEnum):
    """Which browser an image holds: they are driven by different protocols."""

    CHROMIUM = "chromium"
    FIREFOX = "firefox"


@dataclass(frozen=True, slots=True)
class Page:
    """A page to look at. `port`: that of this host's loopback which it is served at; 0: none.
    `name` is what a file with its picture is called."""

    url: str
    port: int
    name: str


@dataclass(frozen=True, slots=True)
class Visit:
    """How a page is looked at: `width`, `height` in CSS pixels, each `scale` pixels of the picture;
    `wait` in seconds after it has loaded, `selector` what has to be there, `timeout` in seconds for
    all of it; `insecure` takes any certificate."""

    url: str
    width: int = 1280
    height: int = 800
    scale: float = 1.0
    full_page: bool = False
    dark: bool = False
    user_agent: str = ""
    wait: float = 0.0
    selector: str = ""
    timeout: float = 30.0
    insecure: bool = False
    screenshot: bool = True
    pdf: bool = False


def page_of(text: str) -> Page:
    """The page that a URL names; without a scheme, by http. Raises InvalidArgument."""
    url = text if _SCHEME.match(text) else f"http://{text}"
    parts, host = _split(text, url)
    if parts.scheme in ("about", "data"):
        return Page(url, 0, parts.scheme)
    if parts.scheme not in _STANDARD:
        raise _wrong(text)
    if not host or text.startswith(("./", "../")):
        raise _wrong(text)
    port = _port(text, parts)
    if not _is_here(host):
        return Page(url, 0, _name(parts))
    if host in _EVERYWHERE:  # where servers say they listen: nobody can be called there
        host = "localhost"
        user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
        parts = parts._replace(netloc=f"{user}{host}:{port}")
        url = parts.geturl()
    return Page(url, port, _name(parts))


def kind_of(image: str) -> Kind:
    """The browser that an image holds, by its name. Raises InvalidArgument."""
    name = image.rpartition("/")[2].lower()
    for kind, word in ((Kind.FIREFOX, "firefox"), (Kind.CHROMIUM, "chrom")):
        if word in name:
            return kind
    raise InvalidArgument(
        f"'{image}' is no browser that is known here.",
        hint="Give an image with chromium or firefox in its name, such as chromium:bookworm.",
    )


def window_of(text: str) -> tuple[int, int]:
    """Width and height of a window written as 1280x800. Raises InvalidArgument."""
    match = _SIZE.fullmatch(text)
    width, height = (int(match[1]), int(match[2])) if match else (0, 0)
    if not (_LEAST <= width <= _MOST and _LEAST <= height <= _MOST):
        raise InvalidArgument(
            f"'{text}' is no size of a window.",
            hint=f"Write WIDTHxHEIGHT such as 1280x800, each from {_LEAST} to {_MOST}.",
        )
    return width, height


def file_name(page: Page, image: str) -> str:
    """What the picture of a page is called where nobody says: localhost-3000.chromium-bookworm."""
    return f"{page.name}.{re.sub(r'[^A-Za-z0-9.-]+', '-', image.rpartition('/')[2])}"


def _split(text: str, url: str) -> tuple[SplitResult, str]:
    if not text.strip() or any(c.isspace() or not c.isprintable() for c in url):
        raise _wrong(text)
    try:
        parts = urlsplit(url)
        return parts, (parts.hostname or "").lower().rstrip(".")
    except ValueError:
        raise _wrong(text) from None


def _port(text: str, parts: SplitResult) -> int:
    try:
        return parts.port or _STANDARD[parts.scheme]
    except ValueError:
        raise _wrong(text) from None


def _is_here(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost") or host in _EVERYWHERE:
        return True
    try:
        return ipaddress.ip_address(host) == ipaddress.IPv4Address("127.0.0.1")
    except ValueError:
        return False


def _name(parts: SplitResult) -> str:
    host = re.sub(r"[^A-Za-z0-9.-]+", "-", parts.hostname or "").strip(".-") or "page"
    return f"{host}-{parts.port}" if parts.port else host


def _wrong(text: str) -> InvalidArgument:
    return InvalidArgument(
        f"'{text[:200]}' is no URL of a page.",
        hint="Write https://example.org/ or localhost:3000. A file: serve its directory first, "
        "with `python3 -m http.server`.",
    )
