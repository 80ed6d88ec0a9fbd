"""Collecting: images, and what builds and pulls keep for later, that nobody needs go away.

An image is needed while it has a name, while an instance is made of it, and while an
operation reads it. Every one is looked at again just before it is removed, without a pause
between: what began to need it meanwhile keeps it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from sublet.domain.disk_usage import Usage
from sublet.domain.errors import ImageInUse, InvalidArgument
from sublet.domain.image import Image
from sublet.domain.image_filter import ImageFilter
from sublet.domain.reference import Reference
from sublet.drivers import usage
from sublet.drivers.registry.bases import base_name
from sublet.drivers.registry.downloads import Downloads
from sublet.drivers.registry.skopeo import name_of
from sublet.drivers.registry.store import BuildStore
from sublet.engine.shelf import Shelf

InUse = Callable[[], Collection[str]]
"""The digests that instances are made of, now."""


@dataclass(frozen=True, slots=True)
class Removed:
    """What a removal took away: names, and images with their files."""

    names: tuple[str, ...] = ()
    images: tuple[Image, ...] = ()


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a prune took away, or would: images, and the bytes that this frees on the disk,
    those of caches among them."""

    images: tuple[Image, ...]
    cache: int
    size: int


class Collecting:
    """What removes images from one daemon's shelf."""

    def __init__(
        self,
        shelf: Shelf,
        builds: BuildStore,
        downloads: Downloads,
        gone: Callable[[Path], None],
    ) -> None:
        """`gone` is called with the file of every image that is removed."""
        self._shelf, self._store, self._gone = shelf, shelf.store, gone
        self._builds, self._downloads = builds, downloads

    async def remove(self, text: str, *, force: bool, in_use: InUse) -> Removed:
        """Drop a name; with an image's last name its file goes. A digest drops all names.

        An image that instances are made of stays, and `force` drops its name only.
        Raises NoSuchImage, ImageInUse.
        """
        image = self._store.resolve(text)
        dropped = [name for name in image.names if name == short_name(text)] or list(image.names)
        last = len(dropped) == len(image.names)
        repositories = {name.rpartition(":")[0] for name in dropped}
        if len(repositories) > 1 and not force:
            raise ImageInUse(
                f"The image '{text}' has several names: {', '.join(dropped)}.",
                hint="Remove it by each name, or all of them at once with `sublet rmi -f`.",
            )
        needed = image.digest in in_use()
        if last and needed and not force:
            raise ImageInUse(f"Instances are made of the image '{text}'.")
        if last and self._shelf.is_used(image.digest):
            raise ImageInUse(
                f"The image '{text}' is just being read.", hint="Try again when that has ended."
            )
        for name in dropped:
            self._store.untag(name)
        if not last or needed:
            return Removed(tuple(dropped))
        await self._delete(image)
        return Removed(tuple(dropped), (image,))

    async def prune(
        self, wanted: ImageFilter, *, everything: bool, in_use: InUse, dry: bool = False
    ) -> Pruned:
        """Remove the images without a name that nothing needs, and what is left of builds and
        pulls of images that are gone. With `everything`, named images that no instance is
        made of as well, and all that is kept to make builds faster. Parts of broken downloads
        go in any case.

        With `dry`, only tell what that would be.
        """
        found = [i for i in self._store.every() if self._is_spare(i, wanted, everything, in_use)]
        if dry:
            size = sum(map(self._size, found))
            cache = self._downloads.reclaimable()
            if everything and not self._builds.is_open:
                cache += await self._cached()
            return Pruned(tuple(found), cache, size + cache)
        removed: list[Image] = []
        size = 0
        for image in found:
            current = self._store.get(image.digest)
            if current and self._is_spare(current, wanted, everything, in_use):
                size += self._size(current)
                await self._delete(current)
                removed.append(current)
        cache = self._downloads.trim(size=0) + await self._prune_cache(everything)
        return Pruned(tuple(removed), cache, size + cache)

    def _is_spare(self, image: Image, wanted: ImageFilter, everything: bool, in_use: InUse) -> bool:
        digest, shelf = image.digest, self._shelf
        needed = digest in in_use() or shelf.is_used(digest) or shelf.is_promised(digest)
        return not needed and (everything or not image.names) and wanted.matches(image)

    async def usage(self, in_use: InUse) -> list[Usage]:
        """The room that images take, and what builds and broken pulls keep for later."""
        images, active = self._store.every(), set(in_use())
        sizes = {image.digest: self._size(image) for image in images}
        free = sum(size for digest, size in sizes.items() if digest not in active)
        used = len(sizes.keys() & active)
        found = [Usage("images", len(images), used, sum(sizes.values()), free)]
        cached = await self._cached()
        busy = cached if self._builds.is_open else 0
        build = Usage("build cache", int(cached > 0), int(busy > 0), cached, cached - busy)
        return [*found, build, self._downloads.usage()]

    def _size(self, image: Image) -> int:
        """Bytes on the disk of an image's file."""
        try:
            return self._shelf.files.path(image.digest).stat().st_blocks * 512
        except FileNotFoundError:
            return 0

    async def _cached(self) -> int:
        """Bytes on the disk of what is kept for builds."""
        return await asyncio.to_thread(usage.allocated, self._builds.graph)

    async def _prune_cache(self, everything: bool) -> int:
        """Take from the build store what is not needed, with `everything` all; bytes freed. While
        somebody builds, nothing: what that build itself deletes is not freed by this."""
        before = 0 if self._builds.is_open else await self._cached()
        if not before:
            return 0
        if everything:
            await self._builds.empty()
        else:
            kept = {base_name(image.digest) for image in self._store.every()}
            await self._builds.keep_only(
                lambda identity, names: (
                    bool(kept.intersection(names))
                    or self._store.packed_from(f"store {identity}") is not None
                )
            )
        return max(0, before - await self._cached())

    async def _delete(self, image: Image) -> None:
        sources = self._store.sources_of(image.digest)
        self._shelf.delete(image)
        self._gone(self._shelf.files.path(image.digest))
        built = [source.partition(" ")[2] for source in sources if source.startswith("store ")]
        if self._builds.graph.exists():
            async with self._builds.opened() as inside:
                for name in (base_name(image.digest), *built, *map(name_of, built)):
                    await self._builds.remove_image(inside, name)


def short_name(text: str) -> str:
    """The name in its short form; empty where it is none."""
    try:
        return str(Reference.parse(text))
    except InvalidArgument:
        return ""
