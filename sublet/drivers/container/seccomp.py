"""The seccomp filter: containers-common's profile, resolved for one container.

The profile names system calls with conditions on capabilities and architectures
(containers-common, `seccomp.json`); the OCI runtime wants plain rules (OCI runtime
specification, `config-linux.md`, Seccomp).
"""

from __future__ import annotations

import errno
import json
import platform
import re
from functools import cache
from pathlib import Path
from typing import Any

from sublet.domain.errors import ToolMissing
from sublet.domain.seccomp import NESTED, UNCONFINED, Profile, parse_profile

PROFILES = (Path("/usr/share/containers/seccomp.json"), Path("/etc/containers/seccomp.json"))

_ARCHITECTURES = {
    "x86_64": ("amd64", ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]),
    "aarch64": ("arm64", ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
}
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK, _AF_PACKET = 1, 2, 10, 16, 17
_NETLINK_AUDIT = 9

_SOL_IP, _SOL_IPV6 = 0, 41
_LEVELS = (1, 6, 17)
"""SOL_SOCKET, SOL_TCP, SOL_UDP: none of their options reaches a packet filter."""

_OF_IPV6 = (66, 67)
"""IPV6_RECVTCLASS, IPV6_TCLASS."""

_CLONE_NEW = 0x7E020000
"""All CLONE_NEW* flags of clone(2)."""

_CLONE_NEWTIME = 0x80
"""Of unshare(2); in the flags of clone(2) the bit is of the signal at the end, and of none."""

_OF_SANDBOXES = 0x10000000 | 0x20000000 | 0x40000000 | 0x08000000
"""CLONE_NEWUSER, NEWPID, NEWNET and NEWIPC: what browsers shut their renderers in with."""

_ALLOWED_BY_ARGUMENTS = {"clone", "clone3", "socket"}
_FOR_ADMINISTRATORS = set(
    "add_key fsconfig fsmount fsopen fspick keyctl mount mount_setattr move_mount open_tree "
    "pivot_root request_key setns umount umount2 unshare".split()
)


def chosen(text: str, capabilities: frozenset[str]) -> dict[str, Any] | None:
    """The `linux.seccomp` object that a request asks for: Sublet's own where `text` is empty, with
    namespaces inside for `user-namespaces`, none for `unconfined`, else that of the tenant's
    profile. Raises InvalidArgument, ToolMissing."""
    if not text:
        return profile(capabilities)
    if text == NESTED:
        return profile(capabilities, nested=True)
    if text == UNCONFINED:
        return None
    uname = platform.uname()
    return tailored(parse_profile(text), capabilities, uname.machine, uname.release)


def tailored(
    data: Profile, capabilities: frozenset[str], machine: str, release: str
) -> dict[str, Any]:
    """The rules of a tenant's profile that hold here. What it allows is the tenant's decision; its
    instance's capabilities and namespaces still bound it."""
    name, native = _ARCHITECTURES[machine]
    mapped = [each for each in data["archMap"] if each["architecture"] == native[0]]
    below = [native[0], *(sub for each in mapped for sub in each["subArchitectures"])]
    made = {
        "defaultAction": data["defaultAction"],
        "architectures": data["architectures"] or below,
        "syscalls": [
            _rule(entry)
            for entry in data["syscalls"]
            if _applies(entry, capabilities, name) and _recent(entry, release)
        ],
    }
    if "defaultErrnoRet" in data:
        made["defaultErrnoRet"] = data["defaultErrnoRet"]
    return {**made, "flags": data["flags"]} if data["flags"] else made


def _recent(entry: Profile, release: str) -> bool:
    """Whether the kernel `release` (uname(2)) is as recent as the rule wants it."""
    return _version(release) >= _version(entry["includes"].get("minKernel", "0.0"))


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"[0-9]+", text)[:2])


@cache
def profile(capabilities: frozenset[str], *, nested: bool = False) -> dict[str, Any]:
    """The `linux.seccomp` object for a container with these capabilities; see `resolve`.

    Raises ToolMissing where the host has no profile.
    """
    found = next((path for path in PROFILES if path.is_file()), None)
    if found is None:
        raise ToolMissing("The seccomp profile (package containers-common) is not installed.")
    data = json.loads(found.read_text())
    return resolve(data, capabilities, platform.machine(), nested=nested)


