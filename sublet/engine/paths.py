"""Verbs on single files of instances: read, write, list, make, remove, rename."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import replace

from sublet.domain.copying import inside
from sublet.domain.errors import InvalidArgument, TimeoutExceeded, WrongState
from sublet.domain.file_info import KEEP, FileInfo, FileVerb, Question, check_question
from sublet.drivers.access import Access, Sender, Taker
from sublet.engine import access
from sublet.engine.instances import Instances

DEADLINE = 120.0
"""Seconds that a question may take, such as the removal of many files."""

PATH_MOST = 4096
"""Bytes of a path, the zero byte at its end included (limits.h, PATH_MAX)."""

_CHANGING = (FileVerb.MAKE, FileVerb.REMOVE, FileVerb.RENAME)
_ACTION = "copy"


class Paths:
    """What can be done with single files of one daemon's instances, running or stopped."""

    def __init__(self, instances: Instances) -> None:
        self._instances = instances
        self._lifecycle = instances.lifecycle

    @contextlib.asynccontextmanager
    async def fetch(self, text: str, path: str) -> AsyncIterator[Sender]:
        """What the file at `path` holds. Raises NoSuchPath, CopyFailed where it is none."""
        instance_id = self._instances.get(text).id

        @contextlib.asynccontextmanager
        async def place() -> AsyncIterator[Sender]:
            async with self._entered(instance_id) as files, files.fetching(checked(path)) as found:
                yield found

        async with self._lifecycle.visits.stay(instance_id, _ACTION, place()) as courier:
            yield courier

    async def store(
        self, text: str, path: str, pieces: AsyncIterator[bytes], mode: int = KEEP
    ) -> None:
        """Let the file at `path` hold the pieces and nothing else. It is made if need be, with
        the directories to it; what is there keeps its owner, and (KEEP) its mode.

        Raises CopyFailed, DiskFull, WrongState.
        """
        instance_id = self._writable(text)
        if mode != KEEP and not 0 <= mode <= 0o7777:
            raise InvalidArgument(f"{mode} is no mode of a file.", hint="Give 0o644 or the like.")

        @contextlib.asynccontextmanager
        async def place() -> AsyncIterator[Taker]:
            async with (
                self._entered(instance_id) as files,
                files.storing(checked(path), mode) as taker,
            ):
                yield taker

        async with self._lifecycle.visits.stay(instance_id, _ACTION, place()) as taker:
            await taker.feed(pieces)

    async def ask(self, text: str, question: Question) -> list[FileInfo]:
        """Do what is asked of a path; what is told of it.

        Raises NoSuchPath, CopyFailed, WrongState, TimeoutExceeded.
        """
        question = replace(question, path=checked(question.path))
        if question.verb is FileVerb.RENAME:
            question = replace(question, to=checked(question.to))
        check_question(question)
        changing = question.verb in _CHANGING
        instance_id = self._writable(text) if changing else self._instances.get(text).id

        @contextlib.asynccontextmanager
        async def place() -> AsyncIterator[list[FileInfo]]:
            async with self._entered(instance_id) as files:
                yield await files.ask(question)

        try:
            async with (
                asyncio.timeout(DEADLINE) as limit,
                self._lifecycle.visits.stay(instance_id, _ACTION, place()) as answer,
            ):
                return answer
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise TimeoutExceeded(
                f"To {question.verb} {question.path} took more than {DEADLINE:g} s."
            ) from error

    def _entered(self, instance_id: str) -> contextlib.AbstractAsyncContextManager[Access]:
        return access.entered(self._lifecycle, instance_id, _ACTION)

    def _writable(self, text: str) -> str:
        """The id of an instance whose files may change."""
        instance = self._instances.get(text)
        if instance.spec.read_only:
            raise WrongState(f"{instance.name} was made with --read-only.")
        return instance.id


def checked(path: str) -> str:
    """The absolute form of a path in an instance. Raises InvalidArgument where it is none."""
    if not path or "\0" in path:
        raise InvalidArgument("A path in the instance is needed.")
    try:
        length = len(os.fsencode(path))
    except UnicodeEncodeError:
        raise InvalidArgument("A path is UTF-8; this one holds half of a character.") from None
    if length >= PATH_MOST:
        raise InvalidArgument(
            f"A path of {length} bytes is too long.", hint=f"The kernel's most is {PATH_MOST - 1}."
        )
    return inside(path)
