"""From what a tenant asked for and what the image says, to the machine that the driver starts."""

from __future__ import annotations

import hashlib
from ipaddress import IPv4Address
from pathlib import Path

from sublet.domain import resolving, seed
from sublet.domain.image import Image
from sublet.domain.instance import Instance
from sublet.domain.machine import boots
from sublet.domain.mounts import Mount, MountType, in_order
from sublet.domain.nics import Nic
from sublet.domain.privileges import Ulimit
from sublet.domain.subnets import mac
from sublet.drivers.container.spec import Process
from sublet.drivers.network import Endpoint, Place
from sublet.drivers.vm.messages import Command, Guest, GuestDisk, Identity, Mode
from sublet.engine import plan, seeds
from sublet.engine.connections import Connections

OWN_FILES = (
    *("/etc/hostname", "/etc/hosts", "/etc/machine-id", "/etc/resolv.conf"),
    *(f"{seed.DIRECTORY}/{name}" for name in ("meta-data", "network-config", "user-data")),
)
"""What the host has a guest write into its files at each start."""


def command(process: Process, user: str) -> Command:
    """A process of an instance, its first or a further one, run by `user[:group]` of its image."""
    return Command(
        args=process.args,
        env=process.env,
        user=user,
        cwd=process.working_dir,
        tty=process.tty,
        window=process.console_size,
        groups=process.join,
        ulimits=tuple(_ulimit(limit) for limit in process.ulimits),
    )


def _ulimit(limit: Ulimit) -> tuple[str, int, int]:
    return limit.name, limit.soft, limit.hard


def guest(
    instance: Instance, image: Image, identity: Identity, volumes: list[tuple[Mount, Path]]
) -> Guest:
    """What runs in the machine of the instance, with its volumes' disks. Raises InvalidArgument
    where there is nothing to run."""
    spec, args = instance.spec, plan.arguments(instance, image.config)
    size = spec.console_size
    process = plan.process(instance, image.config, args, tty=spec.tty, console_size=size)
    return Guest(
        command=command(process, spec.user or image.config.user),
        identity=identity,
        mode=Mode.INIT if boots(args) else Mode.APP,
        stdin=spec.stdin,
        disks=tuple(
            GuestDisk(f"vol{number}", mount.destination, mount.read_only, fill=not mount.nocopy)
            for number, (mount, _) in enumerate(volumes)
        ),
        tmpfs=tuple(
            (mount.destination, _tmpfs(mount))
            for mount in in_order(spec.mounts)
            if mount.type is MountType.TMPFS
        ),
        shm=spec.shm_size,
        read_only=spec.read_only,
        sysctls=spec.sysctls,
        root_disk=image.config.disk is not None,
    )


def idle(guest: Guest, *, volumes: bool) -> Guest:
    """The same machine, with nothing of the instance's own in it but its disk (with `volumes`,
    those are mounted as well), and nobody on its network."""
    return Guest(
        command=Command(("sleep", "2147483647"), tool=True),
        identity=Identity(nics=tuple(Nic(nic.mac, "", 0) for nic in guest.identity.nics)),
        disks=guest.disks if volumes else (),
        root_disk=guest.root_disk,
    )


def _tmpfs(mount: Mount) -> str:
    options = [f"size={mount.size}"] if mount.size else []
    return ",".join([*options, f"mode={mount.mode or '1777'}"])


def identity(
    instance: Instance, image: Image, connections: Connections, endpoint: Endpoint
) -> Identity:
    """What tells the instance's guest from others: names, addresses, and files that have them."""
    spec, host = instance.spec, plan.hostname(instance)
    gateway = connections.gateway(endpoint)
    default = connections.resolv_conf(instance)
    resolv_conf = resolving.resolv_conf(default, spec.dns, spec.dns_search)
    plugs = nics(connections, endpoint)
    root = connections.parts.config.root
    files = {
        **seeds.files(root, instance, image.config, plugs, host, resolv_conf),
        "/etc/resolv.conf": resolv_conf,
        "/etc/hosts": resolving.hosts_file(host, endpoint.address, gateway, spec.hosts),
        "/etc/hostname": f"{host}\n",
    }
    return Identity(host, machine_id(instance), plugs, files)


def machine_id(instance: Instance) -> str:
    """The instance's id as machine-id(5) has it: 32 hexadecimal digits."""
    return hashlib.sha256(f"sublet {instance.id}".encode()).hexdigest()[:32]


def nics(connections: Connections, endpoint: Endpoint) -> tuple[Nic, ...]:
    """The guest's interfaces in their order; the way out leads through the endpoint's first."""
    found = []
    for place in plugged(endpoint):
        segment = connections.parts.network.plan.numbered(place.network)
        first = place == endpoint.places[0]
        out = first and not segment.internal
        found.append(
            Nic(
                mac=mac(IPv4Address(place.address)),
                address=place.address,
                prefix=segment.subnet.prefixlen,
                gateway=segment.gateway if out else "",
                metadata=segment.gateway if first and not out else "",
            )
        )
    return tuple(found)


def plugged(endpoint: Endpoint) -> list[Place]:
    """Its places in the order of their interfaces: eth0, eth1 and so on."""
    return sorted(endpoint.places, key=lambda place: place.interface)
