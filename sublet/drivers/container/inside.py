"""The program that copies archives into and out of a container: `python -m` cannot start it, see
`argv`. Single files are for `inside/main.c`, which enters as this does.

It is loaded completely while it still sees the host's files, and can load nothing afterwards
(CVE-2019-14271). Then it becomes root of the instance's user namespace, in the instance's root
directory, with no descriptor but its standard streams; every path, every symbolic link that a
tenant swaps at whatever moment (CVE-2018-15664), is resolved in there by the kernel. Nothing
of the instance is executed.
"""

from __future__ import annotations

import json
import os
import resource
import stat
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from sublet.archive.making import Owner, Rules
from sublet.archive.pack import Options
from sublet.archive.transfer import receive, send
from sublet.domain.errors import SubletError, unexpected
from sublet.drivers import linux
from sublet.drivers.container import child

_CHUNK = 1 << 18
_MEMORY = 2 << 30
_KERNELS = ("/proc", "/sys", "/dev")
# CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, SETFCAP of capabilities(7).
_CAPABILITIES = sum(1 << bit for bit in (0, 1, 2, 3, 4, 31))


@dataclass(frozen=True, slots=True)
class Job:
    """What to do in there. `user`, `mount` and `root` are descriptors: of the user namespace,
    and of a mount namespace to join or (`mount` -1) of a directory to take for the root.

    `verb` "send": the tar stream of `path` goes to standard output. "receive": one comes from
    standard input, and what was made of it is told: `MADE LEFT-OUT`. `archive` as for `receive`;
    `keep`: owners are those of the archive.
    """

    verb: str
    path: str
    user: int
    mount: int
    root: int
    follow: bool = False
    archive: bool = False
    keep: bool = False


def argv(job: Job) -> list[str]:
    """The command that does `job`."""
    return child.argv(__name__, json.dumps(asdict(job)))


def main(text: str) -> None:
    """Do the job; an error goes to standard error as JSON, and the exit code is 1."""
    try:
        job = Job(**json.loads(text))
        _enter(job)
        _WORK[job.verb](job)
    except SubletError as error:
        _end(error)
    except BrokenPipeError:
        os._exit(1)
    except Exception as error:  # a traceback would read files of the instance
        _end(unexpected(error, "The copy"))
    os._exit(0)


def _end(error: SubletError) -> None:
    _write(2, json.dumps(error.to_dict()).encode() + b"\n")
    os._exit(1)


def _enter(job: Job) -> None:
    """Be inside, without a way back; in this order, as each step takes rights away."""
    sys.path[:], sys.meta_path[:], sys.path_hooks[:] = [], [], []
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    linux.setns(job.user, linux.CLONE_NEWUSER)
    if job.mount >= 0:
        linux.setns(job.mount, linux.CLONE_NEWNS)
    else:
        os.fchdir(job.root)
        os.chroot(".")
    os.chdir("/")
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.closerange(3, 1 << 16)
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    linux.capset(_CAPABILITIES)
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    linux.prctl(linux.PR_SET_PDEATHSIG, 9)  # the change of ids took it away
    os.umask(0)


def _send(job: Job) -> None:
    options = Options(xattrs=True, closed=_closed())
    for piece in send(job.path, follow=job.follow, options=options):
        _write(1, piece)


def _closed() -> frozenset[tuple[int, int]]:
    """The file systems of the kernel, where they are mounted: nobody copies them with the rest."""
    root, found = os.stat("/"), set()
    for path in _KERNELS:
        try:
            status = os.stat(path, follow_symlinks=False)
        except OSError:
            continue
        if stat.S_ISDIR(status.st_mode) and status.st_dev != root.st_dev:
            found.add((status.st_dev, status.st_ino))
    return frozenset(found)


def _receive(job: Job) -> None:
    owner = Owner.ARCHIVE if job.keep else Owner.ROOT
    rules = Rules(owner=owner, special=True, xattrs=True, follow=True)
    done = receive(_read(), job.path, rules, archive=job.archive)
    _write(1, b"%d %d" % (done.count, done.left_out))


_WORK = {"send": _send, "receive": _receive}


def _read() -> Iterator[bytes]:
    while data := os.read(0, _CHUNK):
        yield data


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
