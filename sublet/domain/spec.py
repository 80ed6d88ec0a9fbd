"""What a tenant asks for: an instance, or a further process in one."""

from __future__ import annotations

import math
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from sublet.domain.backup_plan import BackupPlan, check_plan
from sublet.domain.budget import Budget, check_budget
from sublet.domain.egress import check_egress_request
from sublet.domain.errors import InvalidArgument
from sublet.domain.health import Healthcheck, check_health
from sublet.domain.host_ports import check_host_ports
from sublet.domain.idle import Idle, check_idle, check_wake
from sublet.domain.machine import check_machine
from sublet.domain.mounts import Mount, check_mounts
from sublet.domain.names import validate_hostname, validate_new_name
from sublet.domain.networks import Mode, check_request
from sublet.domain.ports import Port, check_port
from sublet.domain.privileges import Device, Ulimit, check_privileges
from sublet.domain.resolving import check_resolving
from sublet.domain.restart import RestartPolicy, check_restart
from sublet.domain.seccomp import check_profile
from sublet.domain.seed import check_seed
from sublet.domain.signals import signal_number
from sublet.domain.size import Size
from sublet.domain.spot import Spot, check_spot
from sublet.domain.units import MIB

MAXIMUM_PIDS = 1 << 22
"""The most pids that Linux has (PID_MAX_LIMIT, proc(5), pid_max)."""

HOST_ROOT = "host"
"""The root of an instance that has the host's files below its layer."""

_MOST_CELLS = (1 << 16) - 1


class Isolation(StrEnum):
    CONTAINER = "container"
    VM = "vm"


class Market(StrEnum):
    ON_DEMAND = "on-demand"
    SPOT = "spot"


