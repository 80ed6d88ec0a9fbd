"""The interfaces of guests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Nic:
    """An interface, eth<n> by its place in the guest's list; `gateway` empty: no way out; `address`
    empty: it stays down. `metadata`: where the metadata service is reached without a way out."""

    mac: str
    address: str
    prefix: int
    gateway: str = ""
    metadata: str = ""
