# Made from ../_async/files.py by scripts/unasync.py; edit that file.
"""The client's verbs on the files of instances.
"""

from __future__ import annotations

import json
from collections.abc import (
    Generator,
    Iterator,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)

from sublet.sdk._sync import wire
from sublet.sdk._sync.calls import Calls, Progress, silent
from sublet.sdk._http import query_of, quote

TYPE_CHECKING = False  # typing itself costs milliseconds of every command
if TYPE_CHECKING:
    from typing import Any

Meter = Callable[[int], None]
"""Is told of bytes that have been copied."""


def unmetered(count: int) -> None:
    """Bytes that nobody counts."""


class FileVerbs(Calls):
    """What can be done with the files of instances."""

    def archive(self, name: str, path: str, *, follow: bool = False) -> Iterator[bytes]:
        """A file or directory of an instance as a tar stream that begins with it.

        `follow`: where `path` is a symbolic link, what that leads to.
        """
        query = query_of({"path": path, "follow": follow})
        target = f"/v1/instances/{quote(name)}/archive{query}"
        for piece in wire.stream("GET", target, path=self._path):
            yield piece

    def extract(
        self, name: str, path: str, pieces: Iterable[bytes], *, archive: bool = False
    ) -> dict[str, Any]:
        """Unpack a tar stream, plain, gzip, bzip2 or xz, into the directory `path` of an instance.

        `archive`: files get the owners that the stream names, not root. The answer counts what
        was made, and the devices that were `left_out`.
        """
        from sublet.archive.compressed import plain

        return self._put(name, path, plain(pieces), archived=True, keep=archive)

    def copy_to(
        self,
        name: str,
        source: str,
        path: str,
        *,
        archive: bool = False,
        follow: bool = False,
        meter: Meter = unmetered,
    ) -> dict[str, Any]:
        """Copy the file or directory `source` of this host to `path` in an instance.

        As `cp -a` does: into `path` if that is a directory, else in its place; `source/.` are
        the contents. `archive`: owners come along. `follow`: where `source` is a symbolic link,
        what that leads to.
        """
        from sublet.archive.pack import Options
        from sublet.archive.transfer import send

        pieces = send(source, follow=follow, options=Options(xattrs=True))
        return self._put(name, path, _metered(pieces, meter), archived=False, keep=archive)

    def copy_from(
        self,
        name: str,
        path: str,
        destination: str,
        *,
        archive: bool = False,
        follow: bool = False,
        meter: Meter = unmetered,
    ) -> dict[str, Any]:
        """Copy the file or directory `path` of an instance to `destination` on this host; as
        `copy_to`. Devices are left out, set-user-id bits taken off, and no symbolic link below
        the destination is followed."""
        from sublet.archive.making import Owner, Rules
        from sublet.archive.transfer import receive
        from sublet.sdk._sync.threads import pulled

        rules = Rules(owner=Owner.ARCHIVE if archive else Owner.CALLER)

        def work(pieces: Iterator[bytes]) -> dict[str, Any]:
            done = receive(_metered(pieces, meter), destination, rules, archive=False)
            return {"count": done.count, "left_out": done.left_out}

        return pulled(work, self.archive(name, path, follow=follow))

    def read_file(self, name: str, path: str) -> Iterator[bytes]:
        """What a file of an instance holds, in pieces. Raises NoSuchPath, CopyFailed."""
        target = f"/v1/instances/{quote(name)}/file{query_of({'path': path})}"
        for piece in wire.stream("GET", target, path=self._path):
            yield piece

    def write_file(
        self, name: str, path: str, pieces: Iterable[bytes], *, mode: int | None = None
    ) -> None:
        """Let a file of an instance hold the pieces and nothing else; it is made if need be, with
        the directories to it, as root's. Without `mode` it keeps its own."""
        from sublet.sdk._sync.threads import each

        query = query_of({"path": path, "mode": mode})
        target = f"/v1/instances/{quote(name)}/file{query}"
        wire.upload(target, each(pieces), path=self._path)

    def ask_files(self, name: str, verb: str, path: str, **more: Any) -> list[dict[str, Any]]:
        """`stat`, `list` (`depth` levels), `make`, `remove` or `rename` (`to`) a path of an
        instance; the entries that are told of it."""
        body = {"verb": verb, "path": path, **more}
        return list(self.call("POST", f"/v1/instances/{quote(name)}/files", body))

    def watch_files(
        self, name: str, path: str, *, recursive: bool = False
    ) -> Generator[dict[str, Any], None, None]:
        """What happens in a directory of a running instance: `type` (ready, created, modified,
        deleted, moved, lost), `path`, and `to` of what was moved. The first is `ready`."""
        query = query_of({"path": path, "recursive": recursive})
        target = f"/v1/instances/{quote(name)}/watch{query}"
        return wire.lines("GET", target, path=self._path)

    def diff(self, name: str, *, mount: str = "") -> Iterator[dict[str, Any]]:
        """What an instance has changed of its image's files: `kind` (A: added, C: changed,
        D: deleted) and `path`, in order; of a container also `type` (file, directory, link,
        special), what it `was` if that is another one, and `size`; `itself`: the owner or mode of
        a directory has changed, not only what is in it. With `mount`, of the host's
        directory that it has copy-on-write there (`:cow`); paths begin with `/` in that."""
        target = f"/v1/instances/{quote(name)}/changes{query_of({'mount': mount})}"
        for line in wire.lines("GET", target, path=self._path):
            yield line

    def changed(
        self, name: str, *, mount: str = "", paths: Sequence[str] = ()
    ) -> Iterator[bytes]:
        """The files that `diff` tells of, but for deleted ones, as a tar stream: those at or below
        `paths`, none: all. Of containers."""
        query = query_of({"mount": mount, "path": list(paths)})
        target = f"/v1/instances/{quote(name)}/changes/archive{query}"
        for piece in wire.stream("GET", target, path=self._path):
            yield piece

    def apply_changes(
        self,
        name: str,
        destination: str,
        *,
        mount: str = "",
        paths: Sequence[str] = (),
        since: float | None = None,
        held: int | None = None,
    ) -> dict[str, Any]:
        """Make the directory `destination` of this host what an instance's changes would make of
        it: new and changed files are written, deleted ones deleted; only those at or below
        `paths` (as `diff` has them), none: all.

        What was changed here after `since`, seconds since the epoch, stays as it is; None:
        nothing does. Nothing outside `destination` is touched, no symbolic link followed;
        set-user-id bits are taken off, devices and sockets left out. Root gives files the owners
        that they have inside. The answer lists what was `applied` and what `kept`, and counts
        what was `left_out`.
        """
        import os

        from sublet.archive.applying import apply
        from sublet.archive.making import Owner
        from sublet.domain.changes import is_chosen
        from sublet.sdk._sync.threads import pulled

        rows = [row for row in self.diff(name, mount=mount) if is_chosen(row, paths)]
        owner = Owner.CALLER if os.geteuid() else Owner.ARCHIVE

        def work(pieces: Iterator[bytes]) -> dict[str, Any]:
            done = apply(destination, rows, pieces, owner, since, held)
            return {"applied": done.applied, "kept": done.kept, "left_out": done.left_out}

        return pulled(work, self.changed(name, mount=mount, paths=paths))

    def commit(
        self,
        name: str,
        image: str = "",
        *,
        changes: Sequence[str] = (),
        message: str = "",
        author: str = "",
        pause: bool = True,
        output: str = "",
        progress: Progress = silent,
    ) -> dict[str, Any]:
        """Make an image, named `image`, of an instance's files, without what is mounted in it.

        `changes` are instructions of a Containerfile for its configuration; `pause`: it stands
        still meanwhile; `output` is a file of this host to write (absolute path), and without
        a name the only place.
        """
        body: dict[str, Any] = {
            "name": image,
            "changes": list(changes),
            "message": message,
            "author": author,
        }
        body |= {"pause": pause, "output": output}
        return self._operate(f"/v1/instances/{quote(name)}/commit", body, progress)

    def _put(
        self, name: str, path: str, pieces: Iterable[bytes], **query: bool
    ) -> dict[str, Any]:
        from sublet.sdk._sync.threads import each

        target = f"/v1/instances/{quote(name)}/archive{query_of({'path': path, **query})}"
        return dict(json.loads(wire.upload(target, each(pieces), path=self._path)))


def _metered(pieces: Iterable[bytes], meter: Meter) -> Iterator[bytes]:
    for piece in pieces:
        meter(len(piece))
        yield piece
