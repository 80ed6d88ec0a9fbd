"""Names on one network: a directory with a file per instance, in the format of hosts(5)."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from sublet.domain.names import validate_name
from sublet.drivers.network.identity import checked

Entry = tuple[str, tuple[str, ...]]
"""An address and its names."""


class Hosts:
    """The files of one directory, which is for them alone."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def tidy(self) -> None:
        """Remove what a killed daemon did not finish writing."""
        for unfinished in self.directory.glob(".*"):
            unfinished.unlink(missing_ok=True)

    def entries(self) -> dict[str, Entry]:
        """Address and names, by instance id."""
        found: dict[str, Entry] = {}
        for file in self.directory.glob("[!.]*"):
            with contextlib.suppress(OSError, ValueError):
                address, *names = file.read_text().split()
                found[file.name] = (address, tuple(names))
        return found

    def empty(self) -> bool:
        return not any(self.directory.glob("[!.]*"))

    def add(self, instance_id: str, address: str, names: list[str]) -> None:
        """The names are those of the address, in place of those before: one rename.

        Raises InvalidArgument for what is no name.
        """
        text = " ".join([address, *map(validate_name, names)])
        self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        new = self.directory / f".{checked(instance_id)}"
        new.write_text(text + "\n")
        new.replace(self.directory / instance_id)

    def remove(self, instance_id: str) -> None:
        """The instance's names are gone, if there were any."""
        (self.directory / checked(instance_id)).unlink(missing_ok=True)

    def delete(self) -> None:
        """The directory is gone."""
        shutil.rmtree(self.directory, ignore_errors=True)
