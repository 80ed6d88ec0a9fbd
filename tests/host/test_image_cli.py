"""The commands on images, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

from clilab import assert_explained
from conftest import Sublet


def test_the_group_has_dockers_names(sublet: Sublet) -> None:
    listed = sublet.ok("image", "--help")
    for verb in "build history import inspect ls pack prune pull rm tag".split():
        assert f"  {verb} " in listed
    assert json.loads(sublet.ok("image", "ls", "--json")) == sublet.json("images", "--json")


def test_tag_inspect_history(sublet: Sublet, small_file: Path) -> None:
    digest = sublet.ok("import", str(small_file), "-t", "small")
    sublet.ok("tag", "small", "team/other:2")
    found = sublet.json("image", "inspect", "small")
    assert found["names"] == ["small:latest", "team/other:2"]
    assert (found["digest"], found["size"]) == (digest, small_file.stat().st_size)
    assert Path(found["file"]).stat().st_size == found["size"]
    assert found["config"]["Cmd"] == ["/bin/sh"]
    assert sublet.json("inspect", "small") == found
    assert sublet.json("inspect", "--type", "image", "small") == found
    assert len(sublet.json("image", "inspect", "small", "team/other:2")) == 2
    (step,) = sublet.json("history", "small", "--json")
    assert (step["created_by"], step["digest"]) == ("sublet pack", digest)
    assert step["size"] == found["squashfs"]["length"]
    assert sublet.ok("history", "-q", "--no-trunc", "small") == digest
    assert "sublet pack" in sublet.ok("image", "history", "small")
    assert sublet.ok("images", "-q", "--filter", "reference=team/*:2") == digest
    assert sublet.ok("images", "--no-trunc", "team/other").count(digest) == 1
    refused = sublet("rmi", digest)
    assert refused.code == 1
    assert_explained(refused.err)
    assert sublet.ok("image", "rm", "small") == "Untagged: small:latest"
    gone = sublet.ok("rmi", digest[7:17]).splitlines()
    assert gone == ["Untagged: team/other:2", f"Deleted: {digest}"]


def test_several_at_once(sublet: Sublet, small_file: Path) -> None:
    """What can be removed is, though one is not there."""
    sublet.ok("import", str(small_file), "-t", "small")
    outcome = sublet("rmi", "none", "small")
    assert outcome.code == 1
    assert "Untagged: small:latest" in outcome.out
    assert_explained(outcome.err)
    for args in (("history", "none"), ("image", "inspect", "none"), ("tag", "none", "x")):
        refused = sublet(*args)
        assert refused.code == 1
        assert_explained(refused.err)
    assert sublet("images", "--filter", "size=5").code == 1


def test_what_ran_by_its_path_is_collected(sublet: Sublet, small_file: Path) -> None:
    sublet.ok("run", "-d", "--name", "user", str(small_file), "sleep", "60")
    (digest,) = sublet.ok("images", "-q", "--filter", "dangling=true").split()
    assert digest not in sublet.ok("image", "prune", "-f")
    sublet.ok("rm", "-f", "user")
    pruned = sublet("image", "prune")
    assert pruned.err.startswith("To be removed: 1 image,")
    assert f"Deleted: {digest}" in pruned.out
    assert pruned.out.splitlines()[-1].startswith("Total reclaimed space: ")
    assert sublet.json("image", "prune", "-f", "--json")["images"] == []


def test_arguments_of_builds(sublet: Sublet, tmp_path: Path, small_file: Path) -> None:
    sublet.ok("import", str(small_file), "-t", "small")
    text = "ARG BASE\nFROM $BASE\nARG A\nARG B\nLABEL a=$A b=$B\n"
    (tmp_path / "Containerfile").write_text(text)
    given = ["--build-arg", "BASE=small", "--build-arg", "A=1=2", "--build-arg", "B"]
    sublet.extra["B"] = "own"
    built = sublet("build", str(tmp_path), "-q", "-t", "built", *given)
    del sublet.extra["B"]
    assert (built.code, built.err) == (0, "")
    labels = sublet.json("image", "inspect", "built")["labels"]
    assert (labels["a"], labels["b"]) == ("1=2", "own")
    sublet.ok("rmi", "built", "small")
