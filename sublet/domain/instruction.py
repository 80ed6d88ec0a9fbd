"""The instructions by which `commit --change` changes an image's configuration.

Source: Dockerfile reference; `docker commit --change` takes the same ones, but for ONBUILD.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from sublet.domain.errors import InvalidArgument, SubletError
from sublet.domain.image import ImageConfig
from sublet.domain.signals import signal_number
from sublet.domain.units import parse_duration

_SHELL = ("/bin/sh", "-c")
_NANOSECONDS = 1_000_000_000


def instructed(config: ImageConfig, instructions: Iterable[str]) -> ImageConfig:
    """The configuration after these instructions, in order. Raises InvalidArgument."""
    for text in instructions:
        name, _, rest = text.strip().partition(" ")
        change = _CHANGES.get(name.upper())
        if change is None or not rest.strip() or "\0" in rest or "\n" in rest:
            raise InvalidArgument(
                f"'{text}' is no instruction that changes an image.",
                hint=f"Known are {', '.join(sorted(_CHANGES))}: --change 'CMD [\"/run\"]'.",
            )
        try:
            config = replace(config, **change(config, rest.strip()))
        except (ValueError, SubletError) as error:
            raise InvalidArgument(f"'{text}' is malformed: {error}.") from error
    return config


def _command(text: str) -> tuple[str, ...]:
    """A JSON array, or a line for the shell."""
    if not text.startswith("["):
        return (*_SHELL, text)
    words = json.loads(text)
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError("write a list of texts")
    return tuple(words)


def _cmd(_config: ImageConfig, text: str) -> dict[str, Any]:
    return {"cmd": _command(text)}


def _entrypoint(_config: ImageConfig, text: str) -> dict[str, Any]:
    """A new entrypoint drops the command that was meant for the old one, as in a build."""
    return {"entrypoint": _command(text), "cmd": ()}


def _pairs(text: str) -> dict[str, str]:
    """`A=1 B="two words"`, or the older `A all the rest`."""
    words = shlex.split(text)
    if "=" not in words[0]:
        name, _, value = text.partition(" ")
        return {name: value.strip()}
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise ValueError(f"'{word}' has no =")
        found[name] = value
    return found


def _env(config: ImageConfig, text: str) -> dict[str, Any]:
    values = dict(entry.partition("=")[::2] for entry in config.env) | _pairs(text)
    return {"env": tuple(f"{name}={value}" for name, value in values.items())}


def _label(config: ImageConfig, text: str) -> dict[str, Any]:
    return {"labels": {**config.labels, **_pairs(text)}}


def _expose(config: ImageConfig, text: str) -> dict[str, Any]:
    ports = []
    for word in text.split():
        number, _, protocol = word.partition("/")
        if not number.isascii() or not number.isdecimal() or not 0 < int(number) < 65536:
            raise ValueError(f"'{word}' is no port")
        if protocol not in ("", "tcp", "udp"):
            raise ValueError(f"'{protocol}' is no protocol")
        ports.append(f"{int(number)}/{protocol or 'tcp'}")
    return {"exposed_ports": tuple(sorted({*config.exposed_ports, *ports}))}


def _user(_config: ImageConfig, text: str) -> dict[str, Any]:
    return {"user": _word(text)}


def _working_dir(config: ImageConfig, text: str) -> dict[str, Any]:
    if not text.startswith("/"):
        text = f"{config.working_dir.rstrip('/')}/{text}"
    return {"working_dir": text}


def _stop_signal(_config: ImageConfig, text: str) -> dict[str, Any]:
    signal_number(text)
    return {"stop_signal": text}


def _volume(config: ImageConfig, text: str) -> dict[str, Any]:
    paths = _command(text) if text.startswith("[") else tuple(text.split())
    if not all(path.startswith("/") for path in paths):
        raise ValueError("volumes are absolute paths")
    return {"volumes": tuple(sorted({*config.volumes, *paths}))}


def _healthcheck(_config: ImageConfig, text: str) -> dict[str, Any]:
    options: dict[str, str] = {}
    while text.startswith("--"):
        word, _, text = text.partition(" ")
        key, _, value = word[2:].partition("=")
        options[key], text = value, text.strip()
    kind, _, rest = text.partition(" ")
    if kind.upper() == "NONE" and not rest:
        return {"healthcheck": {"Test": ["NONE"]}}
    if kind.upper() != "CMD" or not rest.strip():
        raise ValueError("write CMD and a command, or NONE")
    rest = rest.strip()
    test = ["CMD", *_command(rest)] if rest.startswith("[") else ["CMD-SHELL", rest]
    check: dict[str, Any] = {"Test": test}
    for key, value in options.items():
        check |= _health_option(key, value)
    return {"healthcheck": check}


def _health_option(key: str, value: str) -> dict[str, int]:
    if key == "retries":
        return {"Retries": int(value)}
    names = {
        "interval": "Interval",
        "timeout": "Timeout",
        "start-period": "StartPeriod",
        "start-interval": "StartInterval",
    }
    if key not in names:
        raise ValueError(f"there is no option --{key}")
    return {names[key]: int(parse_duration(value) * _NANOSECONDS)}


def _word(text: str) -> str:
    if len(text.split()) != 1:
        raise ValueError("one word is expected")
    return text


_CHANGES: Mapping[str, Callable[[ImageConfig, str], dict[str, Any]]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _working_dir,
}
