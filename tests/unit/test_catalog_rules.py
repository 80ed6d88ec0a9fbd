"""The catalogue: what short names mean, and what its Containerfiles say of themselves."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from sublet.domain import catalog, containerfile, health
from sublet.domain.errors import NoSuchImage
from sublet.engine.catalog import PLACE, shown

TOOLS = {"python", "node", "golang", "chromium", "firefox-esr"}
"""What is run for its programs, and waits for no client."""


def meaning(text: str) -> str:
    """`NAME SUITE`, or nothing."""
    choice = catalog.find(text)
    return f"{choice.entry.name} {choice.suite}" if choice else ""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("postgres", "postgres trixie"),
        ("postgres:latest", "postgres trixie"),
        ("postgres:15", "postgres bookworm"),
        ("postgres:17", "postgres trixie"),
        ("postgres:bookworm", "postgres bookworm"),
        ("postgres:15-bookworm", "postgres bookworm"),
        ("postgres:slim", "postgres trixie"),
        ("redis:7", "redis bookworm"),
        ("redis:7.0", "redis bookworm"),
        ("redis:8-slim-trixie", "redis trixie"),
        ("python:3", "python trixie"),
        ("python:3.11-slim", "python bookworm"),
        ("node:18", "node bookworm"),
        ("go:1.19", "golang bookworm"),
        ("firefox:bookworm", "firefox-esr bookworm"),
        ("chromium", "chromium trixie"),
        ("valkey:8", "valkey trixie"),
        ("valkey:bookworm", ""),
        ("rabbitmq:3-management", ""),
        ("postgres:16", ""),
        ("postgres:15-trixie", ""),
        ("postgres:15-alpine", ""),
        ("postgres:15.4", ""),
        ("postgres:bookworm-trixie", ""),
        ("docker.io/library/postgres:15", ""),
        ("docker.io/postgres:15", ""),
        ("library/postgres:15", ""),
        ("registry.example:5000/postgres:15", ""),
        (f"postgres@sha256:{'a' * 64}", ""),
        ("debian:bookworm", ""),
        ("./postgres", ""),
        ("Postgres:15", ""),
        ("", ""),
    ],
)
def test_short_names(text: str, found: str) -> None:
    assert meaning(text) == found


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("postgres:16", "The catalogue has postgres 15 (bookworm) and 17 (trixie)."),
        ("mongo:7", "neither MongoDB nor FerretDB"),
        ("ferretdb", "neither MongoDB nor FerretDB"),
        ("mysql:8", "mariadb"),
        ("postgres:15", ""),
        ("docker.io/library/postgres:16", ""),
        ("team/app", ""),
    ],
)
def test_advice_on_what_cannot_be_had(text: str, advice: str) -> None:
    assert advice in catalog.advice(text)
    assert bool(advice) == bool(catalog.advice(text))


def test_a_name_written_out_is_not_the_catalogues_image() -> None:
    ours = {catalog.LABEL: "postgres"}
    assert catalog.is_other("docker.io/library/postgres:15", ours)
    assert not catalog.is_other("postgres:15", ours)
    assert not catalog.is_other("docker.io/library/postgres:15", {})
    assert not catalog.is_other("/srv/postgres.sif", {})
    assert not catalog.is_other("registry.example/team/postgres:15", ours)


def test_what_the_catalogue_does_not_have() -> None:
    assert catalog.entry("postgres").name == "postgres"
    with pytest.raises(NoSuchImage) as caught:
        catalog.entry("mongo")
    assert "FerretDB" in caught.value.hint


@pytest.mark.parametrize("entry", catalog.ENTRIES, ids=lambda entry: entry.name)
def test_every_tag_that_is_told_means_its_suite(entry: catalog.Entry) -> None:
    for suite, tag in entry.tags.items():
        assert meaning(f"{entry.name}:{tag}") == f"{entry.name} {suite}"
        assert meaning(f"{entry.name}:{suite}") == f"{entry.name} {suite}"
    assert meaning(entry.name) == f"{entry.name} {list(entry.versions)[-1]}"


def test_the_package_holds_the_entries_and_nothing_else() -> None:
    assert {path.name for path in PLACE.iterdir()} == {entry.name for entry in catalog.ENTRIES}


@pytest.mark.parametrize("entry", catalog.ENTRIES, ids=lambda entry: entry.name)
def test_what_a_containerfile_says(entry: catalog.Entry) -> None:
    found = shown(entry)
    for suite in entry.versions:
        assert containerfile.base_images(found.text, {"SUITE": suite}) == [f"debian:{suite}"]
    labels = containerfile.pairs(found.text, "LABEL")
    assert labels[catalog.LABEL] == entry.name
    assert catalog.SERVICE not in labels or labels[catalog.SERVICE] == entry.name
    assert (found.offer.service != "") == (entry.name not in TOOLS)
    if found.offer.service:
        assert f"\nEXPOSE {found.offer.port}" in found.text
        assert re.search(r"^HEALTHCHECK --interval=1s ", found.text, re.M)
        url = catalog.filled(found.offer, "192.0.2.7")
        assert re.fullmatch(r"[a-z]+://[^{}]*192\.0\.2\.7:\d+[^{}]*", url)
    assert health.IMAGE_INTERVAL == 1.0, "as often as an image may ask for"


def test_an_offer() -> None:
    offer = shown(catalog.entry("postgres")).offer
    assert (offer.service, offer.port) == ("postgres", 5432)
    assert dict(offer.environment) == {
        "POSTGRES_USER": "postgres",
        "POSTGRES_PASSWORD": "postgres",
        "POSTGRES_DB": "postgres",
    }
    assert catalog.filled(offer, "h") == "postgresql://postgres:postgres@h:5432/postgres"


SCRIPTS = [path for path in PLACE.rglob("*") if path.is_file() and path.name != "Containerfile"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_scripts(script: Path) -> None:
    text = script.read_text()
    if text.startswith("#!/bin/sh"):
        subprocess.run(["sh", "-n", script], check=True, timeout=20)
        assert "\nset -eu\n" in text
        assert os.access(script, os.X_OK)
    assert script.name in shown(catalog.entry(script.parent.name)).text, "it is copied"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("postgers:15", "Do you mean postgres:15?"),
        ("chromuim:bookworm", "Do you mean chromium:bookworm?"),
        ("pythn", "Do you mean python?"),
        ("POSTGRES:15", "Do you mean postgres:15?"),
        ("debain:bookworm", "Do you mean debian:bookworm?"),
        ("debian:unheard-of", ""),
        ("mysql:8", "Debian has no MySQL; what the catalogue has is mariadb."),
        ("postgres:16", "The catalogue has postgres 15 (bookworm) and 17 (trixie)."),
        ("shop:1", ""),
        ("registry.example/postgers:15", ""),
    ],
)
def test_advice(text: str, said: str) -> None:
    assert catalog.advice(text) == said


def test_an_entry_by_one_of_its_tags() -> None:
    assert catalog.entry("postgres:15").name == "postgres"
    with pytest.raises(NoSuchImage) as caught:
        catalog.entry("postgres:16")
    assert "17 (trixie)" in caught.value.hint
