"""Every error that a user can meet, each with a stable code.

An error is one sentence that says what happened and why; its hint says what to
do next. The code is stable and documented (`docs/reference/errors.md` is made
from this file), the status is the API's, the exit code is the CLI's.
"""

from __future__ import annotations

import errno

TYPE_CHECKING = False  # typing itself costs milliseconds of every command
if TYPE_CHECKING:
    from typing import Any, ClassVar


class SubletError(Exception):
    """Something went wrong inside Sublet that no more precise error describes."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = self.default_hint if hint is None else hint

    def to_dict(self) -> dict[str, str]:
        """The error as it crosses the API: `code`, `message`, `hint`."""
        return {"code": self.code, "message": self.message, "hint": self.hint}

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class InvalidArgument(SubletError):
    """A name, size, port, mount or other value is malformed."""

    code = "invalid-argument"
    status = 400
    exit_code = 125
    default_hint = "`--help` after the command says what it takes."


class NoSuchInstance(SubletError):
    """No instance has this id or name."""

    code = "no-such-instance"
    status = 404
    default_hint = "`sublet ps -a` lists them all."


class NoSuchImage(SubletError):
    """The image is neither on this host nor to be had from a registry or a Debian mirror."""

    code = "no-such-image"
    status = 404
    exit_code = 125
    default_hint = (
        "`sublet images` lists what is here; `sublet pull` fetches, `sublet build` makes."
    )


class ImageNeedsVM(SubletError):
    """The image is a whole disk with a system of its own, which only a VM can boot."""

    code = "image-needs-vm"
    status = 409
    exit_code = 125
    default_hint = "Run it with --vm."


class NoSuchVolume(SubletError):
    """No volume has this name."""

    code = "no-such-volume"
    status = 404
    default_hint = "`sublet volume ls` lists them."


class VolumeExists(SubletError):
    """Another volume has this name."""

    code = "volume-exists"
    status = 409
    default_hint = "Choose another name; `sublet volume ls` lists those that are taken."


class VolumeInUse(SubletError):
    """A volume cannot be removed while an instance has it, running or not."""

    code = "volume-in-use"
    status = 409
    default_hint = "Remove those instances first (`sublet rm`)."


class NoSuchSnapshot(SubletError):
    """No snapshot has this id or name."""

    code = "no-such-snapshot"
    status = 404
    default_hint = "`sublet snapshot ls` lists them."


class NoSuchSchedule(SubletError):
    """No schedule has this name."""

    code = "no-such-schedule"
    status = 404
    default_hint = "`sublet schedule ls` lists them all."


class NoSuchPool(SubletError):
    """No warm pool has this name."""

    code = "no-such-pool"
    status = 404
    default_hint = "`sublet pool ls` lists them all."


class NoSSH(SubletError):
    """The instance cannot be reached by SSH: it has no address, no sshd, or lets no key in."""

    code = "no-ssh"
    status = 409
    default_hint = (
        "`sublet exec -it INSTANCE sh` needs no sshd; to have one, install openssh-server in the "
        "image."
    )


class NoSuchNetwork(SubletError):
    """No network has this id or name."""

    code = "no-such-network"
    status = 404
    exit_code = 125
    default_hint = "`sublet network ls` lists them all; `sublet network create` makes one."


class NetworkInUse(SubletError):
    """A network cannot be removed while instances are on it."""

    code = "network-in-use"
    status = 409
    default_hint = "Take them off with `sublet network disconnect`, or remove them."


class NoSuchOperation(SubletError):
    """No operation has this id, or it ended long ago."""

    code = "no-such-operation"
    status = 404


class NotPermitted(SubletError):
    """An agent asks for more than its MCP server was told to give."""

    code = "not-permitted"
    status = 403
    default_hint = "The options of `sublet mcp` say what is permitted."


class NameInUse(SubletError):
    """Another instance has this name."""

    code = "name-in-use"
    status = 409
    exit_code = 125
    default_hint = "Choose another --name, or remove the other one with `sublet rm`."


class PortInUse(SubletError):
    """Another program, or another instance, listens on the port to be published."""

    code = "port-in-use"
    status = 409
    exit_code = 125
    default_hint = "Publish another port, or stop what uses this one (`ss -ltnp` names it)."


class ImageInUse(SubletError):
    """An image cannot be removed while instances are made of it."""

    code = "image-in-use"
    status = 409
    default_hint = (
        "Remove the instances first (`sublet rm`), or use `sublet rmi -f` to drop its name."
    )


class WrongState(SubletError):
    """The instance is in a state in which this cannot be done."""

    code = "wrong-state"
    status = 409


class HibernateNeedsVm(SubletError):
    """Memory was to be kept of what is no VM: a container's is part of the host's kernel."""

    code = "hibernate-needs-vm"
    status = 409
    default_hint = "Run it with --vm to keep its memory; `sublet pause` keeps a container in place."


class NotHealthy(SubletError):
    """An instance that was waited for ended, or became unhealthy, first."""

    code = "not-healthy"
    status = 409
    default_hint = "`sublet logs` shows what it wrote, `sublet inspect` its last health checks."


class Busy(SubletError):
    """Another action holds the instance's lock."""

    code = "busy"
    status = 409
    default_hint = "Try again when it has ended."


