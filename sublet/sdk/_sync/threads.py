"""Work beside what its owner does; that on files needs no thread in the blocking client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

TYPE_CHECKING = False  # typing itself costs milliseconds of every command
if TYPE_CHECKING:
    from threading import Thread

T = TypeVar("T")


def each(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces."""
    return iter(pieces)


def pause(seconds: float) -> None:
    """Let time pass."""
    time.sleep(seconds)


def pulled(work: Callable[[Iterator[bytes]], T], pieces: Iterator[bytes]) -> T:
    """The result of `work` on the pieces."""
    return work(pieces)


class Background:
    """Work that goes on beside whatever its owner does, and ends with the process."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self._thread = _thread(name, work)

    def ended(self, deadline: float) -> bool:
        """Whether it ends within so many seconds."""
        self._thread.join(deadline)
        return not self._thread.is_alive()

    def drop(self) -> None:
        """Nobody needs it any more: it ends with the process."""


def _thread(name: str, work: Callable[[], object]) -> Thread:
    """A thread that ends with the process, and leaves all signals to the others."""
    import signal
    from threading import Thread

    thread = Thread(target=work, name=name, daemon=True)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return thread


def all_of(works: Sequence[Callable[[], T]]) -> list[T]:
    """What they give, all at once; the first error is not kept waiting by the others."""
    if len(works) == 1:
        return [works[0]()]
    from queue import SimpleQueue

    done: SimpleQueue[tuple[int, T | BaseException, bool]] = SimpleQueue()

    def run(index: int, work: Callable[[], T]) -> None:
        try:
            done.put((index, work(), True))
        except BaseException as error:
            done.put((index, error, False))

    for index, work in enumerate(works):
        _thread(f"sublet {index}", lambda index=index, work=work: run(index, work))  # type: ignore[misc]
    found: dict[int, T] = {}
    while len(found) < len(works):
        index, value, fine = done.get()
        if not fine:
            assert isinstance(value, BaseException)
            raise value
        found[index] = value  # type: ignore[assignment]
    return [found[index] for index in range(len(works))]


def accepts(host: str, port: int) -> bool:
    """Whether somebody takes a connection there."""
    import socket

    try:
        socket.create_connection((host, port), timeout=1.0).close()
    except OSError:
        return False
    return True
