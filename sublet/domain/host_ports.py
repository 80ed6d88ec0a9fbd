"""Ports of the host's loopback that one instance reaches at its own."""

from __future__ import annotations

from collections.abc import Sequence

from sublet.domain.errors import InvalidArgument
from sublet.domain.networks import Mode

MOST = 16
"""Host ports of one instance."""


def check_host_ports(ports: Sequence[int], *, vm: bool, network: str) -> None:
    """Raises InvalidArgument where a port is none, or the instance has no loopback of its own that
    the host can listen on."""
    if not ports:
        return
    if vm:
        raise InvalidArgument(
            "--host-port is for containers: a VM's loopback is its own kernel's.",
            hint="Run a container, or have the service listen on an address that the VM reaches.",
        )
    if not Mode.of(network).own:
        raise InvalidArgument(
            f"--host-port does not go with --network {network}: that loopback is another's.",
            hint="With --network host, 127.0.0.1 is the host's already; else leave --network out.",
        )
    if len(ports) > MOST or len(set(ports)) != len(ports):
        raise InvalidArgument(f"An instance has {MOST} different host ports at most.")
    for port in ports:
        if not 1 <= port <= 65535:
            raise InvalidArgument(
                f"{port} is not a port.", hint="Write --host-port 3000, from 1 to 65535."
            )
