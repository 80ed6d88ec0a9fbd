"""The OCI configuration, the seccomp filter, users: plain data from plain data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sublet.domain.errors import (
    CommandNotExecutable,
    CommandNotFound,
    InvalidArgument,
    NoSuchUser,
    StartFailed,
)
from sublet.domain.mounts import Mount, MountType
from sublet.domain.privileges import CAPABILITIES
from sublet.drivers.cgroup import Entrances
from sublet.drivers.container import seccomp
from sublet.drivers.container.logs import parse_line
from sublet.drivers.container.rights import Rights
from sublet.drivers.container.rootfs import find_user
from sublet.drivers.container.spec import (
    ContainerSpec,
    Process,
    config,
)
from sublet.drivers.container.supervisor import Supervision, explain, supervisor_argv

RIGHTS = Rights(frozenset(f"CAP_{name}" for name in CAPABILITIES))
PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/srv:/bin/sh\nbad\n:x:y:z\n7:x:9:9::/:\n"
GROUP = "root:x:0:\nweb:x:33:app,other\ndisk:x:6:root,app\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (0, 0, (6,), "/root")),
        ("app", (1000, 1001, (33, 6), "/srv")),
        ("1000", (1000, 1001, (33, 6), "/srv")),
        ("app:web", (1000, 33, (), "/srv")),
        ("4242", (4242, 0, (), "/")),
        ("4242:17", (4242, 17, (), "/")),
        ("7", (9, 9, (), "/")),
    ],
)
def test_users(text: str, expected: tuple[Any, ...]) -> None:
    user = find_user(text, PASSWD, GROUP)
    assert (user.uid, user.gid, user.groups, user.home) == expected


@pytest.mark.parametrize(
    "text",
    ["nobody-here", "app:nogroup", "70000", "-1", "minus", "wide", "long", "\xb2", "9" * 5000],
)
def test_unknown_users(text: str) -> None:
    with pytest.raises(NoSuchUser):
        find_user(text, PASSWD, GROUP)


def test_configuration_is_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, "profile", lambda _: {"defaultAction": "SCMP_ACT_ERRNO"})
    spec = ContainerSpec(
        process=Process(("true",), ("A=1",), "/", uid=5),
        rootfs=Path("/r"),
        hostname="h",
        user_namespace=Path("/n/user"),
        network_namespace=Path("/n/net"),
        uid_base=1 << 29,
        mounts=(
            Mount("", "/cache", type=MountType.TMPFS),
            Mount("", "/fast", True, MountType.TMPFS, size=4096, mode="700"),
        ),
        memory=1 << 20,
    )
    made = config(spec, RIGHTS)
    assert made["process"]["noNewPrivileges"] is True
    held = made["process"]["capabilities"]
    assert held["inheritable"] == held["ambient"] == held["effective"] == []
    assert {n["type"] for n in made["linux"]["namespaces"]} == {
        *("pid", "ipc", "uts", "mount", "cgroup", "user", "network")
    }
    assert made["linux"]["uidMappings"] == [{"containerID": 0, "hostID": 1 << 29, "size": 65536}]
    by_place = {mount["destination"]: mount["options"] for mount in made["mounts"]}
    assert "ro" in by_place["/sys"]
    assert "ro" in by_place["/sys/fs/cgroup"]
    assert "size=1048576" in by_place["/dev/shm"]
    assert {"mode=1777", "size=524288", "rw", "nosuid"} <= set(by_place["/cache"])
    assert {"mode=700", "size=4096", "ro"} <= set(by_place["/fast"])


PROFILE = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 38,
    "syscalls": [
        {
            "names": ["read", "clone", "clone3", "socketcall", "unshare"],
            "action": "SCMP_ACT_ALLOW",
            "args": None,
        },
        {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": None},
        {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["arm_call"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
    ],
}


def test_seccomp_profile_is_resolved() -> None:
    found = seccomp.resolve(PROFILE, frozenset({"CAP_AUDIT_WRITE"}), "x86_64")
    rules = [(rule["names"], rule["action"]) for rule in found["syscalls"]]
    assert (["read"], "SCMP_ACT_ALLOW") in rules
    assert not any("arm_call" in names for names, _ in rules)
    allowed = {n for names, action in rules if action == "SCMP_ACT_ALLOW" for n in names}
    refused = {n for names, action in rules if action == "SCMP_ACT_ERRNO" for n in names}
    assert {"socketcall", "unshare", "clone3", "mount"} <= refused - allowed
    assert [r["args"][0]["op"] for r in found["syscalls"] if r["names"] == ["clone"]] == [
        "SCMP_CMP_MASKED_EQ"
    ]
    families = [
        rule["args"][0]["value"] for rule in found["syscalls"] if rule["names"] == ["socket"]
    ]
    assert families == [1, 2, 10, 16]  # unix, inet, inet6, netlink: not AF_ALG (38)


def test_the_profile_for_sandboxes_inside_has_four_kinds_of_namespaces_and_no_netlink() -> None:
    found = seccomp.resolve(PROFILE, frozenset(), "x86_64", nested=True)
    [rule] = [rule for rule in found["syscalls"] if "clone" in rule["names"]]
    assert rule["names"] == ["clone", "unshare"]
    refused_flags = rule["args"][0]["value"]
    user, pid, net, ipc = 0x10000000, 0x20000000, 0x40000000, 0x08000000
    mount, uts, cgroup, time = 0x00020000, 0x04000000, 0x02000000, 0x80
    assert refused_flags & (user | pid | net | ipc) == 0
    assert refused_flags & (mount | uts | cgroup | time) == mount | uts | cgroup | time
    refused = {n for r in found["syscalls"] if r["action"] == "SCMP_ACT_ERRNO" for n in r["names"]}
    assert {"mount", "setns", "pivot_root", "clone3", "keyctl"} <= refused
    sockets = [rule for rule in found["syscalls"] if rule["names"] == ["socket"]]
    assert [rule["args"][0]["value"] for rule in sockets] == [1, 2, 10]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("open `/proc/sys/net/x`: No such file or directory", InvalidArgument),
        ("executable file `x` not found in $PATH: No such file or directory", CommandNotFound),
        ("open executable: Permission denied", CommandNotExecutable),
        ("exec container process `/x`: Exec format error", CommandNotExecutable),
        ("crun: chdir `/q`: No such file or directory", CommandNotExecutable),
        ("mount `proc` to `proc`: Operation not permitted", StartFailed),
        ("", StartFailed),
    ],
)
def test_complaints_of_the_runtime(text: str, kind: type) -> None:
    assert type(explain(text)) is kind


def supervision(**changes: Any) -> Supervision:
    plain = Supervision(
        instance_id="0123456789ab",
        directory=Path("/run/i"),
        log=Path("/log"),
        log_size=100,
        log_files=2,
        tty=False,
        stdin=True,
        own_cgroups=Entrances(("/cpu/supervisors/tasks",), "/v2/supervisors"),
        cgroups=Entrances(("/cpu/i/tasks",), "/v2/i"),
    )
    return replace(plain, **changes)


def test_a_complaint_of_runc_is_told_without_its_log() -> None:
    text = (
        'time="2026-01-01T00:00:00Z" level=error msg="exec: \\"x\\": no such file or directory"\n'
    )
    assert str(explain(text)).splitlines()[0].endswith("exec: 'x': no such file or directory.")


def test_supervisor_command_line() -> None:
    argv = supervisor_argv(supervision(), "/usr/bin/crun", ["--root", "/run/r"], Path("/run/r"))
    assert argv[1:] == [
        *("--directory=/run/i", "--log=/log", "--log-size=100", "--log-files=2"),
        *("--own-cgroup=/cpu/supervisors/tasks", "--cgroup=/cpu/i/tasks"),
        *("--own-tree=/v2/supervisors", "--tree=/v2/i", "--input"),
        *("--gate=/run/r/0123456789ab/exec.fifo", "--", "/usr/bin/crun", "--root", "/run/r"),
        *("create", "--bundle=/run/i", "--pid-file=/run/i/pid", "0123456789ab"),
    ]


def test_supervisor_with_a_terminal_and_no_log() -> None:
    plain = supervision(log=None, tty=True, stdin=False)
    own, runtime = " ".join(supervisor_argv(plain, "crun", [], Path("/r"))).split(" -- ")
    assert "--terminal" in own
    assert "--input" not in own
    assert "--log" not in own
    assert "--console-socket=/run/i/console" in runtime


def test_log_lines() -> None:
    full = parse_line(b"2026-01-01T00:00:00Z stderr F a b \n")
    partial = parse_line(b"2026-01-01T00:00:00Z stdout P a\n")
    assert full is not None
    assert partial is not None
    assert (full.stream, full.data) == (2, b"a b \n")
    assert (partial.stream, partial.data) == (1, b"a")
    assert parse_line(b"nonsense\n") is None
