"""The command line's contract: keys, one result on standard output, files that run."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from clilab import made_foreign, small_tree
from conftest import BASE, SUBLET, Sublet

PS = {
    *("id", "name", "image", "state", "isolation", "market", "size", "exit_code", "ports"),
    "created",
}
INSPECT = PS | {"pid", "address", "mounts", "limits", "notice", "busy_because"}
HOST = {
    *("cpus", "memory", "sold", "spot", "free", "kernel", "cgroup", "runtime", "acceleration"),
}


def test_keys(sublet: Sublet) -> None:
    instance = sublet.ok("run", "-d", "--name", "box", BASE, "sleep", "60")
    (row,) = sublet.json("ps", "--json")
    assert set(row) >= PS
    assert (row["id"], row["isolation"], row["market"]) == (instance, "container", "on-demand")
    assert row["created"].endswith("Z")
    found = sublet.json("inspect", "box")
    assert set(found) >= INSPECT
    assert found["notice"] is None
    assert found["limits"] == {"cpus": 1.0, "memory": 512 << 20, "disk": 0, "pids": 2048}
    both = sublet.json("inspect", "box", instance[:6])
    assert [each["id"] for each in both] == [instance, instance]
    host = sublet.json("host", "--json")
    assert set(host) >= HOST
    assert set(host["acceleration"]) == {"kind", "reason"}
    assert host["sold"] == {"cpus": 1.0, "memory": 512 << 20}
    assert all(set(image) >= {"digest", "name", "size", "created"} for image in _images(sublet))
    version = sublet.json("version", "--json")
    assert set(version) == {"client", "daemon"}
    assert set(version["daemon"]) == {"version", "pid", "root"}
    assert version["daemon"]["root"] == str(sublet.root)
    assert sublet.json("audit", "--json") == []


def _images(sublet: Sublet) -> list[dict[str, object]]:
    found = sublet.json("images", "--json")
    assert isinstance(found, list)
    return found


def test_events_tell_a_life(sublet: Sublet) -> None:
    instance = sublet.ok("run", "-d", "--name", "life", BASE, "true")
    sublet.ok("wait", instance)
    sublet.ok("rm", "life")
    types = [e["type"] for e in sublet.json("events", "--json") if e["instance"] == instance]
    assert types == [
        f"instance.{state}"
        for state in ("pending", "running", "stopped", "shutting-down", "terminated")
    ]


def test_a_packed_file_runs(sublet: Sublet, base_file: Path) -> None:
    assert os.access(base_file, os.X_OK)
    done = subprocess.run(
        [str(base_file), "sh", "-c", "cat; echo $A; exit 3"],
        env={**sublet.env, "SUBLET_FLAGS": "-e A=flag"},
        input="in\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "in\nflag\n", "")


def test_a_file_in_the_working_directory_is_an_image(sublet: Sublet, base_file: Path) -> None:
    done = subprocess.run(
        [SUBLET, "run", "--rm", base_file.name, "echo", "ran"],
        env=sublet.env,
        cwd=base_file.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "ran\n"


def test_pack_import_and_remove(sublet: Sublet, tmp_path: Path) -> None:
    file = tmp_path / "tiny.sif"
    digest = sublet.ok("pack", str(small_tree(tmp_path / "tree")), "-o", str(file))
    assert digest.startswith("sha256:")
    assert sublet.ok("import", str(file), "-t", "tiny") == digest
    assert sublet.ok("run", "--rm", "tiny", "echo", "hi") == "hi"
    sublet.ok("run", "-d", "--name", "user", "tiny", "sleep", "60")
    refused = sublet("rmi", "tiny")
    assert refused.code == 1
    assert "sublet rm" in refused.err
    sublet.ok("rm", "-f", "user")
    sublet.ok("rmi", "tiny")
    assert "tiny" not in sublet.ok("images")
    assert sublet("rmi", "tiny").code == 1
    sublet.ok("rmi", "-f", "tiny")


def test_what_an_instance_became_is_an_image_again(sublet: Sublet, tmp_path: Path) -> None:
    sublet.ok("run", "--name", "made", BASE, "sh", "-c", "echo kept > /kept")
    file = tmp_path / "root.tar"
    sublet.ok("export", "made", "-o", str(file))
    sublet.ok("import", str(file), "-t", "remade")
    assert sublet.ok("run", "--rm", "remade", "cat", "/kept") == "kept"
    sublet.ok("rmi", "remade")


def test_only_the_result_is_on_standard_output(sublet: Sublet, tmp_path: Path) -> None:
    place = tmp_path / "context"
    place.mkdir()
    (place / "Dockerfile").write_text(f'FROM {BASE}\nRUN echo step\nENTRYPOINT ["echo", "e"]\n')
    built = sublet("build", str(place), "-t", "built")
    assert built.code == 0
    assert built.out.startswith("sha256:")
    assert built.out.count("\n") == 1
    assert "STEP" in built.err
    assert sublet.ok("run", "--rm", "built", "c") == "e c"
    (place / "other").write_text('FROM built\nCMD ["d"]\n')
    sublet.ok("build", str(place), "-t", "second", "-f", str(place / "other"))
    assert sublet.ok("run", "--rm", "second") == "e d"
    sublet.ok("rmi", "second", "built")


def test_help_is_for_people(sublet: Sublet) -> None:
    for args in ((), ("--help",)):
        outcome = sublet(*args)
        assert outcome.code == 0
        assert "audit" in outcome.out + outcome.err
    for verb in ("run", "exec", "build", "audit"):
        assert "Usage: sublet" in sublet.ok(verb, "--help")


def test_completion_in_bash(sublet: Sublet) -> None:
    assert completed(sublet, "ins") == ["inspect", "instance"]
    sublet.ok("volume", "create", "disk-of-mine")
    assert completed(sublet, "volume", "rm", "disk-of") == ["disk-of-mine"]
    sublet.ok("volume", "rm", "disk-of-mine")
    assert completed(sublet, "network", "inspect", "defa") == ["default"]


def completed(sublet: Sublet, *words: str) -> list[str]:
    """What bash offers for the last of these words."""
    script = (
        'source <(sublet completion bash); COMP_WORDS=(sublet "$@"); COMP_CWORD=$#; '
        "_sublet_completion sublet; echo ${COMPREPLY[@]}"
    )
    done = subprocess.run(
        ["bash", "-c", script, "bash", *words],
        env=sublet.env,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_a_listing_of_nothing_is_an_empty_array(sublet: Sublet) -> None:
    assert json.loads(sublet("ps", "-a", "--json").out) == []


def test_an_image_in_use_loses_its_name_by_force(sublet: Sublet, small_file: Path) -> None:
    digest = sublet.ok("import", str(small_file), "-t", "used")
    sublet.ok("run", "-d", "--name", "user", "used", "sleep", "60")
    sublet.ok("rmi", "-f", "used")
    assert "used" not in sublet.ok("images")
    assert digest in sublet.ok("images", "-q")
    assert sublet.ok("exec", "user", "echo", "works") == "works"
    assert sublet("rmi", digest).code == 1
    sublet.ok("rm", "-f", "user")
    sublet.ok("rmi", digest)
    assert digest not in sublet.ok("images", "-q")


def test_progress_is_on_standard_error(sublet: Sublet, tmp_path: Path, small_file: Path) -> None:
    foreign = made_foreign(small_file, tmp_path / "foreign.sif")
    taken = sublet("import", str(foreign), "-t", "foreign")
    assert taken.out.startswith("sha256:")
    assert taken.out.count("\n") == 1
    assert "Packing the image again" in taken.err
    sublet.ok("rmi", "foreign")
    tree = small_tree(tmp_path / "tree")
    packed = sublet("pack", str(tree), "-o", str(tmp_path / "x.sif"))
    assert (packed.code, packed.out.count("\n")) == (0, 1)
    assert f"Packing {tree}" in packed.err
