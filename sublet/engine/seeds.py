"""What cloud-init in a VM is told, and where the user data waits until it is removed.

User data may hold secrets, and is needed at every start: it is in no row, no log and no command
line, but in a file that root alone reads, `ROOT/instances/ID/user-data`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from sublet.domain import seed
from sublet.domain.image import ImageConfig
from sublet.domain.instance import Instance
from sublet.domain.nics import Nic
from sublet.domain.seed import Seed


def _file(root: Path, instance_id: str) -> Path:
    return root / "instances" / instance_id / "user-data"


@contextmanager
def kept(root: Path, instance: Instance) -> Iterator[Instance]:
    """The instance without its user data, which is in its file then; the file goes again where
    the row cannot be written meanwhile. It comes first: nothing would tell that it lacks."""
    if not instance.spec.user_data:
        yield instance
        return
    file = _file(root, instance.id)
    _write(file, instance.spec.user_data)
    try:
        yield replace(instance, spec=replace(instance.spec, user_data=""))
    except BaseException:
        shutil.rmtree(file.parent, ignore_errors=True)
        raise


def user_data(root: Path, instance_id: str) -> str:
    """What the instance was given; empty for nothing."""
    return _read(root, instance_id)


def inherit(root: Path, origin: str, fork: str) -> None:
    """A fork has the user data of its origin."""
    give(root, fork, of(root, origin))


def of(root: Path, instance_id: str) -> str:
    """The user data of an instance, if it has any."""
    return _read(root, instance_id)


def give(root: Path, instance_id: str, text: str) -> None:
    """Let an instance have this user data."""
    if text:
        _write(_file(root, instance_id), text)


def files(
    root: Path,
    instance: Instance,
    config: ImageConfig,
    nics: Sequence[Nic],
    hostname: str,
    resolv_conf: str,
) -> dict[str, str]:
    """The files of the instance's seed, by their paths in the guest; none where the image is no
    disk and nothing was asked for."""
    user_data, keys = _read(root, instance.id), instance.spec.ssh_keys
    if not (config.disk or user_data or keys):
        return {}
    return seed.files(Seed(instance.id, hostname, nics, resolv_conf, user_data, keys))


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())


def _read(root: Path, instance_id: str) -> str:
    with suppress(FileNotFoundError):
        return _file(root, instance_id).read_text(encoding="utf-8")
    return ""
