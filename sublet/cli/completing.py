"""What a shell offers for a word that is being typed. No daemon is started for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from sublet.domain.errors import SubletError
from sublet.sdk import Client
from sublet.sdk._launch import socket_path

Completion = Callable[[click.Context, click.Parameter, str], list[str]]


def instance_names(_: click.Context, __: click.Parameter, typed: str) -> list[str]:
    """Names of instances that begin so; ids, when none does."""
    try:
        rows = Client(socket_path()).ps(all=True)
    except SubletError:
        return []
    names = [row["name"] for row in rows if row["name"].startswith(typed)]
    return names or [row["id"] for row in rows if row["id"].startswith(typed)]


def image_names(_: click.Context, __: click.Parameter, typed: str) -> list[str]:
    """Names of images that begin so."""
    try:
        rows = Client(socket_path()).images()
    except SubletError:
        return []
    return [name for row in rows for name in row["names"] if name.startswith(typed)]


def image_or_catalog_names(
    context: click.Context, parameter: click.Parameter, typed: str
) -> list[str]:
    """Names of images that begin so, and of those that the catalogue can make."""
    from sublet.domain.catalog import ENTRIES  # here: `run` itself has no use for it

    made = [f"{entry.name}:{tag}" for entry in ENTRIES for tag in entry.tags.values()]
    names = image_names(context, parameter, typed) + made
    return [name for name in dict.fromkeys(names) if name.startswith(typed)]


def catalog_entries(_: click.Context, __: click.Parameter, typed: str) -> list[str]:
    """Names of the catalogue's entries that begin so."""
    from sublet.domain.catalog import ENTRIES

    return [entry.name for entry in ENTRIES if entry.name.startswith(typed)]


def volume_names(_: click.Context, __: click.Parameter, typed: str) -> list[str]:
    """Names of volumes that begin so."""
    return _starting(lambda: Client(socket_path()).volumes(), typed)


def network_names(_: click.Context, __: click.Parameter, typed: str) -> list[str]:
    """Names of networks that begin so."""
    return _starting(lambda: Client(socket_path()).networks(), typed)


def schedule_names(_: click.Context, __: click.Parameter, typed: str) -> list[str]:
    """Names of schedules that begin so."""
    return _starting(lambda: Client(socket_path()).schedules(), typed)


def pool_names(_: click.Context, __: click.Parameter, typed: str) -> list[str]:
    """Names of pools that begin so."""
    return _starting(lambda: Client(socket_path()).pools(), typed)


def backup_ids(_: click.Context, __: click.Parameter, typed: str) -> list[str]:
    """Ids of backups that begin so."""
    try:
        rows = Client(socket_path()).backups()
    except SubletError:
        return []
    return [row["id"] for row in rows if row["id"].startswith(typed)]


def request_ids(_: click.Context, __: click.Parameter, typed: str) -> list[str]:
    """Ids of spot requests that begin so, and names of their instances."""
    try:
        rows = Client(socket_path()).spot_requests()
    except SubletError:
        return []
    found = [row["name"] for row in rows] + [row["id"] for row in rows]
    return [text for text in dict.fromkeys(found) if text.startswith(typed)]


def size_names(_: click.Context, __: click.Parameter, typed: str) -> list[str]:
    """Names of sizes that begin so."""
    return _starting(lambda: Client(socket_path()).sizes(), typed)


def one_of(*words: str) -> Completion:
    """Of these words those that begin so."""
    return lambda _, __, typed: [word for word in words if word.startswith(typed)]


def _starting(listed: Callable[[], list[dict[str, Any]]], typed: str) -> list[str]:
    try:
        return [row["name"] for row in listed() if row["name"].startswith(typed)]
    except SubletError:
        return []


ACTIONS = ("stop", "hibernate", "terminate")
FLAGS: dict[str, Completion] = {
    "size": size_names,
    "network": network_names,
    "egress": one_of("none", "internet"),
    "idle_action": one_of(*ACTIONS),
    "on_reclaim": one_of(*ACTIONS),
    "backup": one_of("on-notice", "on-stop", "every="),
    "restart": one_of("no", "on-failure", "always", "unless-stopped"),
    "pull": one_of("missing", "always", "never"),
}
