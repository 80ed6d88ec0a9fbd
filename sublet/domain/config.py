"""The daemon's settings: one file, `SUBLET_ROOT/config.toml`, overridable by environment.

Pure: the caller hands in the parsed file and the environment.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from sublet.domain.errors import InvalidArgument
from sublet.domain.prices import Prices
from sublet.domain.repositories import check_repository
from sublet.domain.size import Size
from sublet.domain.size_names import parse_size_names, resolve
from sublet.domain.spec import InstanceSpec
from sublet.domain.units import GIB, parse_duration, parse_memory

DEFAULT_ROOT, DEFAULT_RUN = Path("/var/lib/sublet"), Path("/run/sublet")

DEFAULT_PRESSURE = (("memory", 60.0),)


@dataclass(frozen=True, slots=True)
class Config:
    """`root` holds state, `run` what does not survive a reboot; `reserve` in bytes;
    `subnet` an IPv4 /16, empty: the first free one; `mirror` a Debian mirror for suites that
    the host's own sources do not name, empty: the host's; `mirrors` what to ask before a
    registry: pairs of a registry and a `host[:port][/prefix]`; `template_limit` the most bytes
    of booted VMs' memory that is kept on the disk, 0: none is; `acceleration` what VMs run on,
    `kvm` or `tcg`, `auto`: find out; `notice` the seconds between a reclaim's announcement and
    its execution; `backup_repository` where backups go, empty: `root`/backups, and
    `backup_password_file` what opens it, empty: `root`/backup.password; `price_cpu` and
    `price_memory` dollars per vCPU-hour and GiB-hour;
    `reference_prices` a file of what sizes cost elsewhere, empty: the table that comes along;
    `price_lag` the seconds in which the spot price goes 63 % of its way; `sizes` names of sizes
    beside the standard ones; `pressure` the percent of time that tasks wait for `memory`, `cpu`
    or `io` from which on spot is reclaimed; `metadata_v1`: the metadata service answers without a
    token, too."""

    root: Path = DEFAULT_ROOT
    run: Path = DEFAULT_RUN
    reserve: int = GIB
    overcommit: float = 16.0
    default_size: Size = field(default_factory=lambda: Size(1, GIB // 2))
    subnet: str = ""
    mirror: str = ""
    mirrors: tuple[tuple[str, str], ...] = ()
    template_limit: int = 4 * GIB
    acceleration: str = "auto"
    notice: float = 120.0
    backup_repository: str = ""
    backup_password_file: str = ""
    price_cpu: float = Prices().cpu
    price_memory: float = Prices().memory
    reference_prices: str = ""
    price_lag: float = 300.0
    sizes: tuple[tuple[str, Size], ...] = ()
    pressure: tuple[tuple[str, float], ...] = DEFAULT_PRESSURE
    metadata_v1: bool = False

    @property
    def repository(self) -> str:
        """Where backups go that name no repository."""
        return self.backup_repository or str(self.root / "backups")

    @property
    def password_file(self) -> Path:
        """What opens repositories."""
        return Path(self.backup_password_file or self.root / "backup.password")

    @property
    def prices(self) -> Prices:
        """What is charged on demand."""
        return Prices(self.price_cpu, self.price_memory)

    def on_demand(self, spec: InstanceSpec) -> float:
        """What an instance of this spec costs on demand, in dollars per hour."""
        return self.prices.hourly(spec.size)

    def size_of(self, text: str) -> Size:
        """The size that a name, or 2x4, means; empty: the default one. Raises
        InvalidArgument."""
        return resolve(text, self.sizes) if text else self.default_size

    def mirrors_of(self, registry: str) -> list[str]:
        """What to ask for this registry's images before itself."""
        return [mirror for name, mirror in self.mirrors if name == registry]

    @property
    def identity(self) -> str:
        """Names what this daemon owns on the host: `sublet`, or `sublet_` and 8 hex digits."""
        if self.run == DEFAULT_RUN:
            return "sublet"
        return f"sublet_{hashlib.sha256(str(self.run).encode()).hexdigest()[:8]}"

    @property
    def socket(self) -> Path:
        """The API's unix socket."""
        return self.run / "sublet.sock"


