"""Disks that are images: a whole disk with a system of its own, for a VM."""

from __future__ import annotations

import json
from dataclasses import dataclass

from sublet.domain.errors import CorruptImage

LABEL_DISK = "io.sublet.disk"
"""The label of an image that is a whole disk for a VM: `{"format": "qcow2", "size": BYTES}`."""

MAX_DISK = 4 << 40
"""Bytes of the largest disk that a VM can have."""


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk that is an image: `size` is what a VM sees of it, in bytes."""

    size: int
    format: str = "qcow2"

    def label(self) -> str:
        """The text of LABEL_DISK."""
        return json.dumps({"format": self.format, "size": self.size}, sort_keys=True)

    @classmethod
    def from_label(cls, text: str) -> Disk:
        """The disk that the label tells of. Raises CorruptImage."""
        try:
            found = json.loads(text)
            disk = cls(found["size"], found["format"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise CorruptImage(f"The image's label {LABEL_DISK} is malformed.") from error
        fine = isinstance(disk.size, int) and 0 < disk.size <= MAX_DISK and disk.size % 512 == 0
        if disk.format != "qcow2" or not fine:
            raise CorruptImage(f"The image's label {LABEL_DISK} is out of bounds.")
        return disk
