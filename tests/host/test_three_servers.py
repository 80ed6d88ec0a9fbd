"""The example of three servers on one host: by its own command, and with clients of ours."""

from __future__ import annotations

import imaplib
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Sublet, eventually

EXAMPLE = Path(__file__).parents[2] / "examples" / "three-servers"
SECRET = "for-a-minute"
KINDS = ("files", "mail", "web")


@pytest.fixture(params=["container", "vm"])
def flags(request: pytest.FixtureRequest, sublet: Sublet) -> Iterator[tuple[str, ...]]:
    """The flags of the example's command for this isolation; its images go afterwards."""
    yield ("--container",) if request.param == "container" else ()
    example(sublet, "--down")
    sublet("rmi", *(f"three-servers/{name}" for name in (*KINDS, "client")))  # those that there are
    assert "three-servers" not in sublet.ok("images")


def example(sublet: Sublet, *flags: str) -> str:
    done = subprocess.run(
        [EXAMPLE / "run", *flags], env=sublet.env, capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_each_is_stopped_started_and_replaced(sublet: Sublet, flags: tuple[str, ...]) -> None:
    said = example(sublet, "--keep", *flags)
    for server in KINDS:
        for what in ("stopped", "started", "replaced"):
            assert re.search(rf"{server}: {what} in \d+ ms", said), said
        # it was asked while each of the other two was disturbed
        asked = re.findall(rf"{server}: asked (\d+) times meanwhile, answered every time", said)
        assert len(asked) == 2, said
        assert all(int(number) > 2 for number in asked)
    check_isolation(sublet, "container" if flags else "vm")
    check_with_clients(sublet)
    check_volumes(sublet)
    example(sublet, "--down")
    assert sublet.json("volume", "ls", "--json") == []
    assert [row["name"] for row in sublet.json("network", "ls", "--json")] == ["default"]


def check_isolation(sublet: Sublet, isolation: str) -> None:
    rows = {row["name"]: row for row in sublet.json("ps", "--json")}
    assert {rows[f"three-{name}"]["isolation"] for name in KINDS} == {isolation}


def check_with_clients(sublet: Sublet) -> None:
    """Python's IMAP and HTTP clients from the host; mail by `sendmail` inside the server."""
    address = {name: sublet.json("inspect", f"three-{name}")["address"] for name in KINDS}
    letter = "Subject: From sendmail\n\nwritten by the test\n"
    sublet.ok("exec", "-i", "three-mail", "sendmail", "anna", input=letter)
    with imaplib.IMAP4(address["mail"], timeout=30) as box:
        box.login("anna", SECRET)

        def arrived() -> bool:
            box.select("INBOX")
            return box.search(None, "SUBJECT", '"From sendmail"')[1] != [b""]

        eventually(arrived, "the message is delivered", 60)
        number = box.search(None, "SUBJECT", '"From sendmail"')[1][0]
        (part, *_) = box.fetch(number.decode(), "(BODY[TEXT])")[1]
        assert isinstance(part, tuple)
        assert part[1].strip() == b"written by the test"
    with urllib.request.urlopen(f"http://{address['web']}/page.html", timeout=30) as page:
        assert page.read() == b"<p>written before\n"
    login = ("smbclient", "//files/files", f"--user=anna%{SECRET}")
    assert "report.txt" in sublet.ok("exec", "three-client", *login, "--command=ls")
    wrong = sublet("exec", "three-client", *login[:2], "--user=anna%guess", "--command=ls")
    assert wrong.code != 0
    assert "LOGON_FAILURE" in wrong.out + wrong.err


def check_volumes(sublet: Sublet) -> None:
    """What the servers hold is on volumes, not in their layers."""
    for name in KINDS:
        sublet.ok("rm", "-f", f"three-{name}")
    kept = {row["name"] for row in sublet.json("volume", "ls", "--json")}
    assert kept == {"three-files", "three-mail", "three-queue", "three-web"}