def _subnet(text: str) -> str:
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError:
        network = ipaddress.IPv4Network("0.0.0.0/0")
    if network.prefixlen != 16:
        raise InvalidArgument(f"subnet: '{text}' is not an IPv4 /16.", hint="Write 10.213.0.0/16.")
    return text


_MIRROR = re.compile(r"([a-zA-Z0-9.:-]+)=([a-zA-Z0-9][a-zA-Z0-9.-]*(?::\d+)?(?:/[a-z0-9._/-]+)?)")


def _mirrors(text: str) -> tuple[tuple[str, str], ...]:
    found = [_MIRROR.fullmatch(item) for item in text.replace(",", " ").split()]
    if not all(found):
        raise InvalidArgument(
            f"mirrors: '{text}' is malformed.", hint="Write docker.io=mirror.example:5000, …"
        )
    return tuple((match[1], match[2].rstrip("/")) for match in found if match)


def _acceleration(text: str) -> str:
    if text not in ("auto", "kvm", "tcg"):
        raise InvalidArgument(f"acceleration: '{text}' is none.", hint="Write auto, kvm or tcg.")
    return text


def _file(text: str) -> str:
    if not text.startswith("/"):
        raise InvalidArgument(f"'{text}' is not a file's absolute path.")
    return text


def _price(text: str) -> float:
    price = float(text)
    if not 0 <= price < math.inf:
        raise InvalidArgument(f"'{text}' is not a price.", hint="Write dollars per hour: 0.03.")
    return price


def _pressure(text: str) -> tuple[tuple[str, float], ...]:
    """`60`, or `memory=60, cpu=95`; what is 0 is off."""
    found = {}
    for item in text.replace(",", " ").split():
        what, equals, percent = item.rpartition("=")
        if (equals and what not in ("memory", "cpu", "io")) or not 0 <= float(percent) <= 100:
            raise ValueError
        found[what or "memory"] = float(percent)
    return tuple((what, percent) for what, percent in found.items() if percent)


def _switch(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0", "on", "off"):
        raise InvalidArgument(f"'{text}' is neither true nor false.", hint="Write true or false.")
    return text.lower() in ("true", "1", "on")


_PARSERS: Mapping[str, Callable[[str], Any]] = {
    "reserve": parse_memory,
    "overcommit": float,
    "default_size": Size.parse,
    "subnet": _subnet,
    "mirror": str,
    "mirrors": _mirrors,
    "template_limit": parse_memory,
    "acceleration": _acceleration,
    "notice": parse_duration,
    "backup_repository": check_repository,
    "backup_password_file": _file,
    "price_cpu": _price,
    "price_memory": _price,
    "reference_prices": str,
    "price_lag": parse_duration,
    "sizes": parse_size_names,
    "pressure": _pressure,
    "metadata_v1": _switch,
}


def load(file: Mapping[str, Any], environ: Mapping[str, str]) -> Config:
    """The settings from the file's keys, each overridden by `SUBLET_<KEY>`.

    Raises InvalidArgument for a key that does not exist and for a malformed value.
    """
    unknown = set(file) - set(_PARSERS)
    if unknown:
        known = ", ".join(f.name for f in fields(Config) if f.name in _PARSERS)
        raise InvalidArgument(
            f"config.toml: there is no key '{sorted(unknown)[0]}'.", hint=f"The keys are: {known}."
        )
    values: dict[str, Any] = {}
    for key, parse in _PARSERS.items():
        text = environ.get(f"SUBLET_{key.upper()}", file.get(key))
        if text is not None:
            if isinstance(text, Mapping):  # a table of TOML
                text = ", ".join(f"{name}={value}" for name, value in text.items())
            try:
                values[key] = parse(str(text))
            except ValueError:
                raise InvalidArgument(f"{key}: '{text}' is malformed.") from None
    root = Path(environ.get("SUBLET_ROOT") or DEFAULT_ROOT)
    run = Path(environ.get("SUBLET_RUN") or DEFAULT_RUN)
    return Config(root=root, run=run, **values)
