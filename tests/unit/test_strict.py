"""Requests are taken as they are meant, or refused with the key that is wrong."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from sublet.api.native import (
    images,
    networks,
    paths,
    pruning,
    registries,
    snapshots,
    strict,
    volumes,
)
from sublet.api.native.relay import _CONTROL, Resize, SendSignal
from sublet.domain.errors import InvalidArgument
from sublet.domain.spec import InstanceSpec

SPEC = TypeAdapter(InstanceSpec)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"image": "i", "memry": 5}', "unknown key 'memry'"),
        ('{"image": "i", "restart": {"nam": "no"}}', r"unknown key 'restart\.nam'"),
        ('{"image": "i", "memory": "much"}', "memory: "),
        ("{}", "image: "),
        ("nonsense", "Invalid JSON"),
    ],
)
def test_what_is_refused_is_named(text: str, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        strict.parse(SPEC, text)


def test_every_body_refuses_what_it_does_not_know() -> None:
    """FastAPI itself parses these; what Body is not the base of would take any key."""
    modules = (images, networks, pruning, registries, snapshots, volumes)
    kinds = [
        kind
        for module in modules
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, BaseModel)
    ]
    assert all(issubclass(kind, strict.Body) for kind in kinds)
    with pytest.raises(ValidationError, match="nmae"):
        images.Tag.model_validate({"source": "a", "name": "b", "nmae": "c"})


def test_half_of_a_character_is_no_text() -> None:
    """JSON may hold what has no UTF-8. Bytes of a file's name that are none travel as Python has
    them (os.fsencode)."""
    with pytest.raises(ValidationError, match="half of a character"):
        images.Tag.model_validate({"source": "\ud800", "name": "b"})
    assert paths.Asked.model_validate({"verb": "stat", "path": "/\udcff"}).path == "/\udcff"


def test_a_request_is_taken() -> None:
    assert strict.parse(SPEC, '{"image": "i", "labels": {"any": "key"}}').labels == {"any": "key"}


def test_control_messages() -> None:
    size = strict.parse(_CONTROL, '{"type": "resize", "rows": 5, "columns": 80}')
    assert size == Resize(type="resize", rows=5, columns=80)
    sent = strict.parse(_CONTROL, '{"type": "signal", "signal": "TERM"}')
    assert sent == SendSignal(type="signal", signal="TERM")


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "7", "null", '{"type": "resize"}', '{"type": "dance"}', '{"type": "signal"}'),
        '{"type": "resize", "rows": -1, "columns": 80}',
        '{"type": "resize", "rows": 1e9, "columns": 80}',
    ],
)
def test_malformed_control_messages_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        strict.parse(_CONTROL, text)
