"""What the verbs work with: the drivers of one daemon."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sublet.domain.capacity import Amount
from sublet.domain.config import Config
from sublet.domain.instance import Instance
from sublet.drivers.container.containers import Containers
from sublet.drivers.layers import Layers
from sublet.drivers.network import Network
from sublet.drivers.runner import Runner
from sublet.drivers.store.images import ImageStore
from sublet.drivers.store.instances import InstanceStore
from sublet.drivers.store.networks import NetworkStore
from sublet.drivers.store.snapshots import SnapshotStore
from sublet.drivers.store.volumes import VolumeStore
from sublet.drivers.vm.machines import Machines
from sublet.drivers.volumes import VolumeFiles
from sublet.engine.events import Events
from sublet.engine.tasks import Tasks


@dataclass(frozen=True, slots=True)
class Parts:
    """Built once by the daemon; `rentable` is what the host can sell."""

    config: Config
    rentable: Amount
    store: InstanceStore
    network_store: NetworkStore
    image_store: ImageStore
    containers: Containers
    machines: Machines
    layers: Layers
    volumes: VolumeFiles
    volume_store: VolumeStore
    snapshot_store: SnapshotStore
    network: Network
    events: Events
    tasks: Tasks

    def image_file(self, digest: str) -> Path:
        """Where the image of this digest lies."""
        return self.config.root / "images" / f"{digest.removeprefix('sha256:')}.sif"

    def runner(self, instance: Instance) -> Runner:
        """Who runs the instance."""
        return self.machines if instance.spec.vm else self.containers