def resolve(
    data: dict[str, Any], capabilities: frozenset[str], machine: str, *, nested: bool = False
) -> dict[str, Any]:
    """The rules of the profile `data` that hold on `machine` with these capabilities.

    Sockets are allowed by family, not all but one: AF_ALG (CVE-2026-31431) and other
    rarely used families are refused. So is `socketcall`, and by a rule of its own: the rules
    for `socket` make libseccomp allow it to 32-bit programs, with every family.

    As in Docker's profile, and not as in containers-common's, nobody makes user namespaces,
    mounts or keyrings inside: with a user namespace come all capabilities in it, and with
    them most of the kernel that a tenant should not reach. With `nested`, user, process, network
    and IPC namespaces may be made, and sockets of netlink may not, nor may options of sockets
    replace tables of the older iptables: whoever is root in there reaches no packet filter and no
    traffic control, and no mount either.
    """
    name, architectures = _ARCHITECTURES[machine]
    rules = [
        _rule(entry)
        for entry in data["syscalls"]
        if entry["names"] != ["socket"] and _applies(entry, capabilities, name)
    ]
    refused = {"socketcall"}
    if "CAP_SYS_ADMIN" not in capabilities:
        refused |= _FOR_ADMINISTRATORS - ({"unshare"} if nested else set())
    by_arguments = _ALLOWED_BY_ARGUMENTS | {"unshare"} | ({"setsockopt"} if nested else set())
    for rule in rules:
        rule["names"] = [n for n in rule["names"] if n not in refused | by_arguments]
    return {
        "defaultAction": data["defaultAction"],
        "defaultErrnoRet": data.get("defaultErrnoRet", 1),
        "architectures": architectures,
        "syscalls": [
            *(rule for rule in rules if rule["names"]),
            *_sockets(capabilities, netlink=not nested),
            *(_socket_options() if nested else ()),
            *_namespaces(capabilities, _OF_SANDBOXES if nested else 0),
            {"names": sorted(refused), "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EPERM},
        ],
    }


def _namespaces(capabilities: frozenset[str], kinds: int) -> list[dict[str, Any]]:
    """`clone`, and `unshare` where it is of use, without flags that make namespaces but those of
    `kinds`; `clone3`, whose flags a filter cannot see, is not there (ENOSYS), so that the C
    library takes `clone`."""
    if "CAP_SYS_ADMIN" in capabilities:
        names = ["clone", "clone3", "unshare"]
        return [{"names": names, "action": "SCMP_ACT_ALLOW"}]
    others = (_CLONE_NEW | _CLONE_NEWTIME) & ~kinds
    without = {"index": 0, "value": others, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    names = ["clone", "unshare"] if kinds else ["clone"]
    return [
        {"names": names, "action": "SCMP_ACT_ALLOW", "args": [without]},
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS},
    ]


def _applies(entry: dict[str, Any], capabilities: frozenset[str], arch: str) -> bool:
    includes, excludes = entry.get("includes") or {}, entry.get("excludes") or {}
    if arch not in includes.get("arches", [arch]) or arch in excludes.get("arches", []):
        return False
    if capabilities.intersection(excludes.get("caps", [])):
        return False
    return capabilities.issuperset(includes.get("caps", []))


def _rule(entry: dict[str, Any]) -> dict[str, Any]:
    rule = {"names": list(entry["names"]), "action": entry["action"]}
    if entry.get("args"):
        rule["args"] = entry["args"]
    if "errnoRet" in entry:
        rule["errnoRet"] = entry["errnoRet"]
    return rule


def _sockets(capabilities: frozenset[str], *, netlink: bool) -> list[dict[str, Any]]:
    families = [_AF_UNIX, _AF_INET, _AF_INET6]
    families += [_AF_PACKET] if "CAP_NET_RAW" in capabilities else []
    equal = [[{"index": 0, "value": family, "op": "SCMP_CMP_EQ"}] for family in families]
    if netlink:
        wanted = {"index": 0, "value": _AF_NETLINK, "op": "SCMP_CMP_EQ"}
        audit = {"index": 2, "value": _NETLINK_AUDIT, "op": "SCMP_CMP_NE"}
        equal.append([wanted] if "CAP_AUDIT_WRITE" in capabilities else [wanted, audit])
    return [{"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": args} for args in equal]


def _socket_options() -> list[dict[str, Any]]:
    """`setsockopt` but for what replaces the tables of iptables, ip6tables, arptables, ebtables and
    IPVS: at the levels of IP, options from 64 on (linux/netfilter_ipv4/ip_tables.h and its like).

    Each value is compared whole: an `int` whose upper half is set, which the kernel does not
    look at, equals nothing here.
    """
    levels: list[list[tuple[int, int, str]]] = [[(1, level, "EQ")] for level in _LEVELS]
    for level, further in ((_SOL_IP, ()), (_SOL_IPV6, _OF_IPV6)):
        levels.append([(1, level, "EQ"), (2, 64, "LT")])
        levels += [[(1, level, "EQ"), (2, option, "EQ")] for option in further]
    return [
        {
            "names": ["setsockopt"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": i, "value": value, "op": f"SCMP_CMP_{op}"} for i, value, op in args],
        }
        for args in levels
    ]
