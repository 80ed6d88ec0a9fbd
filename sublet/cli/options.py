"""The flags of `run` and `create` that few use: from their texts to a request."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from sublet.domain.errors import InvalidArgument
from sublet.domain.seccomp import NAMED
from sublet.domain.units import parse_duration, parse_memory

Options = dict[str, Any]

_PLAIN = {
    "cold": "cold",
    "stop_signal": "stop_signal",
    "mount": "mounts",
    "tmpfs": "tmpfs",
    "disk": "disk",
    "read_only": "read_only",
    "shm_size": "shm_size",
    "network": "network",
    "network_alias": "aliases",
    "dns": "dns",
    "dns_search": "dns_search",
    "add_host": "hosts",
    "host_port": "host_ports",
    "restart": "restart",
    "init": "init",
    "ulimit": "ulimits",
    "device": "devices",
    "cap_add": "cap_add",
    "cap_drop": "cap_drop",
    "group_add": "group_add",
    "ttl": "ttl",
    "idle": "idle",
    "idle_action": "idle_action",
    "size": "size",
    "budget": "budget",
    "backup": "backup",
    "backup_keep": "backup_keep",
    "wake": "wake",
    "egress": "egress",
}
"""Flags that `instance_spec` takes as they are, and its name for each."""

_HEALTH_TIMES = ("interval", "timeout", "start_period", "start_interval")


def rare(options: Options) -> Options:
    """What these flags mean to `instance_spec`. Raises InvalidArgument."""
    found = {key: options[flag] for flag, key in _PLAIN.items() if options.get(flag)}
    labels = [*_lines(options.get("label_file") or ()), *(options.get("label") or ())]
    found["labels"] = dict(text.partition("=")[::2] for text in labels)
    found["sysctls"] = dict(_pair("sysctl", text) for text in options.get("sysctl") or ())
    found["health"] = _health(options)
    found["seccomp"] = _seccomp(options.get("security_opt") or ())
    found["user_data"] = _text(options["user_data"]) if options.get("user_data") else ""
    found["ssh_keys"] = _lines(options.get("ssh_key") or ())
    found["spot"] = _spot(options)
    found["log"] = _log(options.get("log_driver"), options.get("log_opt") or ())
    return found


def env_files(paths: Iterable[str]) -> list[str]:
    """Variables of files, one a line; a name alone takes this process's value."""
    lines = _lines(paths)
    for line in lines:
        name = line.partition("=")[0]
        if not name or name.split() != [name]:
            raise InvalidArgument(
                f"'{line[:60]}' is no variable: its name is empty or has a space in it.",
                hint="Write NAME=VALUE, or NAME alone, on a line of its own, and no export.",
            )
    known = [line for line in lines if "=" in line or line in os.environ]
    return [line if "=" in line else f"{line}={os.environ[line]}" for line in known]


def _lines(paths: Iterable[str]) -> list[str]:
    """The lines of files without comments and empty ones."""
    found = []
    for path in paths:
        lines = [line.rstrip("\r").lstrip() for line in _text(path).split("\n")]
        found += [line for line in lines if line and not line.startswith("#")]
    return found


def _text(path: str) -> str:
    """A file that a flag names."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return file.read()
    except OSError as error:
        raise InvalidArgument(
            f"The file '{path}' cannot be read: {error.strerror}.", hint="Mend its path."
        ) from error
    except ValueError as error:
        raise InvalidArgument(
            f"The file '{path}' is not text in UTF-8.", hint="Write it again as UTF-8."
        ) from error


def _pair(what: str, text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InvalidArgument(f"'{text}' is no {what}.", hint=f"Write --{what} KEY=VALUE.")
    return key, value


def _health(options: Options) -> dict[str, Any] | None:
    """The check that the flags describe; None where they say nothing."""
    if options.get("no_healthcheck"):
        return {"test": []}
    given: dict[str, Any] = {}
    if command := options.get("health_cmd"):
        given["test"] = ["/bin/sh", "-c", command]
    for key in _HEALTH_TIMES:
        if text := options.get(f"health_{key}"):
            given[key] = parse_duration(text)
    if retries := options.get("health_retries"):
        if not retries.isdecimal():
            raise InvalidArgument(f"'{retries}' is no number of retries.", hint="Write 3.")
        given["retries"] = int(retries)
    return given or None


def _seccomp(texts: Iterable[str]) -> str:
    """The profile's text: the file is read here, with the caller's rights."""
    found = ""
    for text in texts:
        key, _, value = text.replace(":", "=", 1).partition("=")
        if key == "no-new-privileges" and value in ("", "true"):
            continue  # always so
        if key != "seccomp" or not value:
            raise InvalidArgument(
                f"There is no security option '{text}'.",
                hint="Write seccomp=FILE, seccomp=unconfined or seccomp=user-namespaces.",
            )
        found = value
        if value not in NAMED:
            found = _text(value)
    return found


_SPOT = ("max_price", "on_reclaim", "persistent", "notice_signal", "notice_exec")


def _spot(options: Options) -> bool | dict[str, Any]:
    """How a spot instance is to be sold; False for one on demand."""
    given: dict[str, Any] = {key: options[key] for key in _SPOT if options.get(key)}
    if not options.get("spot"):
        if given:
            flag = f"--{next(iter(given)).replace('_', '-')}"
            raise InvalidArgument(f"{flag} is for spot instances.", hint="Add --spot.")
        return False
    if "max_price" in given:
        given["max_price"] = _price(given["max_price"])
    if given.get("on_reclaim", "stop") not in ("stop", "hibernate", "terminate"):
        raise InvalidArgument(
            f"'{given['on_reclaim']}' is nothing that is done at a reclaim.",
            hint="Write --on-reclaim stop, hibernate or terminate.",
        )
    if "notice_exec" in given:
        given["notice_exec"] = ["/bin/sh", "-c", given["notice_exec"]]
    return given or True


def _price(text: str) -> float:
    try:
        return float(text.removeprefix("$"))
    except ValueError:
        raise InvalidArgument(
            f"'{text}' is not a price.", hint="Write dollars per hour, such as 0.03."
        ) from None


def _log(driver: str | None, texts: Iterable[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"driver": driver} if driver else {}
    for key, value in (_pair("log-opt", text) for text in texts):
        if key == "max-size":
            found["max_size"] = parse_memory(value)
        elif key == "max-file" and value.isdecimal():
            found["max_files"] = int(value)
        else:
            raise InvalidArgument(
                f"There is no log option '{key}={value}'.",
                hint="Write --log-opt max-size=10m --log-opt max-file=3.",
            )
    return found
