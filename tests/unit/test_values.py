"""What people write: memory, CPUs, durations, sizes, ports, mounts, names, references."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublet.domain import names, units
from sublet.domain.errors import InvalidArgument
from sublet.domain.mounts import Mount, MountType, parse_mount
from sublet.domain.ports import Port, parse_ports
from sublet.domain.reference import Reference, is_digest
from sublet.domain.size import Size
from sublet.domain.units import MINIMUM_MEMORY

DIGEST = "sha256:" + "0123456789abcdef" * 4
anything = st.text(max_size=40)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("512", 512),
        ("512b", 512),
        ("1k", 1 << 10),
        ("256m", 256 << 20),
        ("256M", 256 << 20),
        ("256MB", 256 << 20),
        ("1.5GiB", 3 << 29),
        (" 2 g ", 2 << 30),
        ("1t", 1 << 40),
    ],
)
def test_memory(text: str, count: int) -> None:
    assert units.parse_memory(text) == count


@pytest.mark.parametrize("text", ["", "m", "-1m", "1e3", "1x", "1 2m", "0x10", "1,5g", "nan"])
def test_malformed_memory(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        units.parse_memory(text)
    assert text in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("text", ["9" * 400, "9" * 400 + "t", "8388608t"])
def test_more_memory_than_there_is(text: str) -> None:
    with pytest.raises(InvalidArgument, match="any host"):
        units.check_memory(units.parse_memory(text))


@given(st.integers(0, 1 << 50), st.sampled_from("kmgt"))
def test_memory_scales(count: int, unit: str) -> None:
    scale = units.parse_memory(f"1{unit}")
    assert units.parse_memory(f"{count % 4096}{unit}") == count % 4096 * scale


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "", "two", "65537"])
def test_malformed_cpus(text: str) -> None:
    with pytest.raises(InvalidArgument):
        units.parse_cpus(text)


@pytest.mark.parametrize(("text", "cpus"), [("0.05", 0.05), ("2", 2.0), ("65536", 65536.0)])
def test_cpus(text: str, cpus: float) -> None:
    assert units.parse_cpus(text) == cpus


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *[("0", 0), ("90s", 90), ("30m", 1800), ("2h", 7200), ("7d", 604800)],
        *[("500ms", 0.5), ("1m30s", 90), ("1h30m", 5400), ("1.5s", 1.5)],
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "1w", "-1s", "1h30", "1h 30m", "ms"])
def test_malformed_durations(text: str) -> None:
    with pytest.raises(InvalidArgument):
        units.parse_duration(text)


def test_formats() -> None:
    assert units.format_bytes(0) == "0 B"
    assert units.format_bytes(1023) == "1023 B"
    assert units.format_bytes(63 << 20) == "63.0 MiB"
    assert units.format_bytes(5 << 40) == "5.0 TiB"
    assert units.format_age(-3) == "0 seconds"
    assert units.format_age(1) == "1 second"
    assert units.format_age(7200) == "2 hours"
    assert units.format_age(86400) == "1 day"


def test_what_is_left_is_not_said_to_be_half_of_it() -> None:
    given = (7199.9, 5400, 119.9, 45, 1)
    assert [units.format_left(n) for n in given] == [
        "2 hours",
        "90 minutes",
        "2 minutes",
        "45 seconds",
        "1 second",
    ]


def test_dollars_have_no_exponent() -> None:
    given = (5, 0.5, 0.00001, 1234567.5, 100)
    assert [units.format_dollars(n) for n in given] == [
        "$5",
        "$0.5",
        "$0.00001",
        "$1234567.5",
        "$100",
    ]


def test_one_vcpu_is_one() -> None:
    assert [units.format_cpus(n) for n in (0, 0.5, 1, 2)] == [
        "0 vCPUs",
        "0.5 vCPUs",
        "1 vCPU",
        "2 vCPUs",
    ]
    assert units.rfc3339(0) == "1970-01-01T00:00:00.000Z"
    assert units.rfc3339(1.5) == "1970-01-01T00:00:01.500Z"
    assert units.rfc3339(1e300) == "9999-12-31T23:59:59.000Z"


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_sizes_survive_their_text(cpus: int, gib: int) -> None:
    size = Size.parse(f"{cpus}x{gib}")
    assert size == Size(cpus, gib << 30)
    assert Size.parse(str(size)) == size


def test_small_sizes() -> None:
    assert str(Size.parse("0.05x0.03")) == "0.05x0.03"
    assert str(Size.parse("896x32768")) == "896x32768", "no exponent"
    assert Size(1, MINIMUM_MEMORY).memory == MINIMUM_MEMORY
    for bad in ("0x1", "1x0", "1", "x", "1x", "-1x1", "1x1x1", "1*1", "1x1m"):
        with pytest.raises(InvalidArgument):
            Size.parse(bad)


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("80", [Port(80)]),
        ("8080:80", [Port(80, 8080)]),
        ("127.0.0.1:8080:80/udp", [Port(80, 8080, "127.0.0.1", "udp")]),
        ("127.0.0.1::80", [Port(80, 0, "127.0.0.1")]),
        ("8000-8002:80-82", [Port(80, 8000), Port(81, 8001), Port(82, 8002)]),
        ("1:65535/tcp", [Port(65535, 1)]),
    ],
)
def test_ports(text: str, ports: list[Port]) -> None:
    assert parse_ports(text) == ports


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "a",
        "0",
        "65536",
        "8080:0",
        "80/",
        "80/sctp",
        "80/TCP",
        "1:2:3:4",
        "1.2.3:80:80",
        "::1:80:80",
        "host:80:80",
        "90-80",
        "8000-8002:80-81",
        "80 ",
        "-80",
        "٨٠",
        "127.0.0.1:80",
    ],
)
def test_malformed_ports(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_ports(text)
    assert caught.value.hint


@given(st.integers(1, 65535), st.integers(1, 65535), st.sampled_from(["tcp", "udp"]))
def test_ports_as_written(inner: int, outer: int, protocol: str) -> None:
    (port,) = parse_ports(f"10.0.0.1:{outer}:{inner}/{protocol}")
    assert str(port) == f"10.0.0.1:{outer}->{inner}/{protocol}"


def test_mounts() -> None:
    assert parse_mount("/srv/data:/data") == Mount("/srv/data", "/data")
    assert parse_mount("/srv//data/:/data/.:ro") == Mount("/srv/data", "/data", True)
    assert parse_mount("/a:/b:rw") == Mount("/a", "/b", False)
    assert parse_mount("/a") == Mount("", "/a", type=MountType.VOLUME)
    assert parse_mount("data:/a:ro,nocopy") == Mount(
        "data", "/a", True, MountType.VOLUME, nocopy=True
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "/proc",
        "da ta:/data",
        "../x:/data",
        "..:/data",
        "data:/data:nocopy,rx",
        "/a:b",
        "/a:/b:rx",
        "/a:/b:ro:z",
        "/a/../etc:/b",
        "/a:/b/../../etc",
        "/a:/",
        "/a:/.",
        "/a:/proc",
        "/a:/proc/1",
        "/a:/sys/fs",
        "/a:/dev",
        "/a:/./dev/null",
        "/a\0:/b",
        ":/b",
    ],
)
def test_malformed_mounts(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_mount(text)


@given(anything, anything)
def test_a_mount_is_absolute_and_never_over_kernel_files(source: str, destination: str) -> None:
    try:
        mount = parse_mount(f"/{source}:/{destination}")
    except InvalidArgument:
        return
    for path in (mount.source, mount.destination):
        assert path.startswith("/")
        assert ".." not in path.split("/")
    assert mount.destination.strip("/").split("/")[0] not in ("", "proc", "sys", "dev")


@pytest.mark.parametrize("name", ["a", "db", "web-1", "a_b.c", "0", "a" * 63])
def test_names(name: str) -> None:
    assert names.validate_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", ".a", "a/b", "a b", "a\n", "é", "a" * 64, "../etc"])
def test_malformed_names(name: str) -> None:
    with pytest.raises(InvalidArgument):
        names.validate_name(name)


@pytest.mark.parametrize("name", ["", "-a", "a-", "a_b", "a.", "a\n", "a" * 64])
def test_malformed_hostnames(name: str) -> None:
    with pytest.raises(InvalidArgument):
        names.validate_hostname(name)


@given(st.integers(0, (1 << 48) - 1))
def test_friendly_names_are_names(number: int) -> None:
    instance_id = f"{number:012x}"
    assert names.is_id(instance_id)
    assert names.validate_name(names.friendly_name(instance_id)).endswith(instance_id[:4])


@pytest.mark.parametrize(
    "text", ["", "0123456789a", "0123456789abc", "0123456789AB", "0" * 11 + "g"]
)
def test_what_is_no_id(text: str) -> None:
    assert not names.is_id(text)


@pytest.mark.parametrize(
    ("text", "short", "qualified", "registry"),
    [
        ("debian", "debian:latest", "docker.io/library/debian:latest", "docker.io"),
        ("debian:bookworm", "debian:bookworm", "docker.io/library/debian:bookworm", "docker.io"),
        ("docker.io/library/debian:12", "debian:12", "docker.io/library/debian:12", "docker.io"),
        ("docker.io/team/app", "team/app:latest", "docker.io/team/app:latest", "docker.io"),
        ("team/app:1", "team/app:1", "docker.io/team/app:1", "docker.io"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest", "localhost"),
        (
            "registry.example:5000/team/app:1.0",
            "registry.example:5000/team/app:1.0",
            "registry.example:5000/team/app:1.0",
            "registry.example:5000",
        ),
        (
            f"127.0.0.1:5000/app@{DIGEST}",
            f"127.0.0.1:5000/app@{DIGEST}",
            f"127.0.0.1:5000/app@{DIGEST}",
            "127.0.0.1:5000",
        ),
    ],
)
def test_references(text: str, short: str, qualified: str, registry: str) -> None:
    reference = Reference.parse(text)
    assert (str(reference), reference.qualified, reference.registry) == (short, qualified, registry)
    assert Reference.parse(short) == reference
    assert Reference.parse(qualified) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        ":tag",
        "Debian",
        "a:",
        "a:b c",
        "a@",
        "a@sha256:12",
        "-a",
        "a//b",
        "/a",
        "a/",
        "a/../b",
        "a:" + "t" * 129,
        "a" * 256,
        "a\n",
        "./a.sif",
        "--all",
    ],
)
def test_malformed_references(text: str) -> None:
    with pytest.raises(InvalidArgument):
        Reference.parse(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("POSTGRES:15", "postgres:15"),
        ("Team/App:V1", "team/app:V1"),
        ("registry.example/App", "registry.example/app"),
        ("docker.io/library/Redis:7", "docker.io/library/redis:7"),
        ("A b", ""),
        ("postgres@15", ""),
    ],
)
def test_capitals_in_a_reference(text: str, meant: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Reference.parse(text)
    expected = f"Names of images are in lower case: {meant}." if meant else "Write NAME[:TAG]"
    assert expected in str(caught.value.hint)


component = st.from_regex(r"[a-z0-9]{1,8}(?:[._-][a-z0-9]{1,8})?", fullmatch=True)


@given(st.lists(component, min_size=1, max_size=3), component)
def test_references_survive_their_text(components: list[str], tag: str) -> None:
    reference = Reference.parse("/".join(components) + ":" + tag)
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.qualified) == reference


def test_digests() -> None:
    assert is_digest(DIGEST)
    assert not is_digest(DIGEST[:-1])
    assert not is_digest("sha512:" + "0" * 64)


@given(anything)
@pytest.mark.parametrize(
    "parse",
    [
        units.parse_memory,
        units.parse_cpus,
        units.parse_duration,
        Size.parse,
        parse_ports,
        parse_mount,
        names.validate_name,
        names.validate_hostname,
        Reference.parse,
    ],
)
def test_any_text_is_taken_or_refused(parse: object, text: str) -> None:
    """No input leads to a traceback."""
    assert callable(parse)
    with contextlib.suppress(InvalidArgument):
        parse(text)
