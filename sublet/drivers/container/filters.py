"""Compiled seccomp filters: compiling the profile takes crun longer than all else that it does.

It leaves what it compiled in its state directory. The next container with the same profile
gets that along (the annotation `run.oci.seccomp_bpf_data`, crun(1)); a runtime that does not
know it compiles the profile, which stays in the configuration.
"""

from __future__ import annotations

import base64
import json
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

ANNOTATION = "run.oci.seccomp_bpf_data"
KEPT = 32
"""Filters that are remembered; tenants may bring profiles of their own."""

_INSTRUCTION = 8
"""Bytes of one instruction (struct sock_filter, linux/filter.h)."""


class Filters:
    """The filters of one daemon, in memory alone: another crun may compile otherwise."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, str] = OrderedDict()
        self._awaited: dict[str, str] = {}

    def apply(self, instance_id: str, config: dict[str, Any]) -> dict[str, Any]:
        """The OCI configuration, with the compiled filter where its profile is known."""
        profile = config["linux"].get("seccomp")
        if not profile:
            return config
        key = json.dumps(profile)
        compiled = self._known.get(key)
        if compiled is None:
            self._awaited[instance_id] = key
            return config
        self._known.move_to_end(key)
        return {**config, "annotations": {**config.get("annotations", {}), ANNOTATION: compiled}}

    def learn(self, instance_id: str, compiled: Callable[[], bytes]) -> None:
        """Remember what the runtime made of the profile of a container that has started."""
        key = self._awaited.pop(instance_id, "")
        if not key:
            return
        data = compiled()
        if data and len(data) % _INSTRUCTION == 0:
            self._known[key] = base64.b64encode(data).decode()
        while len(self._known) > KEPT:
            self._known.popitem(last=False)

    def forget(self, instance_id: str) -> None:
        """The container did not start, or is gone."""
        self._awaited.pop(instance_id, None)
