"""What the tools answer, in types that MCP clients are told the schema of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """What any tool answers."""

    model_config = ConfigDict(frozen=True)


class Sandbox(Answer):
    """A sandbox. `size` is vCPUs x GiB; `expires` the time at which it is deleted, RFC 3339."""

    sandbox: str
    name: str
    image: str
    isolation: str
    size: str
    state: str
    network: list[str]
    expires: str


class Ended(Answer):
    """How a command ended. `truncated`: there was more output than was kept."""

    exit_code: int
    stdout: str
    stderr: str
    seconds: float
    truncated: bool
    timed_out: bool = False


class Evaluated(Answer):
    """What Python code did: `value` is that of its last expression, `error` what it raised.
    `truncated`: there was more than was kept."""

    stdout: str
    stderr: str
    value: str | None
    error: str | None
    truncated: bool = False


class File(Answer):
    """What a file holds: `encoding` utf-8, or base64 where it is no text."""

    path: str
    content: str
    encoding: str
    size: int


class Entry(Answer):
    """What is at a path: `type` is file, directory, symlink or another; `size` in bytes."""

    path: str
    type: str
    size: int


class Done(Answer):
    """That it is done, with what there is to say of it."""

    message: str


class Written(Done):
    """What a file holds now: `size` bytes."""

    path: str
    size: int


class Kept(Done):
    """What `rollback` and `fork` take as `snapshot`; the message is that, too."""

    sandbox: str
    snapshot: str


class Exposed(Done):
    """Where a port answers; the message is that, too."""

    sandbox: str
    port: int
    url: str
