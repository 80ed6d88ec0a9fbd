"""What an image says of itself: the OCI image configuration.

Source: OCI image specification 1.1, `config.md`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sublet.domain.errors import CorruptImage

LABEL_SHA256 = "io.sublet.sha256."
"""Prefix of the labels that hold the SHA-256 of the file's objects, by object name."""


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The OCI image config: how to start the application that an image holds."""

    architecture: str = "amd64"
    created: str = ""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""
    healthcheck: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    def with_labels(self, extra: Mapping[str, str]) -> ImageConfig:
        """A copy with `extra` labels added."""
        return replace(self, labels={**self.labels, **extra})

    def to_json(self) -> bytes:
        """The OCI config as canonical JSON (sorted keys), UTF-8."""
        inner: dict[str, Any] = {
            "Entrypoint": list(self.entrypoint) or None,
            "Cmd": list(self.cmd) or None,
            "Env": list(self.env) or None,
            "User": self.user,
            "WorkingDir": self.working_dir,
            "ExposedPorts": {port: {} for port in self.exposed_ports} or None,
            "Volumes": {path: {} for path in self.volumes} or None,
            "StopSignal": self.stop_signal,
            "Healthcheck": dict(self.healthcheck) or None,
            "Labels": dict(self.labels) or None,
        }
        outer = {
            "architecture": self.architecture,
            "os": "linux",
            "created": self.created,
            "config": {key: value for key, value in inner.items() if value},
        }
        return json.dumps(outer, sort_keys=True, indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> ImageConfig:
        """The config that `data` holds; CorruptImage where a field has the wrong shape."""
        try:
            outer = json.loads(data)
            inner = outer.get("config") or {}
            return cls(
                architecture=_text(outer, "architecture") or "amd64",
                created=_text(outer, "created"),
                entrypoint=_texts(inner, "Entrypoint"),
                cmd=_texts(inner, "Cmd"),
                env=_texts(inner, "Env"),
                user=_text(inner, "User"),
                working_dir=_text(inner, "WorkingDir"),
                exposed_ports=tuple(sorted(inner.get("ExposedPorts") or {})),
                volumes=tuple(sorted(inner.get("Volumes") or {})),
                stop_signal=_text(inner, "StopSignal"),
                healthcheck=dict(inner.get("Healthcheck") or {}),
                labels={str(k): str(v) for k, v in (inner.get("Labels") or {}).items()},
            )
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise CorruptImage(f"The image's configuration is malformed: {error}.") from error


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key) or ""
    if not isinstance(value, str):
        raise ValueError(f"{key} is not a string")
    if "\0" in value:
        raise ValueError(f"{key} holds a zero byte")
    return value


def _texts(data: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = data.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{key} is not a list of strings")
    if any("\0" in item for item in value):
        raise ValueError(f"{key} holds a zero byte")
    return tuple(value)


@dataclass(frozen=True, slots=True)
class Image:
    """An image on this host. `digest` is the SHA-256 of the whole file, `size` its bytes,
    `offset` and `length` the place of its squashfs, `names` its tags, `created` seconds
    since the epoch."""

    digest: str
    size: int
    created: float
    offset: int
    length: int
    config: ImageConfig
    names: tuple[str, ...] = ()
