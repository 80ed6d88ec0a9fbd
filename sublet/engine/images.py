"""Images: build, pull, pack, import, find, remove (design.md, section 4).

What this host packed itself is recorded as packed and mounted as it is; any other file
is packed again first, once per digest. Whatever is interrupted leaves nothing: work
happens in temporary directories and rooms that go with the verb that opened them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sublet.archive.entry import DIRECTORY, END, Entry, header
from sublet.domain import catalog, containerfile, image_filter
from sublet.domain.catalog import Choice
from sublet.domain.config import Config
from sublet.domain.disk_usage import Usage
from sublet.domain.errors import (
    BuildFailed,
    InvalidArgument,
    NoSuchImage,
    PullFailed,
)
from sublet.domain.image import Image, ImageConfig
from sublet.domain.leftover import Leftover
from sublet.domain.progress import Report, silent
from sublet.domain.reference import Reference
from sublet.drivers.registry import buildah
from sublet.drivers.registry.bases import base_id
from sublet.drivers.registry.room import Inside
from sublet.drivers.registry.store import BuildStore
from sublet.drivers.squashfs import Source
from sublet.drivers.store import files
from sublet.drivers.store.images import ImageStore
from sublet.engine import catalog as packaged
from sublet.engine.collecting import Collecting, InUse, Pruned, Removed
from sublet.engine.packing import Packing
from sublet.engine.registries import Registries
from sublet.engine.shelf import Shelf, is_path


def ignore(_file: Path) -> None:
    """A `gone` that nobody needs."""


NOTHING = Reference("scratch")
"""As in a Containerfile: no registry has it."""


class Images:
    """The images of one daemon."""

    def __init__(
        self, config: Config, store: ImageStore, *, gone: Callable[[Path], None] = ignore
    ) -> None:
        """`gone` is called with the file of every image that is removed."""
        self._config = config
        self._store = store
        self._shelf = Shelf(config.root, store)
        self.files = self._shelf.files
        self.builds = BuildStore(config)
        self._packing = Packing(self._shelf, self.builds)
        self._registries = Registries(config, self._shelf, self.builds, self._packing)
        downloads = self._registries.downloads
        self._collecting = Collecting(self._shelf, self.builds, downloads, gone)

    # Finding

    def all(self, filters: Sequence[str] = ()) -> list[Image]:
        """The images that `filters` (`dangling=true`, `reference=…`) mean, the newest first.

        Raises InvalidArgument, NoSuchImage.
        """
        wanted = image_filter.parse(filters, time.time(), self._created)
        return [image for image in self._store.every() if wanted.matches(image)]

    def local(self, text: str) -> Image | None:
        """As `Shelf.local`: the image, if it is here, in microseconds."""
        image = self._shelf.local(text)
        if image is None or is_path(text) or not catalog.is_other(text, image.config.labels):
            return image
        return None

    def claim(self, text: str) -> Image | None:
        """As `local`, for who makes an instance of the image in the same breath."""
        if image := self.local(text):
            self._shelf.redeem(image.digest)
        return image

    async def ensure(self, text: str, *, report: Report = silent) -> Image:
        """The image that `text` means, fetched or imported if it is not here; it is about to be
        used, so `prune` leaves it alone for a while.

        Raises what `pull` and `import_` raise.
        """
        image = self.local(text) or await self._obtain(text, report)
        self._shelf.promise(image.digest)
        return image

    async def _obtain(self, text: str, report: Report) -> Image:
        if is_path(text):
            return await self.import_(Path(text), report=report)
        reference = Reference.parse(text)
        if reference.repository == "sha256":
            raise NoSuchImage(f"There is no image '{text}' on this host.")
        return await self.pull(text, report=report)

    # Making

    async def pull(
        self, text: str, *, tls_verify: bool | None = None, report: Report = silent
    ) -> Image:
        """Make an image of the catalogue, if the name is short and there; else as
        `Registries.pull`. Raises BuildFailed, too."""
        if Reference.parse(text) == NOTHING:
            return await self._nothing(report)
        if choice := catalog.find(text):
            return await self._from_catalogue(choice, str(Reference.parse(text)), report)
        try:
            return await self._registries.pull(text, tls_verify, report)
        except (NoSuchImage, PullFailed) as error:
            error.hint = f"{catalog.advice(text)} {error.hint}".strip()
            raise

    async def _nothing(self, report: Report) -> Image:
        """The image without a file, for instances whose files come from elsewhere."""
        async with self._shelf.alone(f"pull {NOTHING}"):
            if image := self._store.find(str(NOTHING)):
                return image
            with self.files.temporary() as place:
                archive = place / "nothing.tar"
                archive.write_bytes(header(Entry(".", DIRECTORY, 0o755)) + END)
                return await self._packing.take(archive, (str(NOTHING),), False, silent)

    async def _from_catalogue(self, choice: Choice, name: str, report: Report) -> Image:
        """The image of the catalogue, built here from the suite's packages."""
        if self._shelf.taken(key := f"pull {name}"):
            report(f"Waiting for {name}, which is being built already")
        async with self._shelf.alone(key) as waited:
            if waited and (image := self._store.find(name)):
                return image
            report(f"Building {name} of the catalogue, from Debian {choice.suite}")
            arguments = {catalog.SUITE: choice.suite}
            place = packaged.directory(choice.entry)
            try:
                return await self.build(place, name=name, arguments=arguments, report=report)
            except (NoSuchImage, PullFailed, BuildFailed) as error:
                written = Reference.parse(name).qualified
                hint = error.hint.rstrip(".")
                error.hint = f"{hint}. `sublet pull {written}` takes Docker Hub's instead."
                raise

    async def push(
        self, text: str, *, tls_verify: bool | None = None, report: Report = silent
    ) -> str:
        """As `Registries.push`."""
        return await self._registries.push(text, tls_verify, report)

    async def login(
        self, registry: str, username: str, password: str, *, tls_verify: bool | None = None
    ) -> str:
        """As `Registries.login`."""
        return await self._registries.login(registry, username, password, tls_verify)

    async def logout(self, registry: str) -> str:
        """As `Registries.logout`."""
        return await self._registries.logout(registry)

    async def build(
        self,
        directory: str | Path,
        *,
        name: str = "",
        file: str | Path | None = None,
        arguments: Mapping[str, str] | None = None,
        report: Report = silent,
    ) -> Image:
        """Build the Containerfile (or Dockerfile, or `file`) of a directory.

        Raises InvalidArgument, BuildFailed, NoSuchImage, PullFailed, DiskFull.
        """
        names = (str(Reference.parse(name)),) if name else ()
        directory = Path(directory).absolute()
        file = buildah.find_file(directory, Path(file) if file else None)
        text = buildah.read_file(file)
        bases = containerfile.base_images(text, arguments)
        async with contextlib.AsyncExitStack() as stack:
            images = {}
            for base in bases:
                images[base] = self.local(base) or await self._obtain(base, report)
                stack.enter_context(self._shelf.using(images[base].digest))
            inside = await stack.enter_async_context(self.builds.opened())
            ids = {base: await self._base(inside, image) for base, image in images.items()}
            recipe = buildah.Recipe(
                directory,
                containerfile.substitute(text, ids.__getitem__, arguments),
                buildah.ignore_beside(file),
                arguments or {},
                {identity: base for base, identity in ids.items()},
            )
            identity = await buildah.build(self.builds, inside, recipe, report)
            return await self._packing.flatten(inside, identity, names, report)

    async def _base(self, inside: Inside, image: Image) -> str:
        async with self._shelf.alone(f"base {image.digest}"):
            with self.files.temporary() as place:
                path = self.files.path(image.digest)
                return await base_id(self.builds, inside, image, path, place)

    async def import_(
        self, path: str | Path, *, name: str = "", trust: bool = False, report: Report = silent
    ) -> Image:
        """Take a SIF file, a tar archive of a root file system, or a disk (qcow2, or raw with a
        partition table), into the store.

        `trust`: a SIF file is mounted as it is, though a stranger may have packed it.
        Raises InvalidArgument, CorruptImage, DiskFull.
        """
        names = (str(Reference.parse(name)),) if name else ()
        return await self._packing.take(Path(path), names, trust, report)

    async def pack_output(
        self,
        producer: Source,
        config: ImageConfig,
        *,
        name: str = "",
        output: str = "",
        report: Report = silent,
    ) -> Image:
        """Take the tar archive that somebody writes into the store, and, with `output`, into
        that file; into the file alone without a name. Raises InvalidArgument, DiskFull."""
        names = (str(Reference.parse(name)),) if name else ()
        if output:
            _check_output(Path(output))
        target = Path(output) if output else None
        return await self._packing.pack_output(producer, config, names, target, report)

    async def pack(self, source: str, output: str | Path, *, report: Report = silent) -> Image:
        """Write an image, a directory with a root file system, or an OCI layout to a file.

        The file is executable. Raises InvalidArgument, NoSuchImage, CorruptImage, DiskFull.
        """
        path, output = Path(source), Path(output)
        _check_output(output)
        if is_path(source) and path.is_dir():
            return await self._packing.pack(path, output, report)
        image = self.local(source) or await self._obtain(source, report)
        with self._shelf.using(image.digest):
            await asyncio.to_thread(files.publish, self.files.path(image.digest), output)
        return image

    # Naming and telling

    def tag(self, source: str, name: str) -> Image:
        """Give an image a further name, which leaves whatever image it named before.

        Raises InvalidArgument, NoSuchImage.
        """
        reference = Reference.parse(name)
        if reference.digest:
            raise InvalidArgument(
                f"'{name}' holds a digest.", hint="A tag names an image: write NAME[:TAG]."
            )
        return self._shelf.named(self._store.resolve(source), (str(reference),))

    def get(self, text: str) -> Image:
        """The image that a name or a digest means. Raises NoSuchImage, InvalidArgument."""
        return self._store.resolve(text)

    def repo_digests(self, image: Image) -> list[str]:
        """As what registries gave or took the image: `repository@sha256:…`."""
        return self._store.repo_digests(image.digest)

    # Removing

    async def remove(self, text: str, *, force: bool = False, in_use: InUse) -> Removed:
        """As `Collecting.remove`."""
        return await self._collecting.remove(text, force=force, in_use=in_use)

    async def prune(
        self,
        filters: Sequence[str] = (),
        *,
        everything: bool = False,
        in_use: InUse,
        dry: bool = False,
    ) -> Pruned:
        """As `Collecting.prune`, of the images that `filters` (`until=24h`, `label=…`) mean.

        Raises InvalidArgument.
        """
        wanted = image_filter.parse(filters, time.time(), self._created, image_filter.FOR_PRUNE)
        return await self._collecting.prune(wanted, everything=everything, in_use=in_use, dry=dry)

    async def usage(self, in_use: InUse) -> list[Usage]:
        """As `Collecting.usage`."""
        return await self._collecting.usage(in_use)

    def _created(self, text: str) -> float:
        return self._store.resolve(text).created

    # Cleaning

    async def clean(self) -> None:
        """At the daemon's start: remove what a killed one left, forget files that are gone."""
        self._shelf.clean()
        await self.builds.clean_leftovers()

    async def leftovers(self) -> list[Leftover]:
        """What belongs to nobody, for `sublet audit`."""
        return self._shelf.leftovers() + self.builds.leftovers()


def _check_output(output: Path) -> None:
    if os.path.isdir(output) or not os.path.isdir(output.parent):
        raise InvalidArgument(f"{output} cannot be written: no such directory, or it is one.")
