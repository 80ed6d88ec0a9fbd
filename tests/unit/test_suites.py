"""Debian and Ubuntu suites, and apt's sources."""

from __future__ import annotations

import pytest

from sublet.domain.reference import Reference
from sublet.domain.suites import Source, Suite, mirror_for, parse_sources, source_line, suite_of

DEB822 = """\
Types: deb deb-src
# a comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/x.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: trixie
Components: main
"""
LINES = """\
# deb http://commented.example/debian bookworm main
deb [arch=amd64 signed-by=/x.gpg] https://packages.example/tool stable-x main
deb-src http://sources.example/debian bookworm main
deb cdrom:[Debian]/ bookworm main
deb [ arch=amd64 ] http://lines.example/debian/ trixie main # tail
deb http://archive.example/ubuntu noble main universe
"""


@pytest.mark.parametrize(
    ("text", "suite"),
    [
        ("debian:bookworm", Suite("debian", "bookworm")),
        ("debian:12", Suite("debian", "bookworm")),
        ("debian:12.5", Suite("debian", "bookworm")),
        ("debian:13-slim", Suite("debian", "trixie")),
        ("debian:bookworm-slim", Suite("debian", "bookworm")),
        ("debian", Suite("debian", "stable")),
        ("docker.io/library/debian:sid", Suite("debian", "sid")),
        ("ubuntu:24.04", Suite("ubuntu", "noble")),
        ("ubuntu:jammy", Suite("ubuntu", "jammy")),
        ("debian:nonesuch", None),
        ("other/debian:12", None),
        ("postgres:15", None),
        ("debian@sha256:" + "0" * 64, None),
    ],
)
def test_suite_of(text: str, suite: Suite | None) -> None:
    assert suite_of(Reference.parse(text)) == suite


def test_deb822() -> None:
    sources = parse_sources([("debian.sources", DEB822)])
    assert [source.uri for source in sources] == [
        "http://mirror.example/debian",
        "http://mirror.example/debian-security",
    ]
    debian = Suite("debian", "trixie")
    assert mirror_for(debian, sources) == "http://mirror.example/debian"
    assert mirror_for(debian, sources, security=True) == "http://mirror.example/debian-security"
    assert mirror_for(Suite("ubuntu", "noble"), sources) == ""


def test_one_line_sources() -> None:
    sources = parse_sources([("sources.list", LINES)])
    assert sources == [
        Source("https://packages.example/tool", ("stable-x",), ("main",)),
        Source("http://lines.example/debian/", ("trixie",), ("main",)),
        Source("http://archive.example/ubuntu", ("noble",), ("main", "universe")),
    ]
    assert mirror_for(Suite("debian", "bookworm"), sources[1:]) == "http://lines.example/debian"
    assert mirror_for(Suite("ubuntu", "noble"), sources) == "http://archive.example/ubuntu"


def test_source_line() -> None:
    assert source_line("http://m", "sid", "debian") == "deb http://m sid main"
    assert source_line("http://m", "noble", "ubuntu") == "deb http://m noble main universe"
