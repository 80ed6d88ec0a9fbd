"""A tenant's own seccomp profile: read and checked before the runtime sees it.

Sources: OCI runtime specification 1.0.2, `config-linux.md` (Seccomp); Docker's form of it, whose
rules may carry conditions (`includes`, `excludes`) and whose architectures are in `archMap`.
"""

from __future__ import annotations

import json
import re
from typing import Any

from sublet.domain.errors import InvalidArgument

UNCONFINED = "unconfined"
NESTED = "user-namespaces"
"""Sublet's own profile, and what a program needs that makes a sandbox of user namespaces."""

NAMED = frozenset({UNCONFINED, NESTED})

LIMIT = 1 << 20
"""The most characters that a profile may have."""

_ACTIONS = frozenset(
    f"SCMP_ACT_{name}"
    for name in "KILL KILL_PROCESS KILL_THREAD TRAP ERRNO TRACE ALLOW LOG".split()
)
"""All but NOTIFY, which needs a program outside that decides."""

_OPERATORS = frozenset(f"SCMP_CMP_{name}" for name in "NE LT LE EQ GE GT MASKED_EQ".split())
_ARCHITECTURE = re.compile(r"SCMP_ARCH_[A-Z0-9_]{1,20}")
_NAME = re.compile(r"[a-z0-9_]{1,64}")
_KERNEL = re.compile(r"[0-9]{1,5}\.[0-9]{1,5}")
_FLAGS = frozenset(f"SECCOMP_FILTER_FLAG_{name}" for name in ("TSYNC", "LOG", "SPEC_ALLOW"))
_MOST = 10_000
"""Rules of one profile, and names of one rule."""

Profile = dict[str, Any]


def check_profile(text: str) -> None:
    """Raises InvalidArgument unless `text` is empty, one of NAMED or a profile."""
    if text and text not in NAMED:
        parse_profile(text)


def parse_profile(text: str) -> Profile:
    """The profile that the JSON `text` holds, with nothing in it that is not known.

    Its keys: `defaultAction`, `defaultErrnoRet`, `architectures`, `archMap`, `flags`, `syscalls`,
    whose rules have `names`, `action`, `errnoRet`, `args`, `includes`, `excludes`. Raises
    InvalidArgument.
    """
    if len(text) > LIMIT:
        raise _wrong(f"it has more than {LIMIT >> 20} MiB")
    try:
        data = json.loads(text)
    except RecursionError:
        raise _wrong("it is nested too deeply") from None
    except ValueError as error:
        raise _wrong(f"it is not JSON ({error})") from None
    data = _object(data, "the profile")
    return {
        **_outcome(data, "defaultAction", "defaultErrnoRet"),
        "architectures": _words(data, "architectures", _ARCHITECTURE),
        "archMap": [_arch_map(entry) for entry in _list(data, "archMap")],
        "flags": _flags(data),
        "syscalls": [_rule(entry) for entry in _list(data, "syscalls")],
    }


def _rule(entry: Any) -> Profile:
    entry = _object(entry, "a rule")
    names = _words(entry, "names", _NAME)
    if not names and isinstance(entry.get("name"), str):  # Docker's form before 2018
        names = _words({"names": [entry["name"]]}, "names", _NAME)
    if not names:
        raise _wrong("a rule names no system call")
    return {
        "names": names,
        **_outcome(entry, "action", "errnoRet"),
        "args": [_argument(each) for each in _list(entry, "args")],
        "includes": _condition(entry, "includes"),
        "excludes": _condition(entry, "excludes"),
    }


def _outcome(data: Profile, action: str, errno: str) -> Profile:
    """An action and, where it has one, its error number."""
    if not _is_one(data.get(action), _ACTIONS):
        raise _wrong(f"{action} is {_shown(data.get(action))}, which is no action here")
    if data.get(errno) is None:
        return {action: data[action]}
    return {action: data[action], errno: _number(data, errno, 4095)}


def _argument(entry: Any) -> Profile:
    entry = _object(entry, "an argument")
    if not _is_one(entry.get("op"), _OPERATORS):
        raise _wrong(f"an argument's op is {_shown(entry.get('op'))}, which is no comparison")
    return {
        "index": _number(entry, "index", 5),
        "value": _number(entry, "value", (1 << 64) - 1),
        "valueTwo": _number(entry, "valueTwo", (1 << 64) - 1),
        "op": entry["op"],
    }


def _condition(entry: Profile, key: str) -> Profile:
    data = _object(entry.get(key) or {}, key)
    found: Profile = {}
    for name in ("caps", "arches"):
        if words := _words(data, name, re.compile(r"[A-Za-z0-9_]{1,40}")):
            found[name] = words
    if kernel := data.get("minKernel"):
        if not isinstance(kernel, str) or not _KERNEL.fullmatch(kernel):
            raise _wrong(f"minKernel is {_shown(kernel)}, which is no version")
        found["minKernel"] = kernel
    return found


def _arch_map(entry: Any) -> Profile:
    entry = _object(entry, "archMap")
    return {
        "architecture": _words({"a": [entry.get("architecture")]}, "a", _ARCHITECTURE)[0],
        "subArchitectures": _words(entry, "subArchitectures", _ARCHITECTURE),
    }


def _flags(data: Profile) -> list[str]:
    flags = _list(data, "flags")
    for flag in flags:
        if not _is_one(flag, _FLAGS):
            raise _wrong(f"there is no flag {_shown(flag)}")
    return flags


def _object(value: Any, what: str) -> Profile:
    if not isinstance(value, dict):
        raise _wrong(f"{what} is not an object")
    return value


def _list(data: Profile, key: str) -> list[Any]:
    value = data.get(key) or []
    if not isinstance(value, list) or len(value) > _MOST:
        raise _wrong(f"{key} is not a list of at most {_MOST}")
    return value


def _words(data: Profile, key: str, pattern: re.Pattern[str]) -> list[str]:
    words = _list(data, key)
    for word in words:
        if not isinstance(word, str) or not pattern.fullmatch(word):
            raise _wrong(f"{_shown(word)} cannot be in {key}")
    return words


def _number(data: Profile, key: str, most: int) -> int:
    value = data.get(key, 0)
    if type(value) is not int or not 0 <= value <= most:
        raise _wrong(f"{key} is {_shown(value)}, not a number from 0 to {most}")
    return value


def _is_one(value: object, known: frozenset[str]) -> bool:
    return isinstance(value, str) and value in known


def _shown(value: object) -> str:
    return repr(value)[:60]


def _wrong(why: str) -> InvalidArgument:
    return InvalidArgument(
        f"That is no seccomp profile: {why}.",
        hint="Give a file in Docker's or OCI's form to --security-opt seccomp=FILE.",
    )
