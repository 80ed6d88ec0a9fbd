"""Sublet's own containers-storage: SUBLET_ROOT/build, where builds and pulls are unpacked.

The host's engines have theirs in /var/lib/containers and never meet it. All calls of
buildah and skopeo get their settings from here, none from the host's configuration.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from sublet.domain.config import Config
from sublet.domain.errors import SubletError
from sublet.domain.leftover import Leftover
from sublet.drivers import linux, run
from sublet.drivers.registry import room
from sublet.drivers.registry.room import Inside

log = logging.getLogger(__name__)

CGROUPS = Path("/sys/fs/cgroup")
GRAPH, RUN, TEMPORARY = room.TOP / "graph", room.TOP / "run", room.TOP / "tmp"
"""The store's places as the tools see them, in their room."""


class BuildStore:
    """The store's places, and the calls of the tools that work in it."""

    def __init__(self, config: Config) -> None:
        self.graph, self.run = config.root / "build", config.run / "build"
        self.temporary = config.root / "tmp" / "build"
        self.cgroup = f"sublet-build-{hashlib.sha256(str(config.root).encode()).hexdigest()[:8]}"
        self._rooms = 0
        self._gate = asyncio.Lock()
        self._stale = False

    def prepare(self) -> None:
        """Make the directories and the tools' settings."""
        for directory in (self.graph, self.run, self.temporary):
            directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        networks = json.dumps(str(RUN / "networks"))
        self._setting("storage.conf", '[storage]\ndriver = "overlay"\n')
        self._setting("registries.conf", "unqualified-search-registries = []\n")
        engine = '[engine]\ncgroup_manager = "cgroupfs"\n'
        self._setting("containers.conf", f"[network]\nnetwork_config_dir = {networks}\n{engine}")

    def _setting(self, name: str, text: str) -> None:
        (self.run / name).write_text(text)

    @property
    def environment(self) -> dict[str, str]:
        """What keeps the tools away from the host's configuration."""
        return {
            "CONTAINERS_STORAGE_CONF": str(RUN / "storage.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(RUN / "registries.conf"),
            "CONTAINERS_CONF": str(RUN / "containers.conf"),
            "TMPDIR": str(TEMPORARY),
            "LC_ALL": "C.UTF-8",
        }

    def buildah(self, *arguments: str) -> list[str]:
        """A call of buildah on this store."""
        where = ["--root", str(GRAPH), "--runroot", str(RUN / "storage")]
        return ["buildah", *where, "--storage-driver", "overlay", *arguments]

    def reference(self, name: str) -> str:
        """`name` in this store, as skopeo writes it."""
        return f"containers-storage:[overlay@{GRAPH}+{RUN / 'storage'}]{name}"

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Inside]:
        """A room to call the tools in. After a failure, what it left in the store is removed
        as soon as no other room is open."""
        async with self._gate:  # not while another one's leftovers are removed
            self.prepare()
            self._rooms += 1
        try:
            async with self._room() as inside:
                yield inside
        except BaseException:
            self._stale = True
            raise
        finally:
            self._rooms -= 1
            if self._stale and not self._rooms:
                await asyncio.shield(self.clean_leftovers())

    def _room(self) -> AbstractAsyncContextManager[Inside]:
        binds = {GRAPH: self.graph, RUN: self.run, TEMPORARY: self.temporary}
        return room.opened({path.name: place for path, place in binds.items()})

    async def image_id(self, inside: Inside, name: str) -> str | None:
        """The id of the image `name` in this store."""
        look = self.buildah("inspect", "--type", "image", "--format", "{{.FromImageID}}", name)
        result = await run.run(inside(look), check=False, env=self.environment)
        return result.stdout.decode().strip() if result.code == 0 else None

    async def remove_image(self, inside: Inside, name: str) -> None:
        """Drop an image and the layers that nothing else needs; no error if it is not there."""
        await run.run(inside(self.buildah("rmi", name)), check=False, env=self.environment)

    @property
    def is_open(self) -> bool:
        """Whether a build or a pull is working in the store."""
        return self._rooms > 0

    async def keep_only(self, needed: Callable[[str, list[str]], bool]) -> None:
        """Drop every image (intermediate ones apart) that `needed` does not want, asked with
        its id and names; nothing while somebody else works in the store."""
        async with self._gate:
            if self._rooms or not self.graph.exists():
                return
            self.prepare()
            async with self._room() as inside:
                argv = inside(self.buildah("images", "--json", "--no-trunc"))
                result = await run.run(argv, check=False, env=self.environment)
                for item in json.loads(result.stdout or b"[]") or ():
                    identity = str(item["id"]).removeprefix("sha256:")
                    if not needed(identity, [str(name) for name in item.get("names") or ()]):
                        await self.remove_image(inside, identity)

    async def empty(self) -> None:
        """Remove the whole store; nothing while somebody works in it."""
        async with self._gate:
            if not self._rooms:
                await asyncio.to_thread(shutil.rmtree, self.graph, ignore_errors=True)

    def leftovers(self) -> list[Leftover]:
        """What ended builds left: mounts below the store, cgroups, temporary files."""
        if self._rooms:
            return []
        found = [Leftover("mount", path) for path in self._mounts()]
        found += [Leftover("cgroup", str(path)) for path in self._cgroups()]
        found += [Leftover("directory", str(path)) for path in self._temporaries()]
        return found + [Leftover("build container", name) for name in self._containers()]

    def _containers(self) -> list[str]:
        file = self.graph / "overlay-containers" / "containers.json"
        try:
            return [str(item["id"]) for item in json.loads(file.read_text())]
        except (OSError, ValueError):
            return []

    async def clean_leftovers(self) -> None:
        """Remove what `leftovers` lists; nothing while a build runs."""
        async with self._gate:
            if not self._rooms and self.graph.exists():
                self._stale = False
                await self._clean()

    async def _clean(self) -> None:
        if self._containers():
            self.prepare()
            with contextlib.suppress(SubletError):
                async with self._room() as inside:
                    argv = inside(self.buildah("rm", "--all"))
                    await run.run(argv, check=False, env=self.environment, timeout=60)
        for mount in self._mounts():
            with contextlib.suppress(OSError):
                linux.umount(mount, linux.MNT_DETACH)
        if self._containers():  # killed before it was buildah's: no command of buildah's removes it
            await asyncio.to_thread(_remove, self.graph)  # it is all there for builds to be quick
        for group in self._cgroups():
            with contextlib.suppress(OSError):
                group.rmdir()
        for path in self._temporaries():
            await asyncio.to_thread(_remove, path)

    def _mounts(self) -> list[str]:
        """Mount points below the store, the deepest first."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        paths = [line.split(" ")[4].encode().decode("unicode_escape") for line in lines]
        below = (f"{self.graph}/", f"{self.run}/")
        return sorted((path for path in paths if path.startswith(below)), reverse=True)

    def _cgroups(self) -> list[Path]:
        places: Sequence[Path] = [CGROUPS, *CGROUPS.iterdir()] if CGROUPS.is_dir() else []
        found = [place / self.cgroup for place in places]
        tree = [path for top in found if top.is_dir() for path, _, _ in os.walk(str(top))]
        return [Path(name) for name in sorted(tree, reverse=True)]

    def _temporaries(self) -> list[Path]:
        places = (self.temporary, self.run / "runc")
        return [path for place in places if place.is_dir() for path in place.iterdir()]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
