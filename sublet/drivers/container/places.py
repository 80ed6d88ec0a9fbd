"""Where the things of one instance are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sublet.drivers.container.layer import Layer, WritableLayers


@dataclass(frozen=True, slots=True)
class Places:
    """`state` outlives its runs, `run` and `mounts` are there while it runs."""

    state: Path
    run: Path
    mounts: Path
    instance_id: str
    writable: WritableLayers

    @property
    def layer(self) -> Layer:
        """Its writable layer."""
        return self.writable.layer(self.instance_id)

    @property
    def upper(self) -> Path:
        """What the instance has changed, as overlayfs keeps it, with the instance's own ids."""
        return self.layer.upper

    @property
    def rootfs(self) -> Path:
        return self.mounts / "rootfs"

    @property
    def user_namespace(self) -> Path:
        return self.mounts / "user"

    @property
    def network_namespace(self) -> Path:
        return self.mounts / "net"

    @property
    def log(self) -> Path:
        return self.state / "log"
