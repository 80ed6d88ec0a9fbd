"""What an image says of itself: the OCI image configuration.

Source: OCI image specification 1.1, `config.md`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sublet.domain.disks import LABEL_DISK, Disk
from sublet.domain.errors import CorruptImage, ImageNeedsVM

LABEL_SHA256 = "io.sublet.sha256."
"""Prefix of the labels that hold the SHA-256 of the file's objects, by object name."""

MAX_HISTORY = 2000
"""Steps of a history that are read; one layer allows for 127 others in most engines."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an image's history. `empty_layer`: it changed no file."""

    created: str = ""
    created_by: str = ""
    comment: str = ""
    author: str = ""
    empty_layer: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The step as the OCI config has it, without what is empty."""
        found = {name: getattr(self, name) for name in self.__slots__}
        return {key: value for key, value in found.items() if value}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Step:
        """The step that `data` holds; ValueError where a field has the wrong shape."""
        texts = {key: _text(data, key) for key in ("created", "created_by", "comment", "author")}
        return cls(**texts, empty_layer=bool(data.get("empty_layer")))


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
    history: tuple[Step, ...] = ()

    @property
    def disk(self) -> Disk | None:
        """The disk that the image is; None for a root file system. Raises CorruptImage."""
        text = self.labels.get(LABEL_DISK)
        return None if text is None else Disk.from_label(text)

    @property
    def own_labels(self) -> dict[str, str]:
        """The labels but for the checksums of the file that the config came in."""
        return {k: v for k, v in self.labels.items() if not k.startswith(LABEL_SHA256)}

    def without_checksums(self) -> ImageConfig:
        """A copy without the checksums of the file that it came in."""
        return replace(self, labels=self.own_labels)

    def with_labels(self, extra: Mapping[str, str]) -> ImageConfig:
        """A copy with `extra` labels added."""
        return replace(self, labels={**self.labels, **extra})

    def inner(self) -> dict[str, Any]:
        """What the OCI config holds under `config`, without what is empty."""
        found: dict[str, Any] = {
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
        return {key: value for key, value in found.items() if value}

    def to_json(self) -> bytes:
        """The OCI config as canonical JSON (sorted keys), UTF-8."""
        outer: dict[str, Any] = {
            "architecture": self.architecture,
            "os": "linux",
            "created": self.created,
            "config": self.inner(),
        }
        if self.history:
            outer["history"] = [step.to_dict() for step in self.history]
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
                exposed_ports=_keys(inner, "ExposedPorts"),
                volumes=_keys(inner, "Volumes"),
                stop_signal=_text(inner, "StopSignal"),
                healthcheck=dict(inner.get("Healthcheck") or {}),
                labels={str(k): str(v) for k, v in (inner.get("Labels") or {}).items()},
                history=_history(outer),
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


def _keys(data: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = data.get(key) or {}
    if not isinstance(value, dict):
        raise ValueError(f"{key} is not an object")
    return tuple(sorted(value))


def _history(data: Mapping[str, Any]) -> tuple[Step, ...]:
    value = data.get("history") or []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError("history is not a list of objects")
    if len(value) > MAX_HISTORY:
        raise ValueError(f"history has more than {MAX_HISTORY} steps")
    return tuple(Step.from_dict(item) for item in value)


@dataclass(frozen=True, slots=True)
class Image:
    """An image on this host. `digest` is the SHA-256 of the whole file, `size` its bytes,
    `offset` and `length` the place of its squashfs or disk in it, `names` its tags, `created`
    seconds since the epoch."""

    digest: str
    size: int
    created: float
    offset: int
    length: int
    config: ImageConfig
    names: tuple[str, ...] = ()


def refuse_disk(image: Image, name: str) -> None:
    """Raises ImageNeedsVM where the image is a disk, which containers are not made of."""
    if image.config.disk:
        raise ImageNeedsVM(
            f"{name} is a disk image, which runs as a VM.",
            hint=f"Write `sublet run --vm {name}`: its own system boots, with a kernel of its own.",
        )
