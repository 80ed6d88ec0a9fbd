"""What may be changed of an instance after it was made: `update`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from sublet.domain.backup_plan import BackupPlan
from sublet.domain.budget import Budget
from sublet.domain.capacity import Amount, admit
from sublet.domain.egress import DEFAULT
from sublet.domain.errors import InvalidArgument, WrongState
from sublet.domain.idle import Idle
from sublet.domain.instance import Instance
from sublet.domain.machine import Room, vcpus
from sublet.domain.notice import Action
from sublet.domain.restart import RestartPolicy
from sublet.domain.size import Size, check_growth
from sublet.domain.spec import InstanceSpec, check_again
from sublet.domain.units import format_bytes


@dataclass(frozen=True, slots=True)
class Change:
    """New values; None leaves the old one. `ttl` in seconds from creation, 0: none any more;
    `idle_after` in seconds, 0: no rule any more; `budget` of 0 dollars: none any more; so is a
    `backup` plan that names no moment, and an `egress` of `default`. `lease` can only become empty:
    it stays when the client that it was made for ends."""

    cpus: float | None = None
    memory: int | None = None
    disk: int | None = None
    pids_limit: int | None = None
    restart: RestartPolicy | None = None
    ttl: float | None = None
    budget: Budget | None = None
    idle_after: float | None = None
    idle_action: Action | None = None
    wake: bool | None = None
    backup: BackupPlan | None = None
    egress: tuple[str, ...] | None = None
    lease: str | None = None


def changed(spec: InstanceSpec, change: Change) -> InstanceSpec:
    """The request as it is after the change. Raises InvalidArgument."""
    if change.lease:
        raise InvalidArgument("A lease can be left, not given.", hint="Write an empty one.")
    fields = ("cpus", "memory", "disk", "pids_limit", "restart", "ttl", "wake", "lease")
    given = {name: getattr(change, name) for name in fields}
    given = {name: value for name, value in given.items() if value is not None}
    if change.idle_after is not None or change.idle_action is not None:
        given["idle"] = _idle(spec.idle, change)
    if change.budget is not None:
        given["budget"] = change.budget if change.budget.amount else None
    if change.backup is not None:
        given["backup"] = change.backup if change.backup.moments else None
    if change.egress is not None:
        given["egress"] = None if change.egress == (DEFAULT,) else change.egress
    if not given:
        raise InvalidArgument(
            "There is nothing to update.",
            hint="Give --cpus, --memory, --disk, --pids-limit, --restart, --ttl, --idle, --budget, "
            "--backup, --egress or --wake.",
        )
    for name in ("cpus", "memory", "disk"):
        if given.get(name) == 0:
            raise InvalidArgument(f"{name} cannot become 0.", hint="Give a size above 0.")
    made = replace(spec, **given)
    if spec.vm:
        check_growth(spec.disk, made.disk)
    check_again(made)
    return made


def _idle(before: Idle | None, change: Change) -> Idle | None:
    """The rule for idleness after the change. Raises InvalidArgument."""
    after = change.idle_after if change.idle_after is not None else before and before.after
    if after is None:
        raise InvalidArgument(
            "There is no rule for idleness whose action could change.", hint="Give --idle 30m too."
        )
    action = change.idle_action or (before.action if before else Action.STOP)
    return Idle(after, action) if after else None


def growth(old: InstanceSpec, new: InstanceSpec) -> Amount:
    """What one of the new size holds more than one of the old; nothing of what becomes less."""
    return Amount(max(0.0, new.cpus - old.cpus), max(0, new.memory - old.memory))


def admit_change(old: InstanceSpec, new: InstanceSpec, free: Amount, used: int) -> None:
    """Raises unless a running instance may be resized: InsufficientCapacity where the host has
    no room (`free`, without what it holds already), WrongState where it uses more memory
    (`used`, bytes) than it would be left with."""
    admit(growth(old, new), free)
    if new.memory < old.memory and new.memory < used:
        raise WrongState(
            f"It uses {format_bytes(used)} of memory, more than {format_bytes(new.memory)}.",
            hint="Stop something in it first, or give more.",
        )


def divided(
    instance: Instance, change: Change, room: Room | None = None
) -> tuple[Change | None, Instance]:
    """What of a change a running VM can have now, and the VM with the rest noted for its next
    start. More CPUs and memory are plugged in as far as there is `room`, None where nothing can
    be; nothing is taken out of a guest that runs, and its disk stays as it has booted with."""
    now, spec = change, instance.spec
    if change.cpus is not None:
        now_cpus = _cpus_now(change.cpus, spec, room)
        later = change.cpus if change.cpus != (now_cpus or spec.cpus) else 0.0
        instance = replace(instance, next_cpus=later)
        now = replace(now, cpus=now_cpus)
    if change.memory is not None:
        memory = room.next_memory(change.memory) if room else spec.memory
        grown = memory if room and memory > room.memory else None
        left = change.memory if change.memory != (grown or spec.memory) else 0
        instance = replace(instance, next_memory=left)
        now = replace(now, memory=grown)
    if change.disk is not None:
        instance = replace(instance, next_disk=change.disk)
    now = replace(now, disk=None)
    return (None if now == Change() else now), instance


def _cpus_now(wanted: float, spec: InstanceSpec, room: Room | None) -> float | None:
    """The vCPUs of a size that a running VM can be given of those `wanted`; None: no others."""
    seen = vcpus(Size(wanted, spec.memory))
    if seen == vcpus(spec.size):
        return wanted
    able = room.next_vcpus(seen) if room else 0
    if room is None or able <= room.vcpus:
        return None
    return min(wanted, float(able))


def noted(instance: Instance, other: Instance) -> Instance:
    """The instance, with what the other gets at its next start."""
    return replace(
        instance,
        next_cpus=other.next_cpus,
        next_memory=other.next_memory,
        next_disk=other.next_disk,
    )


def postponed(instance: Instance, old: InstanceSpec, new: InstanceSpec) -> Instance:
    """A running VM that had one size, was to get the other, and whose guest has not taken it: it
    has it from its next start on at the latest. What was noted of that before is more."""
    cpus = new.cpus if vcpus(new.size) != vcpus(old.size) else 0.0
    memory = new.memory if new.memory != old.memory else 0
    return replace(
        instance,
        next_cpus=instance.next_cpus or cpus,
        next_memory=instance.next_memory or memory,
    )


def next_size(instance: Instance) -> str:
    """What it gets at its next start, in words; empty where it stays as it is."""
    found = {
        "vCPUs": f"{instance.next_cpus:g}" if instance.next_cpus else "",
        "of memory": format_bytes(instance.next_memory) if instance.next_memory else "",
        "of disk": format_bytes(instance.next_disk) if instance.next_disk else "",
    }
    return ", ".join(f"{amount} {what}" for what, amount in found.items() if amount)


def settled(instance: Instance) -> Instance:
    """A VM that has stopped, with the size that it was to get at its next start."""
    cpus, memory, disk = instance.next_cpus, instance.next_memory, instance.next_disk
    if not (cpus or memory or disk):
        return instance
    spec = instance.spec
    spec = replace(
        spec, cpus=cpus or spec.cpus, memory=memory or spec.memory, disk=disk or spec.disk
    )
    return replace(instance, spec=spec, next_cpus=0.0, next_memory=0, next_disk=0)


def expires(created: float, ttl: float) -> float:
    """When an instance that was created then is deleted, 0: never."""
    return created + ttl if ttl else 0.0


def next_expiry(lives: Iterable[tuple[str, float, float]], now: float) -> tuple[list[str], float]:
    """Of (id, created, ttl): the ids that are due `now`, and when the next one is, 0: never."""
    ends = [(expires(created, ttl), name) for name, created, ttl in lives if ttl]
    due = [name for end, name in sorted(ends) if end <= now]
    return due, min((end for end, _ in ends if end > now), default=0.0)
