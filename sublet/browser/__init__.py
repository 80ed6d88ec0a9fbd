"""Browsers in instances: a page as one version of one browser shows it."""

from sublet.browser.endpoint import Endpoint, serve
from sublet.browser.looking import look
from sublet.browser.sight import Sight

__all__ = ["Endpoint", "Sight", "look", "serve"]
