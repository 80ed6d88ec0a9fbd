"""A key for one SSH session: made in memory, let into the instance, and taken out of it again.

As EC2 Instance Connect does it: nobody's own key is needed, and none stays. The private key lies
in a directory of this session on a tmpfs; the public one stands in the user's `authorized_keys`
meanwhile, and counts for five minutes only (sshd(8), `expiry-time`), should this process be
killed. The instance's host keys come the same way that the key went, so that the client knows
whom it talks to.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sublet.domain.errors import NoSSH, SubletError
from sublet.sdk import Client

MEMORY = "/dev/shm"
_WHERE = """
home=
while IFS=: read -r name _ _ _ _ place _; do [ "$name" != "$1" ] || home=$place; done </etc/passwd
keys=$home/.ssh/authorized_keys
"""
LOOK = """
for sshd in /usr/sbin/sshd /usr/local/sbin/sshd /sbin/sshd; do
    [ ! -x "$sshd" ] || { echo sshd; exit; }
done
echo none
"""
LET_IN = f"""set -eu
umask 077
{_WHERE}
[ -d "$home" ] || {{ echo "the user $1 has no home directory" >&2; exit 1; }}
mkdir -p "$home/.ssh"
[ ! -s "$keys" ] || [ -z "$(tail -c 1 "$keys")" ] || echo >>"$keys"
until=$(date -d "@$(($(date +%s) + 300))" +%Y%m%d%H%M%S)
read -r key
printf 'expiry-time="%s" %s\\n' "$until" "$key" >>"$keys"
cat /etc/ssh/ssh_host_*_key.pub
"""
TAKE_OUT = f"""set -eu
umask 077
{_WHERE}
[ -f "$keys" ] || exit 0
kept=$(grep -vF -- "$2" "$keys" || :)
if [ -n "$kept" ]; then printf '%s\\n' "$kept" >"$keys"; exit; fi
rm -f "$keys"
rmdir "$home/.ssh" 2>/dev/null || :
"""
"""Shell of the instance, run as the user who is to log in, whose name is the first argument: what
the user may not do, this does not do either."""


@dataclass(frozen=True, slots=True)
class Key:
    """The private key's file, and a file with the instance's host keys under the name `alias`."""

    private: str
    known_hosts: str
    alias: str


def has_sshd(client: Client, name: str) -> bool:
    """Whether an sshd is installed in the instance. Raises NoSSH where it cannot be told."""
    return _shell(client, name, "", LOOK).strip() == "sshd"


@contextlib.contextmanager
def let_in(client: Client, instance: dict[str, Any], user: str) -> Iterator[Key]:
    """A key that the instance lets `user` in with, for as long as the context lasts.

    Raises NoSSH.
    """
    marker = f"sublet-ssh-{secrets.token_hex(8)}"
    place = MEMORY if os.path.isdir(MEMORY) else None
    with tempfile.TemporaryDirectory(prefix="sublet-ssh-", dir=place) as directory:
        private, known = f"{directory}/key", f"{directory}/known_hosts"
        with open(_made(private, marker), encoding="ascii") as file:
            public = file.read()
        alias, name = f"sublet-{instance['id']}", instance["id"]
        try:
            host_keys = _shell(client, name, user, LET_IN, user, input=public)
            with open(known, "x", encoding="utf-8") as file:
                file.writelines(f"{alias} {line}\n" for line in host_keys.splitlines())
            yield Key(private, known, alias)
        finally:
            with contextlib.suppress(SubletError):  # it has ended, or is gone
                _shell(client, name, user, TAKE_OUT, user, marker)


def _made(private: str, comment: str) -> str:
    """Make the pair; the public key's file."""
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", private]
    try:
        pid = os.posix_spawnp(argv[0], argv, os.environ)
    except FileNotFoundError:
        raise NoSSH("This host has no SSH client.", hint="Install openssh-client.") from None
    if code := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise NoSSH(f"ssh-keygen failed ({code}); it says why above.")
    return f"{private}.pub"


def _shell(client: Client, name: str, user: str, script: str, *args: str, input: str = "") -> str:
    """What a script of ours says in the instance. Raises NoSSH where it fails."""
    command = ["/bin/sh", "-c", script, "sh", *args]
    done = client.exec(name, command, user=user, input=input.encode())
    if done.exit_code:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
        raise NoSSH(
            f"The instance does not take a key for {user or 'root'}: {said[-1].strip()}.",
            hint="`sublet exec -it INSTANCE sh` needs no SSH.",
        )
    return done.stdout
