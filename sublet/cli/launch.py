"""`create`, and the flags of `run` that few use: --wait, --pull, --cidfile."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from sublet.cli import run
from sublet.cli.output import Progress
from sublet.domain.errors import InvalidArgument, NoSuchInstance, NotHealthy
from sublet.sdk import Client

Options = dict[str, Any]
PULL = ("missing", "always", "never")
LAST_LINES = 10


def run_with(options: Options, spec: dict[str, Any]) -> int:
    """`run` with these flags; the exit code."""
    if options.get("wait") and not options.get("detach"):
        raise InvalidArgument("--wait is for what runs in the background.", hint="Add -d.")
    client, wait = Client(), not options.get("no_wait")
    with cidfile(options.get("cidfile")) as write, Progress() as progress:
        fetch = pulled(client, options.get("pull"), spec["image"], progress)
        if options.get("detach"):
            row = client.launch(spec, progress, fetch=fetch, wait=wait)
            write(row["id"])
            print(row["id"], flush=True)
        else:
            session, row = client.foreground(spec, progress, fetch=fetch, wait=wait, confirm=True)
            write(row["id"])
    run.warn(row)
    if not options.get("detach"):
        return run.relay(session, options)
    return _healthy(client, row["id"]) if options.get("wait") else 0


def create(options: Options, args: list[str]) -> int:
    """Make an instance, print its id; it is not started."""
    spec = run.request({**options, "detach": True}, args)
    client = Client()
    with cidfile(options.get("cidfile")) as write, Progress() as progress:
        fetch = pulled(client, options.get("pull"), spec["image"], progress)
        row = client.launch(spec, progress, start=False, fetch=fetch)
        write(row["id"])
    run.warn(row)
    print(row["id"])
    return 0


def pulled(client: Client, when: str | None, image: str, progress: Progress) -> bool:
    """Do what --pull asks for; whether a missing image may be fetched. Raises InvalidArgument."""
    if when not in (None, *PULL):
        raise InvalidArgument(f"--pull cannot be '{when}'.", hint=f"Write {', '.join(PULL)}.")
    if when == "always" and not image.startswith("/"):
        client.pull(image, progress)
    return when != "never"


@contextlib.contextmanager
def cidfile(path: str | None) -> Iterator[Any]:
    """What writes the id into a file that must not be there yet, and goes if none is written."""
    if not path:
        yield lambda _: None
        return
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        raise InvalidArgument(
            f"{path} exists.", hint="Remove it, if its instance is gone, or name another file."
        ) from None
    with os.fdopen(fd, "w") as file:
        try:
            yield file.write
        finally:
            if not file.tell():
                os.unlink(path)


def _healthy(client: Client, instance_id: str) -> int:
    """Wait until it is healthy; 1, with the last that it wrote, if that does not come."""
    try:
        client.wait(instance_id, "healthy")
        return 0
    except NotHealthy as error:
        print(f"sublet: {error.message}", file=sys.stderr)
        with contextlib.suppress(NoSuchInstance):
            lines = list(client.logs(instance_id))[-LAST_LINES:]
            for line in lines:
                text = line["data"].encode(errors="surrogateescape").decode(errors="replace")
                print(f"        {text.rstrip()}", file=sys.stderr)
        return 1
