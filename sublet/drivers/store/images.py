"""Images in the database: what is here, its names, what was made of what."""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import suppress

from sublet.domain.errors import InvalidArgument, NoSuchImage
from sublet.domain.image import Image, ImageConfig
from sublet.domain.reference import Reference, is_digest
from sublet.drivers.store.database import Database

MANIFEST = "manifest "
"""Begins the sources that are manifests in registries: `manifest REPOSITORY@DIGEST`."""
_PREFIX = re.compile(r"(?:sha256:)?([0-9a-f]{6,64})")


class ImageStore:
    """Typed rows of the tables images, names, packed, sources and hashes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection = database.connection

    def every(self) -> list[Image]:
        """Every image, the newest first."""
        rows = self._connection.execute("SELECT * FROM images ORDER BY created DESC, digest")
        return [self._image(row) for row in rows]

    def get(self, digest: str) -> Image | None:
        """The image of this digest."""
        row = self._connection.execute(
            "SELECT * FROM images WHERE digest = ?", (digest,)
        ).fetchone()
        return self._image(row) if row else None

    def put(self, image: Image) -> None:
        """Record `image`, and its names: they leave whatever image they named before."""
        row = (image.digest, image.size, image.created, image.offset, image.length)
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO images VALUES (?, ?, ?, ?, ?, ?)",
                (*row, image.config.to_json()),
            )
            for name in image.names:
                self._tag(connection, name, image.digest)

    def delete(self, digest: str) -> None:
        """Forget the image, its names and what was packed into it."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM images WHERE digest = ?", (digest,))
            connection.execute("DELETE FROM sources WHERE digest = ?", (digest,))
            connection.execute("DELETE FROM hashes WHERE digest = ?", (digest,))

    def forget_strays(self) -> None:
        """Forget what was packed into, and read as, images that are gone."""
        with self._database.transaction() as connection:
            for table in ("sources", "hashes"):
                connection.execute(
                    f"DELETE FROM {table} WHERE digest NOT IN (SELECT digest FROM images)"
                )

    def tag(self, name: str, digest: str) -> None:
        """`name` means this image from now on. `name` is in its short form."""
        with self._database.transaction() as connection:
            self._tag(connection, name, digest)

    def untag(self, name: str) -> None:
        """`name` means nothing any more."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM names WHERE name = ?", (name,))

    def named(self, name: str) -> Image | None:
        """The image that has this name, given in its short form."""
        row = self._connection.execute(
            "SELECT images.* FROM images JOIN names USING (digest) WHERE name = ?", (name,)
        ).fetchone()
        return self._image(row) if row else None

    def find(self, text: str) -> Image | None:
        """The image that a name, a digest or a digest's first 6 or more digits mean; the digest
        may be that of a manifest, as which a registry gave the image.

        Raises InvalidArgument where the digits begin several digests.
        """
        name = ""
        with suppress(InvalidArgument):
            name = str(Reference.parse(text))
        if name and (image := self.named(name)):
            return image
        if name and (image := self.packed_from(f"{MANIFEST}{name}")):
            return image
        match = _PREFIX.fullmatch(text.rpartition("@")[2])
        if match and (image := self._by_prefix(match[1])):
            return image
        return self._by_manifest(text) if is_digest(text) else None

    def resolve(self, text: str) -> Image:
        """As `find`; raises NoSuchImage where there is none."""
        if image := self.find(text):
            return image
        raise NoSuchImage(f"There is no image '{text}' on this host.")

    def _by_prefix(self, digits: str) -> Image | None:
        rows = self._connection.execute(
            "SELECT * FROM images WHERE digest >= ? AND digest < ? LIMIT 2",
            (f"sha256:{digits}", f"sha256:{digits}g"),
        ).fetchall()
        if len(rows) > 1:
            raise InvalidArgument(
                f"Several images have digests that begin with '{digits}'.", hint="Write more of it."
            )
        return self._image(rows[0]) if rows else None

    def _by_manifest(self, digest: str) -> Image | None:
        row = self._connection.execute(
            "SELECT images.* FROM images JOIN sources USING (digest) WHERE source LIKE ? LIMIT 1",
            (f"{MANIFEST}%@{digest}",),
        ).fetchone()
        return self._image(row) if row else None

    def repo_digests(self, digest: str) -> list[str]:
        """As what registries gave or took the image: `repository@sha256:…`."""
        found = [source for source in self.sources_of(digest) if source.startswith(MANIFEST)]
        return sorted(source.removeprefix(MANIFEST) for source in found)

    def is_packed(self, digest: str) -> bool:
        """Whether this host packed the file itself: it may be mounted."""
        query = "SELECT 1 FROM packed WHERE digest = ?"
        return self._connection.execute(query, (digest,)).fetchone() is not None

    def mark_packed(self, digest: str) -> None:
        """This host packed the file of this digest, or was told to trust it."""
        with self._database.transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO packed VALUES (?)", (digest,))

    def packed_from(self, source: str) -> Image | None:
        """The image on this host that `source` was packed into."""
        row = self._connection.execute(
            "SELECT images.* FROM images JOIN sources USING (digest) WHERE source = ?", (source,)
        ).fetchone()
        return self._image(row) if row else None

    def remember_source(self, source: str, digest: str) -> None:
        """`source` (a foreign file's digest, a build's id) was packed into this image."""
        with self._database.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO sources VALUES (?, ?)", (source, digest))

    def sources_of(self, digest: str) -> list[str]:
        """What was packed into this image."""
        query = "SELECT source FROM sources WHERE digest = ?"
        return [row["source"] for row in self._connection.execute(query, (digest,))]

    def hash_of(self, stat: os.stat_result) -> str | None:
        """The digest of the file, if it was read whole and has not changed since."""
        row = self._connection.execute(
            "SELECT digest FROM hashes WHERE device = ? AND inode = ? AND size = ?"
            " AND mtime_ns = ?",
            (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns),
        ).fetchone()
        return str(row["digest"]) if row else None

    def remember_hash(self, stat: os.stat_result, digest: str) -> None:
        """The file of this device, inode, size and mtime means the image `digest`."""
        key = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?, ?)", (*key, digest)
            )

    @staticmethod
    def _tag(connection: sqlite3.Connection, name: str, digest: str) -> None:
        connection.execute("INSERT OR REPLACE INTO names VALUES (?, ?)", (name, digest))

    def _image(self, row: sqlite3.Row) -> Image:
        names = self._connection.execute(
            "SELECT name FROM names WHERE digest = ? ORDER BY name", (row["digest"],)
        ).fetchall()
        return Image(
            digest=row["digest"],
            size=row["size"],
            created=row["created"],
            offset=row["offset"],
            length=row["length"],
            config=ImageConfig.from_json(row["config"]),
            names=tuple(name["name"] for name in names),
        )
