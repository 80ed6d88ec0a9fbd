"""Registries and OCI layouts, through skopeo, into the private store.

A reference is first resolved to the digest of a manifest for this host's platform, which
is checked and then copied by that digest: what was looked at is what is fetched.
"""

from __future__ import annotations

import ipaddress
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from sublet.domain.errors import (
    CorruptImage,
    DiskFull,
    InvalidArgument,
    NoSuchImage,
    ProcessFailed,
    PullFailed,
    SubletError,
)
from sublet.domain.reference import Reference
from sublet.drivers import run
from sublet.drivers.registry import manifest
from sublet.drivers.registry.room import Inside
from sublet.drivers.registry.store import TEMPORARY, BuildStore
from sublet.drivers.store import files

Report = Callable[[str], None]
ANSWER, QUICK_ANSWER, TRANSFER = 20, 6, 3600
"""Seconds within which a registry has to answer (if the image can be had elsewhere as
well), and to deliver."""

_ABSENT = ("manifest unknown", "name unknown", "not found", "repository name not known")
_DENIED = ("unauthorized", "denied", "authentication required")
_UNREACHABLE = {
    "no such host": "its name does not resolve",
    "connection refused": "it refuses connections",
    "network is unreachable": "the network is unreachable",
    "no route to host": "there is no route to it",
}
_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}


def architecture() -> str:
    """This host's architecture, as images name it."""
    machine = os.uname().machine
    return _NAMES.get(machine, machine)


def is_loopback(registry: str) -> bool:
    """Whether the registry runs on this machine: plain HTTP will do then, as for Docker."""
    host = registry.rpartition(":")[0] or registry
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


async def pull(
    store: BuildStore, inside: Inside, reference: Reference, report: Report, *, answer: int
) -> str:
    """Copy the image into the store; its id there. `answer`: seconds to wait for the registry.

    Raises NoSuchImage where the registry has no such image, PullFailed where it does not
    answer or deliver.
    """
    report(f"Asking {reference.registry} for {reference}")
    repository = reference.qualified.partition("@")[0]
    if not reference.digest:
        repository = repository.rpartition(":")[0]
    data = await _raw(store, inside, reference, f"docker://{reference.qualified}", answer)
    found = manifest.parse(data)
    if manifest.is_index(found):
        digest = manifest.choose(found, architecture())
        data = await _raw(store, inside, reference, f"docker://{repository}@{digest}", answer)
        if manifest.digest_of(data) != digest:
            raise CorruptImage(f"{reference.registry} sent another manifest than it was asked for.")
        found = manifest.parse(data)
    config, *_ = manifest.blobs(found)
    source = f"docker://{repository}@{manifest.digest_of(data)}"
    tls = ["--src-tls-verify=false"] if is_loopback(reference.registry) else []
    identity = config.partition(":")[2]
    try:
        await copy(store, inside, [*tls, source], identity, report)
    except ProcessFailed as error:
        raise _translated(error.message, reference) from error
    return identity


async def _raw(
    store: BuildStore, inside: Inside, reference: Reference, source: str, answer: int
) -> bytes:
    tls = ["--tls-verify=false"] if is_loopback(reference.registry) else []
    limit = f"--command-timeout={answer}s"
    argv = inside(["skopeo", limit, "inspect", "--raw", *tls, source])
    result = await run.run(argv, check=False, timeout=answer + 5, env=store.environment)
    if result.code != 0:
        raise _translated(result.stderr, reference)
    return result.stdout


async def load_layout(store: BuildStore, inside: Inside, layout: Path, report: Report) -> str:
    """Copy the one image of an OCI layout directory into the store; its id there.

    Raises CorruptImage for what is no sound layout.
    """
    try:
        index = manifest.parse(_read(layout / "index.json"))
        entries = [item for item in index.get("manifests") or () if isinstance(item, dict)]
        digest = manifest.choose({"manifests": entries}, architecture())
        found = manifest.parse(_blob(layout, digest))
        if manifest.is_index(found):
            found = manifest.parse(_blob(layout, manifest.choose(found, architecture())))
        config, *_ = manifest.blobs(found)
    except InvalidArgument as error:
        raise CorruptImage(f"{layout} is no complete OCI layout: {error.message}") from error
    # skopeo splits its argument at colons, which a path may hold.
    with tempfile.TemporaryDirectory(dir=store.temporary) as place:
        link = TEMPORARY / Path(place).name / "layout"
        (Path(place) / "layout").symlink_to(layout.absolute())
        try:
            await copy(store, inside, [f"oci:{link}"], config.partition(":")[2], report)
        except ProcessFailed as error:
            raise CorruptImage(f"The OCI layout cannot be read: {_last(error.message)}") from error
    return config.partition(":")[2]


def _read(path: Path) -> bytes:
    """A small file of a layout's; a FIFO in its place is not waited for."""
    with files.open_regular(path) as file:
        return file.read(manifest.MAX_MANIFEST + 1)


def _blob(layout: Path, digest: str) -> bytes:
    algorithm, _, value = digest.partition(":")
    data = _read(layout / "blobs" / algorithm / value)
    if algorithm == "sha256" and manifest.digest_of(data) != digest:
        raise CorruptImage(f"The OCI layout's blob {digest[:19]} does not have its digest.")
    return data


async def copy(
    store: BuildStore, inside: Inside, source: list[str], identity: str, report: Report
) -> None:
    """Copy an image into the store under the name that `name_of` gives for its id."""
    target = store.reference(name_of(identity))
    argv = inside(["skopeo", "copy", *source, target])
    await run.run(argv, on_line=report, timeout=TRANSFER, env=store.environment)


def name_of(identity: str) -> str:
    """The name of the image with this id in the private store."""
    return f"localhost/sublet-image:{identity}"


def is_layout(path: Path) -> bool:
    """Whether the directory is an OCI layout."""
    return (path / "oci-layout").is_file() and (path / "index.json").is_file()


def _translated(stderr: str, reference: Reference) -> SubletError:
    text, registry = stderr.lower(), reference.registry
    if "no space left" in text:
        return DiskFull("No space left on the host for the image's layers.")
    if any(word in text for word in _ABSENT) and "no such host" not in text:
        return NoSuchImage(f"The registry {registry} has no image {reference}.")
    if any(word in text for word in _DENIED):
        return NoSuchImage(
            f"The registry {registry} has no image {reference}, or wants a login for it.",
            hint="Log in with `skopeo login`, or check the name.",
        )
    for sign, reason in _UNREACHABLE.items():
        if sign in text:
            return PullFailed(f"The registry {registry} cannot be reached: {reason}.")
    if "deadline exceeded" in text or "timeout" in text:
        return PullFailed(f"The registry {registry} did not answer in time.")
    return PullFailed(f"The registry {registry} did not deliver {reference}: {_last(stderr)}")


def _last(text: str) -> str:
    """The reason in a failing tool's last line, without its log prefix."""
    line = ([line for line in text.strip().splitlines() if line.strip()] or ["it said nothing"])[-1]
    return (line.partition('msg="')[2].rstrip('"').replace('\\"', '"') or line).rstrip(".") + "."
