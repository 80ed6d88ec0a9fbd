"""What restic says, as the sentences that a user gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from sublet.domain.errors import BackupFailed, Busy, NoSuchBackup, RepositoryUnavailable
from sublet.drivers import run
from sublet.drivers.restic import Account, answers

PLACE = Path("/root")
ACCOUNT = Account(PLACE / "backup.password", PLACE / "backup.env", PLACE / "cache", PLACE / "ssh")
ASKS = "\nIs there a repository at the following location?\ns3:https://nas/b\n"
CONFIG = "Fatal: unable to open config file: "


@pytest.mark.parametrize(
    ("said", "kind", "says"),
    [
        (f"{CONFIG}Stat: NoSuchBucket{ASKS}", RepositoryUnavailable, "no repository at"),
        (
            f"{CONFIG}stat /srv/config: no such file or directory{ASKS}",
            RepositoryUnavailable,
            "no repository at",
        ),
        (f"{CONFIG}Stat: Access Denied.{ASKS}", RepositoryUnavailable, "refuses its keys"),
        (
            "Fatal: create repository at s3:x failed: client.BucketExists: InvalidAccessKeyId",
            RepositoryUnavailable,
            "refuses its keys",
        ),
        (
            f"{CONFIG}Stat: dial tcp 192.0.2.1:443: connect: connection refused{ASKS}",
            RepositoryUnavailable,
            "connection refused",
        ),
        ("Fatal: wrong password or no key found", RepositoryUnavailable, "does not open"),
        ("Fatal: repository is already locked exclusively by PID 1", Busy, "is locked"),
        ('Fatal: no matching ID found for prefix "x"', NoSuchBackup, "no such snapshot"),
        ("Fatal: it is broken", BackupFailed, "it is broken"),
        ("", BackupFailed, "it said nothing"),
    ],
)
def test_why_it_failed(said: str, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        answers.fail("backup", run.Result(1, b"", said), "s3:https://nas/b", ACCOUNT)


def test_the_name_of_a_snapshot() -> None:
    line = b'{"message_type":"summary","snapshot_id":"e9dfe139"}\n'
    assert answers.summary(b'{"message_type":"status"}\n' + line)["snapshot_id"] == "e9dfe139"
    assert answers.listed(b"null") == []
    assert answers.status("no JSON") is None
    assert answers.status('{"message_type":"status","bytes_done":5}') == answers.Done(5)


def test_a_password_is_there_as_a_whole(tmp_path: Path) -> None:
    account = Account(tmp_path / "new" / "password", tmp_path / "e", tmp_path / "c", tmp_path / "s")
    account.make_password()
    assert account.password.stat().st_mode & 0o777 == 0o600
    assert len(account.password.read_text()) > 40
    assert list(account.password.parent.iterdir()) == [account.password]
