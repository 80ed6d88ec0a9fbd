"""Bridges, cables, rules, names and published ports."""

from sublet.drivers.network.endpoint import Endpoint, Place
from sublet.drivers.network.listening import Caller
from sublet.drivers.network.network import Network

__all__ = ["Caller", "Endpoint", "Network", "Place"]
