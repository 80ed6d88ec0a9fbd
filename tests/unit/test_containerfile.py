"""The base images that a Containerfile names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublet.domain.containerfile import base_images, expand, substitute
from sublet.domain.errors import BuildFailed


@pytest.mark.parametrize(
    ("text", "images"),
    [
        ("FROM debian:bookworm\n", ["debian:bookworm"]),
        ("from debian:bookworm as x\nFROM x\n", ["debian:bookworm"]),
        ("FROM --platform=linux/amd64 debian AS a\nFROM scratch\nCOPY --from=a / /\n", ["debian"]),
        ("ARG S=trixie\nFROM debian:$S\n", ["debian:trixie"]),
        ('ARG S="trixie"\nARG I=debian:${S}\nFROM ${I}\n', ["debian:trixie"]),
        ("FROM debian:${S:-sid}\n", ["debian:sid"]),
        ("FROM a\nFROM b\nCOPY --from=0 /x /\nCOPY --from=c:1 /y /\n", ["a", "b", "c:1"]),
        ("FROM a\nCOPY --chown=1:1 --from=c /y /\n", ["a", "c"]),
        ("FROM a\nRUN --mount=type=bind,from=c,target=/c true\n", ["a", "c"]),
        ("FROM a\nRUN echo FROM b\n", ["a"]),
        ("FROM a\nRUN echo \\\n# comment\nFROM b\nFROM c\n", ["a", "c"]),
        ("FROM a\nRUN cat <<EOF\nFROM b\nEOF\n", ["a"]),
        ("# syntax=docker/dockerfile:1\n\nFROM a\n", ["a"]),
        ("FROM a\nFROM a\n", ["a"]),
    ],
)
def test_base_images(text: str, images: list[str]) -> None:
    assert base_images(text) == images


def test_arguments_override_defaults() -> None:
    assert base_images("ARG S=trixie\nFROM debian:$S\n", {"S": "sid"}) == ["debian:sid"]


def test_substitution_keeps_the_rest() -> None:
    text = (
        "ARG S=x\nFROM --platform=linux/amd64 debian:$S AS base # no\n"
        "COPY --from=c /a /b\nFROM base\n"
    )
    assert substitute(text, lambda name: f"<{name}>") == (
        "ARG S=x\nFROM --platform=linux/amd64 <debian:x> AS base # no\n"
        "COPY --from=<c> /a /b\nFROM base\n"
    )


@pytest.mark.parametrize("text", ["", "RUN true\n", "# FROM a\n", "FROM $NONE\n"])
def test_files_without_a_base_are_refused(text: str) -> None:
    with pytest.raises(BuildFailed):
        base_images(text)


@pytest.mark.parametrize(
    ("text", "result"),
    [("$A-${A}", "1-1"), ("${B:-x}", "x"), ("${A:+x}", "x"), ("${B:+x}", ""), ("$B", "")],
)
def test_expand(text: str, result: str) -> None:
    assert expand(text, {"A": "1"}) == result


@given(st.text(alphabet="FROM abARG=\\\n$#{}<-", max_size=60))
def test_any_text_is_answered(text: str) -> None:
    try:
        substitute(text, lambda name: name)
    except BuildFailed:
        return