@dataclass(frozen=True, slots=True)
class LogConfig:
    """Where output goes: `file`, in `max_files` files of `max_size` bytes each, or `none`."""

    driver: str = "file"
    max_size: int = 10 * MIB
    max_files: int = 3


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """What a tenant asks for. Empty values leave the choice to the image.

    `entrypoint` None keeps the image's; `stop_timeout` in seconds, None: 10. `network` is a
    network's name, empty for the default one, `none`, `host` or `container:ID`; `aliases` are
    further names on it. `health` None keeps the image's check. `seccomp` is the JSON text of an
    OCI `linux.seccomp` profile, `unconfined`, `user-namespaces`, or empty for Sublet's own.
    `shm_size` in bytes, 0: 64 MiB. `cold`: a VM boots, where it could go on from a
    template. `ttl` in seconds from creation, 0: none. `user_data` and `ssh_keys` go into the
    seed of cloud-init; the former is in no row. `hosts` are `name:address` for /etc/hosts. `idle`:
    what is done when nobody uses it. `wake`: a connection to a published port starts it again.
    `console_size`: rows and columns of the terminal from its
    first moment on, where it has one. `spot`: it may be reclaimed, and
    its market is that; `size_name`: a size's name, or 2x4, for what of `cpus` and
    `memory` is 0. `backup`: when it is backed up by itself.
    `lease`: the id of a lease, with whose end it is deleted.
    `egress`: whom it may connect to (domain/egress.py), None: whom its networks reach.
    `host_ports`: ports of the host's loopback that it reaches at its own.
    `root`: what lies below its layer; empty: its image; `host`: this host's own root file system,
    which stays as it is.
    """

    image: str
    command: tuple[str, ...] = ()
    name: str = ""
    entrypoint: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    hostname: str = ""
    ports: tuple[Port, ...] = ()
    mounts: tuple[Mount, ...] = ()
    cpus: float = 0.0
    memory: int = 0
    disk: int = 0
    pids_limit: int = 2048
    stop_timeout: float | None = None
    stop_signal: str = ""
    tty: bool = False
    stdin: bool = False
    remove: bool = False
    isolation: Isolation = Isolation.CONTAINER
    market: Market = Market.ON_DEMAND
    spot: Spot | None = None
    size_name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    network: str = ""
    aliases: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    health: Healthcheck | None = None
    init: bool = False
    ulimits: tuple[Ulimit, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[Device, ...] = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    group_add: tuple[str, ...] = ()
    seccomp: str = ""
    read_only: bool = False
    shm_size: int = 0
    log: LogConfig = field(default_factory=LogConfig)
    ttl: float = 0.0
    user_data: str = ""
    ssh_keys: tuple[str, ...] = ()
    cold: bool = False
    budget: Budget | None = None
    idle: Idle | None = None
    console_size: tuple[int, int] = (0, 0)
    backup: BackupPlan | None = None
    wake: bool = False
    lease: str = ""
    egress: tuple[str, ...] | None = None
    host_ports: tuple[int, ...] = ()
    root: str = ""

    @property
    def vm(self) -> bool:
        """Whether it has a kernel of its own."""
        return self.isolation is Isolation.VM

    @property
    def size(self) -> Size:
        """What the instance is sold, once the host's defaults are filled in."""
        return Size(self.cpus, self.memory, self.disk)

    def with_defaults(self, default: Size) -> InstanceSpec:
        """A copy whose size is complete, and whose market is known."""
        spot = self.spot or (Spot() if self.market is Market.SPOT else None)
        return replace(
            self,
            spot=spot,
            market=Market.SPOT if spot else Market.ON_DEMAND,
            cpus=self.cpus or default.cpus,
            memory=self.memory or default.memory,
            disk=self.disk or default.disk,
        )


@dataclass(frozen=True, slots=True)
class ExecSpec:
    """A further process in a running instance. Empty values: as the instance's own. `timeout`:
    seconds after which it is killed, with what it has started; 0: never."""

    command: tuple[str, ...]
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    tty: bool = False
    console_size: tuple[int, int] = (0, 0)
    timeout: float = 0.0


def check_spec(spec: InstanceSpec) -> None:
    """Raises InvalidArgument where a value of the request is malformed or out of range."""
    _check_texts(spec.image, spec.stop_signal, spec.user_data, spec.lease)
    if spec.name:
        validate_new_name(spec.name)
    if spec.hostname:
        validate_hostname(spec.hostname)
    _check_process((*(spec.entrypoint or ()), *spec.command), spec)
    _ = spec.size  # raises InvalidArgument itself
    if not 1 <= spec.pids_limit <= MAXIMUM_PIDS:
        raise InvalidArgument(
            f"{spec.pids_limit} is not a number of processes.",
            hint=f"Give --pids-limit from 1 to {MAXIMUM_PIDS}.",
        )
    for port in spec.ports:
        check_port(port)
    _check_isolation(spec)
    if spec.spot is not None:
        check_spot(spec.spot, vm=spec.vm, remove=spec.remove)
    if spec.stop_timeout is not None and not 0 <= spec.stop_timeout < math.inf:
        raise InvalidArgument(f"{spec.stop_timeout} is not a number of seconds to wait.")
    _check_root(spec)
    check_mounts(spec.mounts)
    check_options(spec)
    check_request(
        spec.network,
        spec.aliases,
        ports=bool(spec.ports),
        sysctls=any(name.startswith("net.") for name in spec.sysctls),
    )
    check_egress_request(spec.egress, spec.network, spec.dns)
    check_host_ports(spec.host_ports, vm=spec.vm, network=spec.network)
    check_restart(spec.restart, remove=spec.remove)
    if spec.wake:
        check_wake(spec.ports, remove=spec.remove)
    if spec.idle:
        check_idle(spec.idle, vm=spec.vm, network=spec.network)
    if spec.backup:
        check_plan(spec.backup, remove=spec.remove)
    check_log(spec.log)
    check_budget(spec.budget)
    if not 0 <= spec.ttl < math.inf:
        raise InvalidArgument(f"{spec.ttl} is not a time to live in seconds.")


def _check_isolation(spec: InstanceSpec) -> None:
    """What a machine cannot have, and what only a machine can."""
    if spec.isolation is Isolation.VM:
        check_machine(spec)
        check_seed(spec.user_data, spec.ssh_keys)
    elif spec.user_data or spec.ssh_keys:
        raise InvalidArgument(
            "--user-data and --ssh-key are for VMs.",
            hint="Add --vm; or, for a container, put it into the image. `sublet ssh` needs no key.",
        )
    if spec.cold and not spec.vm:
        raise InvalidArgument("--cold is for VMs: no container boots.", hint="Add --vm.")


def _check_root(spec: InstanceSpec) -> None:
    if spec.root not in ("", HOST_ROOT):
        raise InvalidArgument(f"'{spec.root}' is no root file system.", hint="Write host.")
    if spec.root and spec.vm:
        raise InvalidArgument(
            "A VM cannot have the host's root file system: it sees none of the host's files.",
            hint="Leave out --vm.",
        )


def check_again(spec: InstanceSpec) -> None:
    """As `check_spec`, of an instance that is there already: it may have been taken off the
    networks that its ports and aliases were asked for with, and put on others."""
    check_spec(replace(spec, network="") if Mode.of(spec.network).own else spec)


def check_options(spec: InstanceSpec) -> None:
    """Raises InvalidArgument for options that are malformed or contradict each other."""
    check_privileges(spec.cap_add, spec.cap_drop, spec.sysctls, spec.devices, spec.ulimits)
    check_profile(spec.seccomp)
    check_resolving(spec.hosts, spec.dns, spec.dns_search)
    _check_texts(*spec.group_add, *spec.labels, *spec.labels.values())
    if spec.stop_signal:
        signal_number(spec.stop_signal)
    if spec.shm_size < 0:
        raise InvalidArgument(f"{spec.shm_size} is no size of /dev/shm.", hint="Write 64m.")
    if spec.health is not None:
        check_health(spec.health)
        _check_texts(*spec.health.test)


def check_log(log: LogConfig) -> None:
    """Raises InvalidArgument where the driver is unknown or the sizes are none."""
    if log.driver not in ("file", "none"):
        raise InvalidArgument(
            f"There is no log driver '{log.driver}'.", hint="Give --log-driver file or none."
        )
    if log.max_size < 4096 or not 1 <= log.max_files <= 100:
        raise InvalidArgument(
            "A log has 1 to 100 files of at least 4 KiB each.",
            hint="Write --log-opt max-size=10m --log-opt max-file=3.",
        )


def check_exec(spec: ExecSpec) -> None:
    """Raises InvalidArgument where a value of the request is malformed."""
    if not spec.command:
        raise InvalidArgument("There is no command to execute.")
    if not 0 <= spec.timeout < math.inf:
        raise InvalidArgument(f"{spec.timeout} is not a number of seconds.")
    _check_process(spec.command, spec)


def _check_process(command: tuple[str, ...], spec: InstanceSpec | ExecSpec) -> None:
    _check_texts(*command, *spec.env, spec.user, spec.working_dir)
    for entry in spec.env:
        if not entry.partition("=")[0]:
            raise InvalidArgument(
                f"'{entry}' is not a variable.", hint="Write NAME=VALUE, or NAME for this shell's."
            )
    if spec.working_dir:
        check_working_dir(spec.working_dir)
    if not all(0 <= number <= _MOST_CELLS for number in spec.console_size):
        raise InvalidArgument(f"{spec.console_size} is no size of a terminal, rows and columns.")


def _check_texts(*texts: str) -> None:
    if any("\0" in text for text in texts):
        raise InvalidArgument("A value holds a zero byte.")
    if any("\ud800" <= character <= "\udfff" for text in texts for character in text):
        raise InvalidArgument("A value is not valid Unicode.")


def check_working_dir(path: str) -> None:
    """Raises InvalidArgument unless the path is absolute and not below /proc (CVE-2024-21626)."""
    normal = posixpath.normpath(path)
    if not path.startswith("/") or normal.lstrip("/").split("/")[0] == "proc":
        raise InvalidArgument(
            f"'{path}' cannot be a working directory.", hint="Give an absolute path in the image."
        )
