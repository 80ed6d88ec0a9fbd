"""The pytest plugin: services for tests, each with a fork of its own of what was prepared once."""

from sublet.pytest_plugin.fixtures import sublet_service
from sublet.pytest_plugin.service import Service

__all__ = ["Service", "sublet_service"]
