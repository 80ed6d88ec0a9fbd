"""What `inspect` tells of an instance beyond its `ps` entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sublet.domain.instance import Instance
from sublet.domain.seccomp import NAMED
from sublet.domain.spec import InstanceSpec
from sublet.domain.units import rfc3339
from sublet.domain.waking import sleeps
from sublet.engine.health import HealthChecks
from sublet.engine.idleness import Report
from sublet.engine.instances import Instances
from sublet.engine.waking import Failure

_OPTIONS = (
    "cap_add cap_drop devices dns dns_search group_add host_ports hosts init read_only root "
    "seccomp shm_size stop_signal stop_timeout sysctls ulimits"
).split()


def labels(row: Instance, instances: Instances) -> dict[str, str]:
    """The image's labels but for Sublet's own, and over them the instance's."""
    found = instances.parts.image_store.get(row.digest)
    inherited = {} if found is None else found.config.own_labels
    return {**inherited, **row.spec.labels}


def options(spec: InstanceSpec) -> dict[str, Any]:
    """What was asked for beyond process, size, mounts and ports; what was not is left out."""
    given = {name: getattr(spec, name) for name in _OPTIONS}
    plain = {name: dict(v) if isinstance(v, Mapping) else v for name, v in given.items()}
    plain["devices"] = [asdict(device) for device in spec.devices]
    plain["ulimits"] = [asdict(limit) for limit in spec.ulimits]
    if spec.seccomp:
        plain["seccomp"] = spec.seccomp if spec.seccomp in NAMED else "a profile of its own"
    return {name: value for name, value in plain.items() if value}


def networks(row: Instance, instances: Instances) -> dict[str, Any]:
    """`address`, the one that its ports lead to, and which networks it is on."""
    connections = instances.lifecycle.connections
    endpoint = connections.endpoint(row)
    named = [connections.network(c.network).name for c in connections.of(row)]
    places = sorted(endpoint.places, key=lambda place: place.interface)
    on = [
        {"name": name, "interface": f"eth{p.interface}", "address": p.address, "names": p.names}
        for name, p in zip(named, places, strict=True)
    ]
    return {
        "address": endpoint.address or None,
        "network": row.spec.network or "default",
        "networks": on,
    }


def idleness(row: Instance, report: Report | None) -> dict[str, Any]:
    """Its rule for idleness, and how it stands: why it counts as used, or since when it does not
    and when the rule acts."""
    rule = row.spec.idle
    if rule is None:
        return {"idle": None, "busy_because": None}
    found: dict[str, Any] = {"after": rule.after, "action": rule.action.value}
    found |= {"since": None, "acts": None, "kept_until": None}
    if report is not None:
        found["since"] = None if report.because else rfc3339(report.since)
        found["acts"] = rfc3339(report.acts) if report.acts else None
        found["kept_until"] = rfc3339(report.kept) if report.kept else None
    because = list(report.because) if report else []
    return {"idle": found, "busy_because": because or None}


def wake(row: Instance, failure: Failure | None) -> dict[str, Any]:
    """Whether a connection wakes it, and why that did not succeed when it was last tried."""
    if not row.spec.wake:
        return {"wake": None}
    found: dict[str, Any] = {"asleep": sleeps(row), "failures": 0, "error": None}
    if failure is not None:
        found |= {"failures": failure.count, "error": failure.reason}
    return {"wake": found}


def upkeep(row: Instance, health: HealthChecks) -> dict[str, Any]:
    """How it is looked after: its restart policy, and what its health checks answered."""
    found: dict[str, Any] = {"restart": str(row.spec.restart), "restarts": row.restarts}
    check, report = health.check(row), health.report(row.id)
    if check is None:
        return found
    results = report.results if report else ()
    times = [{"start": rfc3339(each.start), "end": rfc3339(each.end)} for each in results]
    return {
        **found,
        "health_check": asdict(check),
        "health_streak": report.streak if report else 0,
        "health_results": [{**asdict(each), **at} for each, at in zip(results, times, strict=True)],
    }
