"""What was seen of a page."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Sight:
    """`browser` is its name and version, `status` HTTP's, None where there is none; `screenshot` a
    PNG, `pdf` a PDF, empty where none was asked for; `seconds` from the request of the page to the
    picture; `notes` what one should know, a sentence each."""

    browser: str = ""
    title: str = ""
    url: str = ""
    status: int | None = None
    screenshot: bytes = b""
    pdf: bytes = b""
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
