"""What `commit --change` takes."""

from __future__ import annotations

from typing import Any

import pytest

from sublet.domain.errors import InvalidArgument
from sublet.domain.image import ImageConfig
from sublet.domain.instruction import instructed

BEFORE = ImageConfig(
    entrypoint=("/old",),
    cmd=("arg",),
    env=("A=1", "PATH=/bin"),
    exposed_ports=("80/tcp",),
    working_dir="/srv",
    labels={"a": "1"},
    volumes=("/data",),
)


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ('CMD ["/run", "a b"]', "cmd", ("/run", "a b")),
        ("cmd echo  hello", "cmd", ("/bin/sh", "-c", "echo  hello")),
        ('ENTRYPOINT ["/new"]', "entrypoint", ("/new",)),
        ('ENTRYPOINT ["/new"]', "cmd", ()),
        ('ENV A=2 B="two words"', "env", ("A=2", "PATH=/bin", "B=two words")),
        ("ENV C the rest", "env", ("A=1", "PATH=/bin", "C=the rest")),
        ("EXPOSE 443 53/udp", "exposed_ports", ("443/tcp", "53/udp", "80/tcp")),
        ("LABEL b='x y' c=", "labels", {"a": "1", "b": "x y", "c": ""}),
        ("USER 1000:1000", "user", "1000:1000"),
        ("WORKDIR /a", "working_dir", "/a"),
        ("WORKDIR sub", "working_dir", "/srv/sub"),
        ("STOPSIGNAL SIGINT", "stop_signal", "SIGINT"),
        ('VOLUME ["/b c"]', "volumes", ("/b c", "/data")),
        ("VOLUME /b /c", "volumes", ("/b", "/c", "/data")),
        ("HEALTHCHECK NONE", "healthcheck", {"Test": ["NONE"]}),
        ("HEALTHCHECK CMD true", "healthcheck", {"Test": ["CMD-SHELL", "true"]}),
        (
            'HEALTHCHECK --interval=5s --retries=2 CMD ["/check"]',
            "healthcheck",
            {"Test": ["CMD", "/check"], "Interval": 5_000_000_000, "Retries": 2},
        ),
    ],
)
def test_instructions(text: str, field: str, value: Any) -> None:
    assert getattr(instructed(BEFORE, [text]), field) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "CMD",
        "FROM x",
        "RUN true",
        "CMD [1]",
        "CMD [",
        "ENV =1",
        "ENV A=1 B",
        "EXPOSE x",
        "EXPOSE 0",
        "EXPOSE 80/sctp",
        "USER a b",
        "STOPSIGNAL SIGNO",
        "VOLUME data",
        "HEALTHCHECK",
        "HEALTHCHECK RUN",
        "HEALTHCHECK --retries=x CMD y",
        "LABEL 'a",
        "HEALTHCHECK --often=1s CMD y",
        "ENV A=1\nUSER root",
        "USER a\u0000",
    ],
)
def test_malformed(text: str) -> None:
    with pytest.raises(InvalidArgument):
        instructed(BEFORE, [text])


def test_in_order() -> None:
    config = instructed(BEFORE, ["CMD a", 'ENTRYPOINT ["/x"]', "ENV A=2", "ENV A=3"])
    assert (config.cmd, config.env[0]) == ((), "A=3")
