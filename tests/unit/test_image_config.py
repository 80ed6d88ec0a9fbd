"""The OCI image configuration: read back as written, malformed input refused."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublet.domain.errors import CorruptImage
from sublet.domain.image import LABEL_SHA256, MAX_HISTORY, ImageConfig, Step

text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
texts = st.lists(text, max_size=3).map(tuple)
names = st.sets(text, max_size=3).map(lambda found: tuple(sorted(found)))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)

configs = st.builds(
    ImageConfig,
    architecture=st.sampled_from(["amd64", "arm64"]),
    created=text,
    entrypoint=texts,
    cmd=texts,
    env=texts,
    user=text,
    working_dir=text,
    exposed_ports=names,
    volumes=names,
    stop_signal=text,
    healthcheck=st.dictionaries(text, text, max_size=2),
    labels=st.dictionaries(text, text, max_size=3),
    history=st.lists(st.builds(Step, text, text, text, text, st.booleans()), max_size=3).map(tuple),
)


@given(configs)
def test_read_back_as_written(config: ImageConfig) -> None:
    assert ImageConfig.from_json(config.to_json()) == config


@given(configs)
def test_the_text_is_canonical(config: ImageConfig) -> None:
    assert ImageConfig.from_json(config.to_json()).to_json() == config.to_json()


def test_what_other_tools_write() -> None:
    config = ImageConfig.from_json(
        b'{"os": "linux", "rootfs": {"type": "layers"}, "config": {"Cmd": null, "Env": ["A=b"],'
        b' "ExposedPorts": {"5432/tcp": {}}, "Labels": {"a": "b"}, "ArgsEscaped": true}}'
    )
    assert config.env == ("A=b",)
    assert config.exposed_ports == ("5432/tcp",)
    assert config.cmd == ()
    assert config.labels == {"a": "b"}


def test_labels_are_added_to_a_copy() -> None:
    old = ImageConfig(labels={"a": "1"})
    new = old.with_labels({f"{LABEL_SHA256}root": "ff"})
    assert old.labels == {"a": "1"}
    assert new.labels == {"a": "1", f"{LABEL_SHA256}root": "ff"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b'{"config": "x"}',
        b'{"config": {"Cmd": "sh"}}',
        b'{"config": {"Cmd": [1]}}',
        b'{"config": {"Env": {"A": "b"}}}',
        b'{"config": {"User": 0, "Entrypoint": 7}}',
        b'{"config": {"User": "a\\u0000b"}}',
        b'{"config": {"Cmd": ["a\\u0000"]}}',
        b'{"config": {"Labels": ["a"]}}',
        b'{"architecture": ["amd64"]}',
        b'{"config": {"ExposedPorts": "80/tcp"}}',
        b'{"config": {"Volumes": ["/data"]}}',
        b'{"history": {"created_by": "x"}}',
        b'{"history": ["x"]}',
        b'{"history": [{"created_by": 5}]}',
        b'{"history": [' + b"{}," * MAX_HISTORY + b"{}]}",
        b"[" * 100_000,
    ],
)
def test_malformed(data: bytes) -> None:
    with pytest.raises(CorruptImage):
        ImageConfig.from_json(data)


@given(json_values)
def test_any_json_is_taken_or_refused(value: object) -> None:
    for data in (value, {"config": value}, {"config": {"Cmd": value, "Labels": value}}):
        with contextlib.suppress(CorruptImage):
            ImageConfig.from_json(json.dumps(data).encode())
