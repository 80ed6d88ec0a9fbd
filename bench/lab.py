"""What one run of the benchmarks shares: a daemon with an image, and the peers that are there."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

from bench import engines
from bench.engines import IMAGE, NAME, Bundle, Engine
from bench.host import workspace
from sublet.sdk import Client

TOOLS = {
    "docker": "dockerd",
    "podman": "podman",
    "crun": "crun",
    "runc": "runc",
    "qemu": "qemu-system-x86_64",
}


class Lab:
    """Everything is made when it is first asked for, and taken away by `close`."""

    def __init__(self, rounds: int, file: Path | None = None) -> None:
        self.rounds = rounds
        self.file = file
        self._stack = ExitStack()
        self.work = self._stack.enter_context(workspace())
        self.absent = [name for name, tool in TOOLS.items() if not shutil.which(tool)]
        if self.absent:
            print(f"not installed, left out: {', '.join(self.absent)}", file=sys.stderr)

    def close(self) -> None:
        self._stack.close()

    @cached_property
    def sublet(self) -> Engine:
        """A daemon that sells its vCPUs many times over, with the image.

        The environment of this process leads to it, for the SDK.
        """
        engine = self._stack.enter_context(
            engines.sublet(self.work / "sublet", SUBLET_OVERCOMMIT="512", **self._tracing())
        )
        assert engine.env is not None
        os.environ.update({key: engine.env[key] for key in ("SUBLET_ROOT", "SUBLET_RUN")})
        if self.file:
            engine("import", "--trust", str(self.file), "-t", IMAGE)
        else:
            engine("pull", IMAGE, timeout=1800)
        return engine

    @staticmethod
    def _tracing() -> dict[str, str]:
        wanted = os.environ.get("SUBLET_TRACE")
        return {"SUBLET_TRACE": wanted} if wanted else {}

    @cached_property
    def client(self) -> Client:
        """The SDK's, for that daemon."""
        return Client(self.sublet.socket)

    @cached_property
    def tar(self) -> Path:
        """The image's root file system, so that all run the same."""
        tar = self.work / "rootfs.tar"
        instance = self.sublet("run", "-d", IMAGE, "true").strip()
        self.sublet("wait", instance)
        self.sublet("export", instance, "-o", str(tar))
        self.sublet("rm", instance)
        return tar

    def has(self, *names: str) -> list[str]:
        """Those of the peers that this host has."""
        return [name for name in names if name not in self.absent]

    @cached_property
    def docker(self) -> Engine:
        engine = self._stack.enter_context(engines.docker(self.work))
        engine("import", str(self.tar), NAME)
        return engine

    @cached_property
    def podman(self) -> Engine:
        engine = self._stack.enter_context(engines.podman(self.work))
        engine("import", str(self.tar), NAME)
        return engine

    @cached_property
    def bundle(self) -> Bundle:
        """For the bare runtimes."""
        return engines.bundle(self.work, self.tar, self.sublet)

    @cached_property
    def crun(self) -> Engine:
        return self._stack.enter_context(engines.runtime("crun", self.bundle))

    @cached_property
    def runc(self) -> Engine:
        return self._stack.enter_context(engines.runtime("runc", self.bundle))
