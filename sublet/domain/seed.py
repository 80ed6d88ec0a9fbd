"""The seed of cloud-init: what a VM with a system of its own is told about itself.

Source: cloud-init, "NoCloud" data source (files below /var/lib/cloud/seed/nocloud) and "Networking
config version 2". All but the user data is JSON, which is YAML, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sublet.domain import metadata
from sublet.domain.errors import InvalidArgument
from sublet.domain.nics import Nic

DIRECTORY = "/var/lib/cloud/seed/nocloud"
MAX_USER_DATA = 256 << 10

_BEGINNINGS = ("#cloud-config", "#!", "#include", "#cloud-boothook", "#part-handler")
_MORE = ("## template:", "Content-Type:", "MIME-Version:", "From ")
_KEY = re.compile(
    r"(ssh-(rsa|ed25519)|ecdsa-sha2-nistp(256|384|521)|sk-(ssh-ed25519|ecdsa-sha2-nistp256)"
    r"@openssh\.com) [A-Za-z0-9+/]{32,16384}={0,3}( [^\0\r\n]{0,512})?"
)


@dataclass(frozen=True, slots=True)
class Seed:
    """What the guest is told. `instance_id`: cloud-init does all again when that is a new one;
    `resolv_conf` is the text of that file."""

    instance_id: str
    hostname: str
    nics: Sequence[Nic] = ()
    resolv_conf: str = ""
    user_data: str = ""
    ssh_keys: Sequence[str] = ()


def files(seed: Seed) -> dict[str, str]:
    """The files of the seed: their paths in the guest and contents."""
    meta: dict[str, Any] = {
        "instance-id": f"i-{seed.instance_id}",
        "local-hostname": seed.hostname,
        "public-keys": list(seed.ssh_keys),
    }
    texts = {
        "meta-data": _json(meta),
        "user-data": seed.user_data or "#cloud-config\n{}\n",
        "network-config": _json(_network(seed)),
    }
    return {f"{DIRECTORY}/{name}": text for name, text in texts.items()}


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=1) + "\n"


def _network(seed: Seed) -> dict[str, Any]:
    """The static configuration of its interfaces, which are named as they are plugged in."""
    resolvers = _resolvers(seed.resolv_conf)
    interfaces = {}
    for number, nic in enumerate(seed.nics):
        name = f"eth{number}"
        interfaces[name] = {
            "match": {"macaddress": nic.mac},
            "set-name": name,
            "dhcp4": False,
            "addresses": [f"{nic.address}/{nic.prefix}"],
        }
        ways = {"0.0.0.0/0": nic.gateway, f"{metadata.ADDRESS}/32": nic.metadata}
        if routes := [{"to": to, "via": via} for to, via in ways.items() if via]:
            interfaces[name]["routes"] = routes
        if resolvers and number == 0:
            interfaces[name]["nameservers"] = resolvers
    return {"version": 2, "ethernets": interfaces}


def _resolvers(resolv_conf: str) -> dict[str, list[str]]:
    """What a resolv.conf says, as netplan has it."""
    found: dict[str, list[str]] = {"addresses": [], "search": []}
    for line in resolv_conf.splitlines():
        word, *values = line.split() or [""]
        if word == "nameserver":
            found["addresses"] += values[:1]
        elif word == "search":
            found["search"] = values
    return {key: values for key, values in found.items() if values}


def check_seed(user_data: str, ssh_keys: Sequence[str]) -> None:
    """Raises InvalidArgument for user data that cloud-init would pass over, or what is no key."""
    if len(user_data.encode()) > MAX_USER_DATA:
        raise InvalidArgument(
            f"The user data is larger than {MAX_USER_DATA >> 10} KiB.",
            hint="Let it fetch the rest: `#include` and a URL on the next line.",
        )
    if user_data and not user_data.startswith((*_BEGINNINGS, *_MORE)):
        raise InvalidArgument(
            "cloud-init would pass over the user data: its first line does not say what it is.",
            hint="Begin it with #cloud-config, or with #!/bin/sh for a script.",
        )
    for key in ssh_keys:
        if not _KEY.fullmatch(key):
            raise InvalidArgument(
                "What --ssh-key gives is no public key of SSH.",
                hint="Give the file that ends in .pub, such as ~/.ssh/id_ed25519.pub.",
            )
