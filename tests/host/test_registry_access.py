"""Registries that want a login, and those whose certificate is not right."""

from __future__ import annotations

import base64
import json
import logging
import os
import pty
from collections.abc import Iterator
from pathlib import Path

import pytest
from clilab import assert_explained
from conftest import Sublet
from imagelab import Lab, archive, entry, make_image, make_layout
from registrylab import PASSWORD, USER, Authority, Front, put, serving, trusted

from sublet.domain.errors import (
    InvalidArgument,
    LoginFailed,
    NoSuchImage,
    PullFailed,
    UntrustedRegistry,
)

SECRET = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority")).make()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[str]:
    """A registry that wants a password."""
    with serving(tmp_path / "guarded", passwords=True) as port:
        yield f"localhost:{port}"


async def test_login(
    lab: Lab, tmp_path: Path, guarded: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Without it nothing goes, with it everything, and the password is in one place only."""
    caplog.set_level(logging.DEBUG)
    name = f"{guarded}/app:1"
    image = await make_image(lab, tmp_path, name)
    with pytest.raises(LoginFailed, match="does not let you push") as refused:
        await lab.images.push(name)
    assert f"sublet login {guarded}" in refused.value.hint
    for user, password in ((USER, "wrong"), ("nobody", PASSWORD)):
        with pytest.raises(LoginFailed, match="refuses this user name"):
            await lab.images.login(guarded, user, password)
    assert await lab.images.login(f"http://{guarded}/", USER, PASSWORD) == guarded
    stored = lab.root / "auth.json"
    assert stored.stat().st_mode & 0o777 == 0o600
    assert json.loads(stored.read_text())["auths"][guarded]["auth"] == SECRET
    await lab.images.push(name)
    await lab.images.remove(image.digest, in_use=set)
    await lab.images.pull(name)
    assert await lab.images.logout(guarded) == guarded
    with pytest.raises(NoSuchImage, match="or wants a login") as absent:
        await lab.images.pull(name)
    assert f"sublet login {guarded}" in absent.value.hint
    with pytest.raises(LoginFailed, match="not logged in"):
        await lab.images.logout(guarded)
    lab.database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    kept = (lab.root / "sublet.db").read_bytes().decode(errors="replace")
    for secret in (PASSWORD, SECRET):
        assert secret not in caplog.text
        assert secret not in kept


@pytest.mark.parametrize(
    ("registry", "user", "password"),
    [("a/b", "x", "x"), ("--help", "x", "x"), ("r", "", "x"), ("r", "-x", "x"), ("r", "x", "a\nb")],
)
async def test_malformed_logins(lab: Lab, registry: str, user: str, password: str) -> None:
    with pytest.raises(InvalidArgument):
        await lab.images.login(registry, user, password)


async def test_tokens(lab: Lab, tmp_path: Path, registry: str) -> None:
    """A registry that sends for a token: skopeo and our downloads both get one, also when the
    first is not taken any more."""
    layout = make_layout(tmp_path / "layout", archive(entry("a", os.urandom(100000))))
    with Front(int(registry.rpartition(":")[2]), token="first").open() as front:
        put(registry, "app:1", layout)
        name = f"{front.name}/app:1"
        with pytest.raises((NoSuchImage, PullFailed)):
            await lab.images.pull(name)
        with pytest.raises(LoginFailed):
            await lab.images.login(front.name, USER, "wrong")
        await lab.images.login(front.name, USER, PASSWORD)
        image = await lab.images.pull(name)
        await lab.images.remove(image.digest, in_use=set)
        front.token = "second"
        assert (await lab.images.pull(name)).names == (name,)


async def test_certificates(lab: Lab, tmp_path: Path, authority: Authority) -> None:
    """An authority that this host does not know, and then does."""
    tls = authority.issue("right", "DNS:localhost")
    with serving(tmp_path / "tls", tls=tls, passwords=True) as port:
        registry = f"localhost:{port}"
        name = f"{registry}/app:1"
        image = await make_image(lab, tmp_path, name)
        for work in (
            lambda: lab.images.login(registry, USER, PASSWORD, tls_verify=True),
            lambda: lab.images.push(name, tls_verify=True),
            lambda: lab.images.pull(name, tls_verify=True),
        ):
            with pytest.raises(UntrustedRegistry, match="this host does not know") as failed:
                await work()
            assert f"/etc/containers/certs.d/{registry}/ca.crt" in failed.value.hint
            assert "--tls-verify=false" in failed.value.hint
        await lab.images.login(registry, USER, PASSWORD, tls_verify=False)
        with trusted(registry, authority):
            await lab.images.push(name, tls_verify=True)
            await lab.images.remove(image.digest, in_use=set)
            image = await lab.images.pull(name, tls_verify=True)
        await lab.images.remove(image.digest, in_use=set)
        assert (await lab.images.pull(name)).names == (name,)  # loopback: any certificate


@pytest.mark.parametrize(
    ("host", "dates", "says", "hint"),
    [
        ("DNS:localhost", ("20200101000000Z", "20200201000000Z"), "expired", "renewed"),
        ("DNS:other.example", (), "another name", "the name that the certificate is for"),
    ],
)
async def test_wrong_certificates(
    lab: Lab,
    tmp_path: Path,
    authority: Authority,
    host: str,
    dates: tuple[str, ...],
    says: str,
    hint: str,
) -> None:
    tls = authority.issue(f"wrong{len(dates)}", host, *dates)
    with serving(tmp_path / "tls", tls=tls) as port:
        registry = f"localhost:{port}"
        with trusted(registry, authority), pytest.raises(UntrustedRegistry, match=says) as failed:
            await lab.images.pull(f"{registry}/app:1", tls_verify=True)
        assert hint in failed.value.hint
        with pytest.raises(NoSuchImage):
            await lab.images.pull(f"{registry}/app:1", tls_verify=False)


async def test_certificates_of_clients(lab: Lab, tmp_path: Path, authority: Authority) -> None:
    """A registry that wants to know who comes."""
    tls, own = authority.issue("server", "DNS:localhost"), authority.issue("me", "DNS:me")
    known = authority.certificate
    with serving(tmp_path / "tls", tls=tls, clients=known) as port:
        name = f"localhost:{port}/app:1"
        image = await make_image(lab, tmp_path, name)
        refused = pytest.raises(UntrustedRegistry, match="TLS cannot be set up")
        with trusted(f"localhost:{port}", authority), refused:
            await lab.images.push(name, tls_verify=True)
        with trusted(f"localhost:{port}", authority, own):
            await lab.images.push(name, tls_verify=True)
            await lab.images.remove(image.digest, in_use=set)
            assert await lab.images.pull(name, tls_verify=True)


async def test_plain_http_is_refused_where_tls_is_wanted(lab: Lab, registry: str) -> None:
    with pytest.raises(UntrustedRegistry, match="plain HTTP"):
        await lab.images.pull(f"{registry}/app:1", tls_verify=True)


def test_the_commands(sublet: Sublet, guarded: str, small_file: Path) -> None:
    name = f"{guarded}/small:1"
    digest = sublet.ok("import", str(small_file), "-t", name)
    refused = sublet("push", name)
    assert (refused.code, refused.out) == (1, "")
    assert_explained(refused.err)
    assert sublet("login", guarded, "-u", USER).code == 1  # nobody can be asked
    wrong = sublet("login", guarded, "-u", USER, "--password-stdin", input="wrong\n")
    assert wrong.code == 1
    assert_explained(wrong.err)
    told = sublet("login", guarded, "-u", USER, "--password-stdin", input=f"{PASSWORD}\n")
    assert (told.code, told.out) == (0, "Login Succeeded\n")
    pushed = sublet("push", name)
    assert pushed.out.startswith("sha256:")
    assert pushed.out.count("\n") == 1
    assert "layer" in pushed.err
    pinned = f"{guarded}/small@{pushed.out.strip()}"
    assert pinned in sublet.ok("images", "--digests")
    sublet.ok("rmi", name)
    assert sublet.ok("run", "--rm", pinned, "echo", "pinned") == "pinned"
    pulled = sublet("pull", name)
    assert pulled.code == 0
    assert f"Digest: {pushed.out.strip()}" in pulled.err
    assert pulled.out != f"{digest}\n"  # packed here again; the same files
    assert sublet("pull", "-q", name).err == ""
    assert sublet.ok("logout", guarded) == f"Removed login credentials for {guarded}"
    assert sublet("pull", name).code == 1
    sublet.ok("rmi", name)


def test_login_asks_on_a_terminal(sublet: Sublet, guarded: str) -> None:
    ours, theirs = pty.openpty()
    process = sublet.spawn("login", guarded, stdin=theirs, stderr=theirs)
    os.write(ours, f"{USER}\n".encode())
    seen = b""
    while b"Password" not in seen:
        seen += os.read(ours, 1000)
    os.write(ours, f"{PASSWORD}\n".encode())
    out, _ = process.communicate(timeout=60)
    os.close(theirs)
    os.close(ours)
    assert (process.returncode, out) == (0, "Login Succeeded\n")
    assert PASSWORD.encode() not in seen
    sublet.ok("logout", guarded)
