"""Registries: log in, pull, push; and what pulls leave for the next try."""

from __future__ import annotations

import contextlib
import tempfile
import time
from pathlib import Path

from sublet.domain import suites
from sublet.domain.config import Config
from sublet.domain.errors import (
    CorruptImage,
    DiskFull,
    NoSuchImage,
    PullFailed,
    UntrustedRegistry,
)
from sublet.domain.image import Image
from sublet.domain.progress import Report
from sublet.domain.reference import Reference, parse_registry
from sublet.domain.units import rfc3339
from sublet.drivers.registry import debian, login, push, skopeo, transfer
from sublet.drivers.registry.access import Access, Credentials
from sublet.drivers.registry.blobs import Source
from sublet.drivers.registry.downloads import Downloads
from sublet.drivers.registry.resolve import ANSWER, QUICK_ANSWER, Found, resolve
from sublet.drivers.registry.room import Inside
from sublet.drivers.registry.store import TEMPORARY, BuildStore
from sublet.drivers.store.images import MANIFEST
from sublet.engine.packing import Packing
from sublet.engine.shelf import Shelf
from sublet.image import sif


class Registries:
    """What goes between one daemon's shelf and registries."""

    def __init__(self, config: Config, shelf: Shelf, builds: BuildStore, packing: Packing) -> None:
        self._config, self._shelf, self._store = config, shelf, shelf.store
        self._builds, self._packing = builds, packing
        self._credentials = Credentials(config.root)
        self.downloads = Downloads(config.root)

    # Logging in

    async def login(
        self, registry: str, username: str, password: str, tls_verify: bool | None
    ) -> str:
        """Keep credentials that the registry takes; the registry's name.

        Raises InvalidArgument, LoginFailed, PullFailed, UntrustedRegistry.
        """
        access = self._credentials.access(parse_registry(registry), tls_verify)
        async with self._shelf.alone("login"):
            await login.login(access, username, password)
        return access.registry

    async def logout(self, registry: str) -> str:
        """Forget credentials; the registry's name. Raises InvalidArgument, LoginFailed."""
        access = self._credentials.access(parse_registry(registry))
        async with self._shelf.alone("login"):
            await login.logout(access)
        return access.registry

    # Fetching

    async def pull(self, text: str, tls_verify: bool | None, report: Report) -> Image:
        """Fetch an image from its registry, or make a distribution's from the host's mirror.

        Raises InvalidArgument, NoSuchImage, PullFailed, UntrustedRegistry, CorruptImage,
        DiskFull.
        """
        reference = Reference.parse(text)
        if self._shelf.taken(key := f"pull {reference}"):
            report(f"Waiting for {reference}, which is being fetched already")
        async with self._shelf.alone(key) as waited:
            if waited and (image := self._store.find(str(reference))):
                return image
            try:
                return await self._from_registries(reference, tls_verify, report)
            except (NoSuchImage, PullFailed, UntrustedRegistry) as missing:
                suite = suites.suite_of(reference)
                if suite is None:
                    raise
                report(f"{missing.message} Taking it from the host's package mirror.")
                try:
                    return await self._from_mirror(suite, str(reference), report)
                except (NoSuchImage, PullFailed) as error:
                    error.message = f"{missing.message} {error.message}"
                    raise

    async def _from_registries(
        self, reference: Reference, tls_verify: bool | None, report: Report
    ) -> Image:
        """From the registry's mirrors, in order, then from itself."""
        for mirror in self._config.mirrors_of(reference.registry):
            try:
                return await self._from_registry(
                    reference, reference.via(mirror), tls_verify, report
                )
            except (NoSuchImage, PullFailed, UntrustedRegistry) as error:
                report(f"{error.message} Asking the next one.")
        return await self._from_registry(reference, reference, tls_verify, report)

    async def _from_registry(
        self, wanted: Reference, source: Reference, tls_verify: bool | None, report: Report
    ) -> Image:
        """The image `wanted`, fetched as `source`."""
        access = self._credentials.access(source.registry, tls_verify)
        answer = QUICK_ANSWER if suites.suite_of(wanted) else ANSWER
        names = () if wanted.digest else (str(wanted),)
        with contextlib.ExitStack() as held:
            async with self._builds.opened() as inside:
                found = await resolve(self._builds, inside, source, access, report, answer=answer)
                identity = found.blobs[0].digest.partition(":")[2]
                image = self._store.packed_from(f"store {identity}")
                if image:
                    report(f"{wanted} is here already")
                else:
                    image = await self._fetch(inside, found, source, access, report)
                held.enter_context(self._shelf.using(image.digest))
            report(f"Digest: {found.digests[0]}")
            for digest in found.digests:
                self._store.remember_source(f"{MANIFEST}{wanted.at(digest)}", image.digest)
            return self._shelf.named(image, names)

    async def _fetch(
        self, inside: Inside, found: Found, source: Reference, access: Access, report: Report
    ) -> Image:
        """Download what is missing, check it, and pack it into a file; without a name yet."""
        digests, builds = {blob.digest for blob in found.blobs}, self._builds
        with (
            self.downloads.using(digests),
            tempfile.TemporaryDirectory(dir=builds.temporary) as directory,
        ):
            place = Path(directory)
            try:
                http = Source(source, access, self._credentials)
                await transfer.fetch(found, http, self.downloads, report)
                transfer.write_layout(place / "layout", found, self.downloads)
                there, config = TEMPORARY / place.name / "layout", found.blobs[0].digest
                identity = await skopeo.copy(builds, inside, there, config, report)
            except (CorruptImage, DiskFull):
                self.downloads.drop(digests)
                raise
            image = await self._packing.flatten(inside, identity, (), report)
            with self._shelf.using(image.digest):
                await builds.remove_image(inside, skopeo.name_of(identity))
            self.downloads.drop(digests)
            return image

    async def _from_mirror(self, suite: suites.Suite, name: str, report: Report) -> Image:
        plan = await debian.plan(suite, self._config.mirror, report)
        created = rfc3339(int(time.time()))
        config = debian.image_config(skopeo.architecture(), created, plan.suite.name)
        with self._shelf.files.temporary() as place:
            file = place / "image.sif"
            offset = sif.payload_offset(config)
            await debian.bootstrap(plan, file, offset=offset, report=report)
            return await self._shelf.keep(file, config, (name,))

    # Sending

    async def push(self, text: str, tls_verify: bool | None, report: Report) -> str:
        """Send the image of this name to the registry in its name; the manifest's digest.

        Raises InvalidArgument, NoSuchImage, PushFailed, LoginFailed, UntrustedRegistry,
        DiskFull.
        """
        target = Reference.parse(text)
        image = self._store.named(str(target))
        if target.digest or image is None:
            raise NoSuchImage(
                f"There is no image with the name '{target}' on this host.",
                hint="`sublet tag IMAGE NAME` gives one to an image; push that name.",
            )
        access = self._credentials.access(target.registry, tls_verify)
        parcel = push.Parcel(image, self._shelf.files.path(image.digest), target, access)
        known = [Reference.parse(each) for each in self._store.repo_digests(image.digest)]
        known = [each for each in known if each.repository == target.repository][:1]
        with self._shelf.using(image.digest), self._shelf.files.temporary() as place:
            pushed = await push.push(self._builds, parcel, known, place, report)
        self._store.remember_source(f"{MANIFEST}{target.at(pushed.digest)}", image.digest)
        if pushed.identity:
            self._store.remember_source(f"store {pushed.identity}", image.digest)
        return pushed.digest
