"""Bridges, cables, rules, names and published ports."""

from sublet.drivers.network.endpoint import Endpoint, Place
from sublet.drivers.network.network import Network

__all__ = ["Endpoint", "Network", "Place"]