class NoSuchPath(SubletError):
    """The instance, or this host, has no file or directory of that path."""

    code = "no-such-path"
    status = 404
    default_hint = "Look at the path: inside an instance it begins at its root directory."


class CorruptArchive(SubletError):
    """What was given as a tar archive is none, is damaged, or was cut off."""

    code = "corrupt-archive"
    status = 400
    default_hint = "Make the archive again, as `tar -c` does; a copy may have been interrupted."


class CopyFailed(SubletError):
    """A file could not be read from where it was to be copied, or written to where."""

    code = "copy-failed"
    status = 409
    default_hint = "Choose another path, or look at what is in the way there."


class CommandNotFound(SubletError):
    """The image has no such command."""

    code = "command-not-found"
    status = 400
    exit_code = 127
    default_hint = "Mend its spelling, or give its whole path in the image."


class CommandNotExecutable(SubletError):
    """The command exists in the image but cannot be executed, or not in that working directory."""

    code = "command-not-executable"
    status = 400
    exit_code = 126
    default_hint = (
        "Make it executable in the image (`chmod +x`), or name its interpreter first. A working "
        "directory has to be there, and the user has to be let in."
    )


class NoSuchUser(SubletError):
    """The image has no such user or group; `run`, which starts nothing then, exits with 125."""

    code = "no-such-user"
    status = 400
    exit_code = 126
    default_hint = "Give one of the image's /etc/passwd or /etc/group, or a number below 65536."


class StartFailed(SubletError):
    """The OCI runtime could not start the container."""

    code = "start-failed"
    status = 500
    exit_code = 125
    default_hint = "Look at working directory, user and mounts; the daemon's log says more."


class InsufficientCapacity(SubletError):
    """The host has no room for an instance of this size."""

    code = "insufficient-capacity"
    status = 409
    exit_code = 125
    default_hint = "`sublet host` shows what is free; ask for less, or stop something."


class PriceTooLow(SubletError):
    """Spot costs more now than the request's maximum price."""

    code = "price-too-low"
    status = 409
    exit_code = 125
    default_hint = "`sublet market` shows the price; give a higher --max-price, or wait."


class HostDrained(SubletError):
    """The host is being drained: it starts no instance."""

    code = "host-drained"
    status = 409
    exit_code = 125
    default_hint = "`sublet host undrain` lets it start instances again."


class NoSuchRequest(SubletError):
    """No spot request has this id, and no instance of this name has one."""

    code = "no-such-request"
    status = 404
    default_hint = "`sublet spot ls` lists them."


class LeaseEnded(SubletError):
    """The lease is not held any more: its instances are gone, or about to go."""

    code = "lease-ended"
    status = 410
    exit_code = 125
    default_hint = "Begin anew. A client has 10 s to come back after a start of the daemon."


class BudgetExhausted(SubletError):
    """What the instance, or all with its label, may cost in this period is spent."""

    code = "budget-exhausted"
    status = 402
    exit_code = 125
    default_hint = "`sublet budget ls` shows when it renews; `sublet budget set` raises it."


class NoSuchBudget(SubletError):
    """The instance or label has no budget."""

    code = "no-such-budget"
    status = 404
    default_hint = "`sublet budget ls` lists them."


class CorruptImage(SubletError):
    """The file is not a sound image: wrong magic, truncated, or a changed byte."""

    code = "corrupt-image"
    status = 400
    exit_code = 125
    default_hint = "Fetch or build the file again."


class CorruptDisk(SubletError):
    """The disk of a VM is truncated, or is not the file system that it was."""

    code = "corrupt-disk"
    status = 409
    exit_code = 125
    default_hint = (
        "`sublet rollback` brings back a snapshot; without one, remove the instance (`sublet rm`)."
    )


class MemoryUnusable(SubletError):
    """The saved memory of a VM is damaged, or was saved with another QEMU, kernel or host."""

    code = "memory-unusable"
    status = 409
    exit_code = 125
    default_hint = "Its disk is untouched: started without its memory it boots anew."


class LoadFailed(SubletError):
    """The database did not take all that was to be loaded into it."""

    code = "load-failed"
    status = 400
    default_hint = "Mend the line that the database's client names above, or load less."


class BuildFailed(SubletError):
    """A step of the build ended with an error."""

    code = "build-failed"
    status = 400
    default_hint = "Mend that step of the Containerfile; the lines above tell what it did."


