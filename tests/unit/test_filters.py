"""Compiled seccomp filters: learned from one container, given to the next."""

from __future__ import annotations

import base64
from typing import Any

from sublet.drivers.container.filters import ANNOTATION, KEPT, Filters

COMPILED = b"8 bytes." * 3


def config(*names: str) -> dict[str, Any]:
    return {"linux": {"seccomp": {"syscalls": list(names)}}}


def test_what_one_container_compiled_the_next_is_given() -> None:
    filters = Filters()
    assert filters.apply("a", config("read")) == config("read")
    filters.learn("a", lambda: COMPILED)
    given = filters.apply("b", config("read"))
    assert base64.b64decode(given["annotations"][ANNOTATION]) == COMPILED
    assert given["linux"] == config("read")["linux"]
    assert filters.apply("c", config("write")) == config("write")


def test_unconfined_stays_so() -> None:
    filters = Filters()
    assert filters.apply("a", {"linux": {}}) == {"linux": {}}
    filters.learn("a", lambda: COMPILED)
    assert filters.apply("b", {"linux": {}}) == {"linux": {}}


def test_half_a_filter_is_none() -> None:
    filters = Filters()
    for data in (b"", b"half"):
        filters.apply("a", config("read"))
        filters.learn("a", lambda data=data: data)
        assert filters.apply("b", config("read")) == config("read")


def test_only_so_many_are_kept() -> None:
    filters = Filters()
    for number in range(KEPT + 1):
        filters.apply(str(number), config(str(number)))
        filters.learn(str(number), lambda: COMPILED)
    assert "annotations" not in filters.apply("x", config("0"))
    assert "annotations" in filters.apply("x", config("1"))
