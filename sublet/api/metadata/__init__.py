"""The instance metadata service: EC2's IMDSv2, for whoever calls 169.254.169.254."""

from sublet.api.metadata.server import Server

__all__ = ["Server"]