class PullFailed(SubletError):
    """The registry or the Debian mirror did not deliver the image."""

    code = "pull-failed"
    status = 502
    exit_code = 125
    default_hint = "Look at the name and the network; `sublet images` lists what is here already."


class PushFailed(SubletError):
    """The registry did not take the image."""

    code = "push-failed"
    status = 502
    default_hint = "Look at the name and the network; what it has already is not sent again."


class LoginFailed(SubletError):
    """The registry refuses the user name and password, or wants some."""

    code = "login-failed"
    status = 401
    exit_code = 125
    default_hint = "Log in with `sublet login REGISTRY`."


class UntrustedRegistry(SubletError):
    """The registry's certificate is not one that this host trusts, or it speaks no TLS."""

    code = "untrusted-registry"
    status = 502
    exit_code = 125


class NoSuchBackup(SubletError):
    """No backup has this id, or it is in another repository."""

    code = "no-such-backup"
    status = 404
    default_hint = "`sublet backups` lists them; --repo names another repository."


class BackupFailed(SubletError):
    """A backup, or what is done with one, failed: the repository says why."""

    code = "backup-failed"
    status = 502
    default_hint = "What has arrived is kept: the next backup sends the rest."


class RepositoryUnavailable(SubletError):
    """The repository of backups cannot be reached or opened."""

    code = "repository-unavailable"
    status = 502
    default_hint = "Mend its address (`backup_repository`, --repo), credentials or password."


class BackupIncomplete(SubletError):
    """Of this backup only a part has arrived, and what is missing is on this host no more."""

    code = "backup-incomplete"
    status = 409
    default_hint = "`sublet backups` shows earlier ones that are complete."


class UntrustedBackup(SubletError):
    """What the backup holds, or asks for, reaches out of the instance into the host."""

    code = "untrusted-backup"
    status = 409
    exit_code = 125
    default_hint = "If its maker may do that on this host, give --trust."


class DiskFull(SubletError):
    """The host has no space left for what was to be written."""

    code = "disk-full"
    status = 507
    exit_code = 125
    default_hint = "Free some space (`sublet rmi`, `sublet rm`), then try again."


class ToolMissing(SubletError):
    """A program that Sublet needs is not installed."""

    code = "tool-missing"
    status = 500
    exit_code = 125
    default_hint = "`make setup` installs everything that is needed."


class HostUnsupported(SubletError):
    """This host's kernel or set-up lacks something that Sublet cannot do without."""

    code = "host-unsupported"
    status = 500
    exit_code = 125


class TimeoutExceeded(SubletError):
    """What was asked for took longer than it may; a process that was to be run has been killed
    then, with all that it had started."""

    code = "timeout-exceeded"
    status = 408
    exit_code = 124
    default_hint = "Give it more time, or look at what it waits for."


class Cancelled(SubletError):
    """The operation was cancelled before its end; what it had made is removed."""

    code = "cancelled"
    status = 409
    exit_code = 130


class DaemonUnavailable(SubletError):
    """The daemon does not answer and could not be started."""

    code = "daemon-unavailable"
    status = 503
    exit_code = 125


class ProcessFailed(SubletError):
    """A program that Sublet called ended with an error."""

    code = "process-failed"
    status = 500
    default_hint = "The daemon's log has the command, to be pasted, and all that it said."


class PageUnreachable(SubletError):
    """A page that a browser was to show did not come, or not in time."""

    code = "page-unreachable"
    status = 502
    default_hint = "See whether the URL is right, and what another browser says."


class BrowserFailed(SubletError):
    """A browser in an instance ended, or does not speak as expected."""

    code = "browser-failed"
    status = 502
    default_hint = "Is it Debian's chromium or firefox-esr? Try --memory 4g, or another version."


def unexpected(error: BaseException, what: str = "The daemon") -> SubletError:
    """What to tell a user of an error that nobody translated: the disk is full, or `what` has
    a fault."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or "disk is full" in str(error):  # the latter is SQLite's
        return DiskFull("No space left on the host.")
    return SubletError(
        f"{what} failed unexpectedly: {error!r}.", hint="The daemon's log says more; report it."
    )


def _every(cls: type[SubletError]) -> list[type[SubletError]]:
    return [cls, *(sub for child in cls.__subclasses__() for sub in _every(child))]


def all_errors() -> list[type[SubletError]]:
    """Every error class that has a code of its own, the base first."""
    return [cls for cls in _every(SubletError) if "code" in vars(cls)]


def from_dict(data: dict[str, Any]) -> SubletError:
    """The error that `to_dict` described; an unknown code gives the base class."""
    by_code = {cls.code: cls for cls in all_errors()}
    cls = by_code.get(data.get("code", ""), SubletError)
    return cls(str(data.get("message", "unknown error")), hint=str(data.get("hint", "")))
