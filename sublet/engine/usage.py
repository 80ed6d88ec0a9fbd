"""What instances take on the disk."""

from __future__ import annotations

from collections.abc import Iterable

from sublet.domain.instance import Instance
from sublet.drivers.container.containers import Containers
from sublet.drivers.usage import allocated


def written(containers: Containers, rows: Iterable[Instance]) -> dict[str, int]:
    """Bytes on the disk of each one's writable layer. Looks at every file: not for the event
    loop."""
    return {row.id: allocated(containers.places(row.id).layer.directory) for row in rows}
