"""Bad input: a sentence, a hint, Docker's exit code, and nothing left behind."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest
from clilab import context, made_foreign, refused
from conftest import BASE, Sublet
from imagelab import free_port

FLAGS = {
    "-p": ["x", "80:x", "0", "70000:80", "80:80:80:80", "1.2.3:80:80", "80/sctp", "80-81:80", ""],
    "-v": ["x", "./rel/x:y", "/nosuch:/x", "/tmp:rel", "/tmp:/x:zz", "/tmp:/proc/x", "/tmp:/", ""],
    "--memory": ["x", "0", "-1", "1m", "5z", "", "999999g"],
    "--cpus": ["x", "0", "-1", "nan", "inf", "1e-9", "100000", ""],
    "-e": ["=value", ""],
    "-w": ["relative", "/proc/self", "/etc/passwd"],
    "-u": ["nosuch", "0:nosuch", "99999999", "-1", "1:2:3", "²"],
    "--name": ["a b", "-x", "a/b", "../up", "a" * 64],
    "--hostname": ["a b", "-x", "a_b"],
    "--pids-limit": ["x", "0", "-1", "1.5", "²", "9" * 20],
    "--stop-timeout": ["x", "-1", "10y"],
}


@pytest.mark.parametrize(("flag", "value"), [(f, v) for f, values in FLAGS.items() for v in values])
def test_malformed_flags(sublet: Sublet, flag: str, value: str) -> None:
    code = 126 if value == "/etc/passwd" else 125  # only in the image it turns out to be a file
    refused(sublet, "run", flag, value, BASE, "true", code=code)


@pytest.mark.parametrize(
    "args",
    [
        ("run",),
        ("run", "--nosuch", BASE),
        ("run", "--name"),
        ("run", "--rm=yes", BASE),
        ("exec", "box"),
        ("ps", "--nosuch"),
        ("nosuch",),
        ("pack", BASE),
        ("completion", "nosuch"),
    ],
)
def test_usage(sublet: Sublet, args: tuple[str, ...]) -> None:
    outcome = sublet(*args)
    assert (outcome.code, outcome.out) == (125 if args[0] == "run" else 1, "")
    assert "Error: " in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    "image",
    [
        "UPPER/case",
        "two words",
        "sha256:00000",
        "../nothing.sif",
        "/nothing.sif",
        "/tmp",
        "/dev/null",
        "/etc/passwd",
        "",
    ],
)
def test_unknown_images(sublet: Sublet, image: str) -> None:
    before = sublet.json("images", "--json")
    refused(sublet, "run", image, "true")
    assert sublet.json("images", "--json") == before


def test_an_image_that_no_registry_has(sublet: Sublet) -> None:
    image = f"127.0.0.1:{free_port()}/nothing:1"
    refused(sublet, "run", "-d", image, says="cannot be reached")
    refused(sublet, "pull", image, code=1, says="cannot be reached")


def test_a_name_in_use(sublet: Sublet) -> None:
    sublet.ok("run", "-d", "--name", "taken", BASE, "sleep", "100")
    refused(sublet, "run", "--name", "taken", BASE, "true", says="'taken' is in use")
    refused(sublet, "run", "-d", "--name", "taken", BASE, "true", says="'taken' is in use")
    sublet.ok("stop", "-t", "0", "taken")
    refused(sublet, "run", "--name", "taken", BASE, "true", says="'taken' is in use")


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_port_of_another_program(sublet: Sublet, protocol: str) -> None:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind(("127.0.0.1", 0))
        if protocol == "tcp":
            other.listen()
        port = other.getsockname()[1]
        for place in (f"{port}", f"127.0.0.1:{port}"):
            flags = ("-d", "-p", f"{place}:80/{protocol}")
            refused(sublet, "run", *flags, BASE, "true", says=f":{port}/{protocol} is in use")


def test_a_port_of_another_instance(sublet: Sublet) -> None:
    sublet.ok("run", "-d", "--name", "first", "-p", "127.0.0.1:0:80", BASE, "sleep", "100")
    port = sublet.json("inspect", "first")["ports"][0]["host_port"]
    taken = f"{port}:80"
    refused(sublet, "run", "-p", taken, BASE, "true", says=f"{port}/tcp is in use")
    refused(sublet, "run", "-p", f"{free_port()}:1", "-p", taken, BASE, "true", says="in use")
    sublet.ok("rm", "-f", "first")
    sublet.ok("run", "--rm", "-p", f"127.0.0.1:{taken}", BASE, "true")
    refused(sublet, "run", "-p", "192.0.2.1:0:80", BASE, "true", says="not an address of this host")


def test_no_such_command(sublet: Sublet) -> None:
    for flags in ((), ("-d",), ("--rm",)):
        refused(sublet, "run", *flags, BASE, "nosuch", code=127, says="nosuch")
    refused(sublet, "run", BASE, "/no/such", code=127, says="/no/such")
    refused(sublet, "run", "--entrypoint", "nosuch", BASE, code=127)
    refused(sublet, "run", BASE, "/etc/passwd", code=126)
    refused(sublet, "run", BASE, "/etc", code=126)
    sublet.ok("run", "-d", "--name", "box", BASE, "sleep", "100")
    refused(sublet, "exec", "box", "nosuch", code=127, says="nosuch")
    refused(sublet, "exec", "box", "/etc/passwd", code=126)
    refused(sublet, "exec", "box", "/etc", code=126)


def test_what_is_not_there(sublet: Sublet, tmp_path: Path) -> None:
    for verb in ("stop", "kill", "rm", "wait", "logs", "inspect", "export"):
        options = ("-o", str(tmp_path / "out.tar")) if verb == "export" else ()
        refused(sublet, verb, "nobody", *options, code=1, says="no instance 'nobody'")
    assert list(tmp_path.iterdir()) == []
    refused(sublet, "exec", "nobody", "true", code=1, says="no instance 'nobody'")
    refused(sublet, "rmi", "nothing", code=1, says="no image 'nothing'")
    refused(sublet, "pack", "nothing", "-o", str(tmp_path / "x.sif"), code=1, says="docker.io")
    sublet.ok("run", "-d", "--name", "box", BASE, "sleep", "100")
    refused(sublet, "kill", "-s", "SIGNOSUCH", "box", code=1, says="not a signal")
    refused(sublet, "export", "box", "-o", "/no/such/x.tar", code=1, says="no directory")
    refused(sublet, "pack", BASE, "-o", "/no/such/x.sif", code=1)
    refused(sublet, "exec", "-w", "/nosuch", "box", "true", code=126, says="working directory")
    refused(sublet, "exec", "-u", "nosuch", "box", "true", code=126, says="nosuch")


# Builds


def test_a_build_that_fails_half_way(sublet: Sublet, tmp_path: Path) -> None:
    text = f"FROM {BASE}\nRUN echo fine\nRUN echo the reason >&2; exit 3\nRUN echo never\n"
    before = sublet.json("images", "--json")
    outcome = refused(sublet, "build", context(tmp_path / "ctx", text), "-t", "broken", code=1)
    assert "RUN echo the reason" in outcome.err.split("sublet: ")[1]
    assert "the reason" in outcome.err.splitlines()[-1]
    assert "never" not in outcome.err
    assert sublet.json("images", "--json") == before


@pytest.mark.parametrize(
    "text", ["", "NONSENSE\n", f"FROM {BASE}\nNONSENSE\n", f"FROM {BASE}\nCOPY nothing /\n", "\0"]
)
def test_containerfiles_that_make_no_sense(sublet: Sublet, tmp_path: Path, text: str) -> None:
    refused(sublet, "build", context(tmp_path / "ctx", text), code=1)


def test_a_missing_containerfile(sublet: Sublet, tmp_path: Path) -> None:
    refused(sublet, "build", str(tmp_path), code=1, says="does not exist")
    refused(sublet, "build", str(tmp_path / "nowhere"), code=1, says="no directory")
    place = context(tmp_path / "ctx", f"FROM {BASE}\n")
    refused(sublet, "build", place, "-f", str(tmp_path / "other"), code=1, says="other")
    refused(sublet, "build", place, "-t", "Bad Name", code=1, says="Bad Name")
    (tmp_path / "ctx" / "Containerfile").write_bytes(os.urandom(1000))
    refused(sublet, "build", place, code=1, says="cannot be read")


# Files that are no images


@pytest.mark.parametrize("damage", ["truncated", "changed", "beyond", "version"])
def test_damaged_files(sublet: Sublet, small_file: Path, tmp_path: Path, damage: str) -> None:
    path = made_foreign(small_file, tmp_path / "damaged.sif")
    size = path.stat().st_size
    with path.open("r+b") as file:
        if damage == "truncated":
            file.truncate(size // 2)
        elif damage == "beyond":
            file.seek(4096 + 17)  # a descriptor's offset
            file.write((1 << 40).to_bytes(8, "little"))
        else:
            file.seek(size // 2 if damage == "changed" else 42)
            file.write(b"\xff\xff")
    refused(sublet, "run", "--rm", str(path), "true")
    refused(sublet, "import", str(path), code=1)
    refused(sublet, "import", "--trust", str(path), code=1)


def test_texts_and_directories_as_images(sublet: Sublet, tmp_path: Path) -> None:
    text = tmp_path / "text.sif"
    text.write_text("This is no image.\n" * 100)
    refused(sublet, "run", str(text), says="no tar archive")
    refused(sublet, "import", str(text), code=1, says="no tar archive")
    refused(sublet, "pack", str(text), "-o", str(tmp_path / "x.sif"), code=1)
    refused(sublet, "run", str(tmp_path), says="directory")
    os.mkfifo(tmp_path / "fifo")
    refused(sublet, "run", str(tmp_path / "fifo"), says="not a file")
    (tmp_path / "empty").touch()
    refused(sublet, "run", str(tmp_path / "empty"))
    assert not (tmp_path / "x.sif").exists()


def test_a_foreign_file_runs_after_it_was_packed_again(
    sublet: Sublet, small_file: Path, tmp_path: Path
) -> None:
    path = made_foreign(small_file, tmp_path / "foreign.sif")
    outcome = sublet("run", "--rm", str(path), "echo", "hello")
    assert (outcome.code, outcome.out) == (0, "hello\n")
    assert "Packing the image again" in outcome.err
    again = sublet("run", "--rm", str(path), "echo", "hello")
    assert (again.code, again.out, again.err) == (0, "hello\n", "")
    digests = [row["digest"] for row in sublet.json("images", "--json") if not row["name"]]
    sublet.ok("rmi", *digests)


def test_requests_that_are_no_text_or_too_large(sublet: Sublet, tmp_path: Path) -> None:
    """What the command line does not let through, somebody's own client may send."""
    socket_file = str(sublet.run_dir / "sublet.sock")
    name = sublet.ok("create", BASE, "true")
    for method, path, body in (
        ("POST", "images/tag", '{"source": "\\ud800", "name": "x"}'),
        ("POST", "registries/login", '{"registry": "\\udcff", "username": "a", "password": "b"}'),
        ("PATCH", f"instances/{name}", '{"memory": 1%s}' % ("0" * 400)),
    ):
        curl = ["curl", "-s", "--unix-socket", socket_file, "-X", method, "--json", body]
        told = subprocess.run(
            [*curl, f"http://sublet/v1/{path}"], capture_output=True, text=True, timeout=60
        ).stdout
        assert '"invalid-argument"' in told
    refused(sublet, "pack", BASE, "-o", f"{tmp_path}/{'x' * 300}", code=1)
    sublet.ok("rm", name)
