"""What an instance may have beyond the defaults: rules, and what the OCI configuration makes
of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sublet.domain.errors import InvalidArgument, NoSuchUser
from sublet.domain.privileges import (
    CAPABILITIES,
    DEFAULT_CAPABILITIES,
    Device,
    Ulimit,
    capabilities,
    parse_device,
)
from sublet.domain.resolving import check_resolving, hosts_file, resolv_conf
from sublet.domain.seccomp import LIMIT, parse_profile
from sublet.domain.signals import signal_number
from sublet.domain.spec import InstanceSpec, check_spec
from sublet.drivers.container import seccomp
from sublet.drivers.container.devices import Node, permitted
from sublet.drivers.container.rights import UNLIMITED, Rights, bounding
from sublet.drivers.container.rootfs import find_user
from sublet.drivers.container.spec import ContainerSpec, Options, Process, config, process

EVERY = frozenset(f"CAP_{name}" for name in CAPABILITIES)
RIGHTS = Rights(EVERY)
POOR = Rights(EVERY - {"CAP_SYS_RESOURCE"}, {"nofile": 20000, "core": -1}, -500)


@pytest.mark.parametrize(
    ("added", "dropped", "expected"),
    [
        ((), (), set(DEFAULT_CAPABILITIES)),
        (("net_raw",), (), {*DEFAULT_CAPABILITIES, "CAP_NET_RAW"}),
        ((), ("CAP_CHOWN",), set(DEFAULT_CAPABILITIES) - {"CAP_CHOWN"}),
        (("chown",), ("chown",), set(DEFAULT_CAPABILITIES)),
        (("NET_RAW",), ("all",), {"CAP_NET_RAW"}),
        ((), ("ALL",), set()),
        (("ALL",), ("KILL",), EVERY - {"CAP_KILL"}),
        (("ALL",), ("ALL",), EVERY),
    ],
)
def test_capabilities_combine_as_docker_has_them(
    added: tuple[str, ...], dropped: tuple[str, ...], expected: set[str]
) -> None:
    found = capabilities(added, dropped)
    assert set(found) == expected
    assert len(found) == len(expected)


def test_what_the_host_lacks_is_left_out_and_said() -> None:
    assert "CAP_SYS_RESOURCE" not in POOR.give(("ALL",), ())
    assert POOR.lacking(("sys_resource",), ()) == ("CAP_SYS_RESOURCE",)
    assert POOR.lacking((), ()) == RIGHTS.lacking(("ALL",), ()) == ()
    assert Rights(frozenset()).lacking((), ()) == ()


def test_bounding_set_of_proc() -> None:
    assert bounding("CapBnd:\t000001fffeffffff\n") == EVERY - {"CAP_SYS_RESOURCE"}
    assert bounding("CapBnd:\t0000000000000001\n") == {"CAP_CHOWN"}
    assert bounding("") == frozenset()


def rlimits(rights: Rights, *ulimits: Ulimit) -> dict[str, tuple[int, int]]:
    return {each["type"]: (each["soft"], each["hard"]) for each in rights.rlimits(ulimits)}


def test_open_files_are_limited_without_a_flag() -> None:
    assert rlimits(RIGHTS) == {"RLIMIT_NOFILE": (1024, 524288)}
    assert rlimits(POOR) == {"RLIMIT_NOFILE": (1024, 20000)}
    assert rlimits(Rights(frozenset(), {"nofile": 100})) == {"RLIMIT_NOFILE": (100, 100)}


def test_limits_are_given_as_far_as_the_host_has_them() -> None:
    found = rlimits(POOR, Ulimit("nofile", 5, 20000), Ulimit("core", 0, -1))
    assert found == {"RLIMIT_CORE": (0, UNLIMITED), "RLIMIT_NOFILE": (5, 20000)}
    assert rlimits(RIGHTS, Ulimit("nofile", -1, -1))["RLIMIT_NOFILE"] == (UNLIMITED, UNLIMITED)
    for hard in (20001, -1):
        with pytest.raises(InvalidArgument, match="20000"):
            POOR.rlimits([Ulimit("nofile", 5, hard)])


def made(rights: Rights = RIGHTS, init: str = "", **options: Any) -> dict[str, Any]:
    """The OCI configuration with these options, as POOR or another host makes it."""
    spec = ContainerSpec(
        process=Process(("true",), (), "/", cap_add=("net_admin",), cap_drop=("all",)),
        rootfs=Path("/r"),
        hostname="h",
        user_namespace=Path("/n/user"),
        network_namespace=Path("/n/net"),
        uid_base=1 << 29,
        mounts=(),
        memory=1 << 30,
        options=Options(**{"seccomp": "unconfined", **options}),
        nodes=(Node("/nodes/0", "/dev/fuse"),),
        init=init,
    )
    return config(spec, rights)


def test_configuration_with_options() -> None:
    found = made(read_only=True, shm_size=1 << 27, sysctls={"net.core.somaxconn": "9"})
    mounts = {mount["destination"]: mount for mount in found["mounts"]}
    assert found["root"] == {"path": "/r", "readonly": True}
    assert "size=134217728" in mounts["/dev/shm"]["options"]
    assert found["linux"]["sysctl"]["net.core.somaxconn"] == "9"
    assert "seccomp" not in found["linux"]
    assert mounts["/dev/fuse"] == {
        "type": "bind",
        "source": "/nodes/0",
        "destination": "/dev/fuse",
        "options": ["bind", "rprivate", "nosuid", "noexec"],
    }
    held = found["process"]["capabilities"]
    assert held["bounding"] == held["effective"] == held["permitted"] == ["CAP_NET_ADMIN"]
    assert held["inheritable"] == held["ambient"] == []
    assert found["process"]["args"] == ["true"]
    assert "oomScoreAdj" not in found["process"]


def test_a_small_init_runs_the_process() -> None:
    found = made(init="/usr/bin/tini-static")
    assert found["process"]["args"] == ["/dev/init", "--", "true"]
    (mount,) = [each for each in found["mounts"] if each["destination"] == "/dev/init"]
    assert mount["source"] == "/usr/bin/tini-static"
    assert "ro" in mount["options"]


def test_shared_memory_is_never_more_than_memory() -> None:
    for size, expected in ((0, 64 << 20), (2 << 30, 1 << 30)):
        (mount,) = [m for m in made(shm_size=size)["mounts"] if m["destination"] == "/dev/shm"]
        assert f"size={expected}" in mount["options"]


def test_the_protection_of_a_daemon_is_not_passed_on() -> None:
    assert process(Process(("true",), (), "/"), POOR)["oomScoreAdj"] == 0


def test_further_groups_by_name_and_number() -> None:
    group = "root:x:0:\naudio:x:29:\ndisk:x:6:app\n"
    passwd = "app:x:1000:1001::/:/bin/sh\n"
    assert find_user("app", passwd, group, ("audio", "77", "disk")).groups == (6, 29, 77)
    assert find_user("app:audio", passwd, group, ("disk",)).groups == (6,)
    for wrong in ("video", "70000", "-1"):
        with pytest.raises(NoSuchUser):
            find_user("app", passwd, group, (wrong,))


@pytest.mark.parametrize(
    ("mode", "access", "expected"),
    [
        (0o666, "rwm", 0o066),
        (0o660, "rwm", 0o060),
        (0o600, "r", 0o040),
        (0o644, "rw", 0o064),
        (0o600, "m", 0),
    ],
)
def test_access_to_a_device(mode: int, access: str, expected: int) -> None:
    assert permitted(mode, access) == expected


@pytest.mark.parametrize(
    "text", ["/dev/../etc/x", "/dev/fuse:/dev/null", "/dev/fuse:/dev/pts/0", "/dev/", "/dev//x"]
)
def test_devices_that_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_device(text)
    source, _, destination = text.partition(":")
    with pytest.raises(InvalidArgument):
        check_spec(
            InstanceSpec(
                "i", cpus=1, memory=1 << 30, devices=(Device(source, destination or source),)
            )
        )


@pytest.mark.parametrize(
    "wrong",
    [
        {"sysctls": {"kernel.panic": "1"}},
        {"sysctls": {"net..core": "1"}},
        {"sysctls": {"net.core.somaxconn": "1\n2"}},
        {"sysctls": {"net.core.somaxconn": "1"}, "network": "host"},
        {"sysctls": {"net.core.somaxconn": "1"}, "network": "container:x"},
        {"cap_add": ("nonsense",)},
        {"ulimits": (Ulimit("nofile", 5, 4),)},
        {"stop_signal": "SIGNOPE"},
        {"shm_size": -1},
        {"group_add": ("a\0b",)},
        {"hosts": ("name",)},
        {"dns": ("resolver",)},
        {"seccomp": "{"},
    ],
)
def test_requests_that_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        check_spec(InstanceSpec("i", cpus=1, memory=1 << 30, **wrong))


def test_names_inside() -> None:
    text = hosts_file("me", "10.0.0.9", "10.0.0.1", ("db:10.1.1.1", "up=host-gateway", "six:::1"))
    assert text.splitlines()[2:] == ["10.1.1.1\tdb", "10.0.0.1\tup", "::1\tsix", "10.0.0.9\tme"]
    default = "nameserver 10.0.0.1\nsearch a.example\noptions ndots:0\n"
    assert resolv_conf(default, (), ()) == default
    assert resolv_conf(default, ("9.9.9.9",), (".",)) == "nameserver 9.9.9.9\noptions ndots:0\n"
    assert resolv_conf(default, (), ("b", "c")).startswith("search b c\nnameserver 10.0.0.1\n")


@pytest.mark.parametrize(
    ("hosts", "dns", "search"),
    [
        (["a b:1.1.1.1"], [], []),
        (["a\nb:1.1.1.1"], [], []),
        (["a:1.1.1.1\n2.2.2.2 b"], [], []),
        (["a:fe80::1%eth0"], [], []),
        ([], ["1.1.1.1\nnameserver 2.2.2.2"], []),
        ([], ["1.1.1.1"] * 4, []),
        ([], [], ["a b"]),
    ],
)
def test_names_that_are_refused(hosts: list[str], dns: list[str], search: list[str]) -> None:
    with pytest.raises(InvalidArgument):
        check_resolving(hosts, dns, search)


@pytest.mark.parametrize(
    ("text", "number"),
    [("SIGTERM", 15), ("term", 15), ("9", 9), ("SIGRTMIN+3", 37), ("RTMAX-1", 63), ("SYS", 31)],
)
def test_signals(text: str, number: int) -> None:
    assert signal_number(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "SIGSIG", "RTMIN-3", "RTMAX+1", "\xb2", "-9"])
def test_no_signals(text: str) -> None:
    with pytest.raises(InvalidArgument):
        signal_number(text)


DOCKERS = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 1,
    "comment": "not passed on",
    "listenerPath": "/run/listener",
    "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
    ],
    "syscalls": [
        {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW", "args": None, "includes": {}},
        {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_BPF"]}},
        {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"names": ["future"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.0"}},
        {"names": ["arm"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
        {
            "names": ["clone"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 2114060288, "op": "SCMP_CMP_MASKED_EQ"}],
        },
        {"name": "close", "action": "SCMP_ACT_LOG"},
    ],
}


def test_dockers_profile_is_resolved() -> None:
    profile = parse_profile(json.dumps(DOCKERS))
    found = seccomp.tailored(profile, frozenset({"CAP_BPF"}), "x86_64", "6.1.0-13-amd64")
    assert set(found) == {"defaultAction", "defaultErrnoRet", "architectures", "syscalls"}
    assert found["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    names = [rule["names"] for rule in found["syscalls"]]
    assert names == [["read", "write"], ["bpf"], ["mount"], ["ptrace"], ["clone"], ["close"]]
    assert found["syscalls"][4]["args"] == [
        {"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    ]
    admin = seccomp.tailored(profile, frozenset({"CAP_SYS_ADMIN"}), "x86_64", "4.4")
    assert [rule["names"][0] for rule in admin["syscalls"]] == ["read", "clone", "close"]


def test_ocis_profile_is_taken_as_it_is() -> None:
    plain = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}],
    }
    found = seccomp.tailored(parse_profile(json.dumps(plain)), frozenset(), "x86_64", "6.1")
    assert found == plain


def with_rule(**changes: Any) -> str:
    rule = {"names": ["read"], "action": "SCMP_ACT_ALLOW", **changes}
    return json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        "[" * 100_000,
        " " * (LIMIT + 1),
        '{"defaultAction": "SCMP_ACT_NOTIFY"}',
        '{"defaultAction": ["SCMP_ACT_ALLOW"]}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_NEW_LISTENER"]}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["x"]}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "archMap": [{}]}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "archMap": [{"architecture": 5}]}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {"a": 1}}',
        with_rule(names=[]),
        with_rule(names=["../x"]),
        with_rule(names="read"),
        with_rule(action="SCMP_ACT_NOTIFY"),
        with_rule(errnoRet=5000),
        with_rule(errnoRet=True),
        with_rule(args=[{"index": 9, "value": 0, "op": "SCMP_CMP_EQ"}]),
        with_rule(args=[{"index": 0, "value": -1, "op": "SCMP_CMP_EQ"}]),
        with_rule(args=[{"index": 0, "value": 1, "op": "LIKE"}]),
        with_rule(args=["x"]),
        with_rule(includes={"minKernel": "new"}),
        with_rule(includes=["caps"]),
    ],
)
def test_profiles_that_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="seccomp"):
        parse_profile(text)
