"""From a reference to the manifest that it means on this host.

A reference is resolved to the digest of a manifest for this host's platform, which is checked
before anything is fetched by it: what was looked at is what is fetched.
"""

from __future__ import annotations

from dataclasses import dataclass

from sublet.domain.errors import CorruptImage
from sublet.domain.progress import Report
from sublet.domain.reference import Reference
from sublet.drivers import run
from sublet.drivers.registry import manifest, trouble
from sublet.drivers.registry.access import Access
from sublet.drivers.registry.room import Inside
from sublet.drivers.registry.skopeo import architecture
from sublet.drivers.registry.store import BuildStore

ANSWER, QUICK_ANSWER = 20, 6
"""Seconds within which a registry has to answer (if the image can be had elsewhere as well)."""


@dataclass(frozen=True, slots=True)
class Found:
    """The manifest in `data`; `digests` by which the registry knows it: its own, and before it
    that of the index that lists it. The first blob is the config."""

    data: bytes
    digests: tuple[str, ...]
    blobs: tuple[manifest.Blob, ...]


async def resolve(
    store: BuildStore,
    inside: Inside,
    reference: Reference,
    access: Access,
    report: Report,
    *,
    answer: int = ANSWER,
) -> Found:
    """The manifest of the image for this host. `answer`: seconds to wait for the registry.

    Raises NoSuchImage where the registry has no such image, PullFailed where it does not
    answer, UntrustedRegistry, CorruptImage.
    """
    report(f"Asking {reference.registry} for {reference}")
    data = await _raw(store, inside, reference, access, answer)
    found = manifest.parse(data)
    digests = [manifest.digest_of(data)]
    if manifest.is_index(found):
        digest = manifest.choose(found, architecture())
        data = await _raw(store, inside, reference.at(digest), access, answer)
        found = manifest.parse(data)
        digests.append(manifest.digest_of(data))
    return Found(data, tuple(digests), tuple(manifest.blobs(found)))


async def _raw(
    store: BuildStore, inside: Inside, reference: Reference, access: Access, answer: int
) -> bytes:
    """A manifest's bytes; with a digest in the reference, they have it."""
    limit, source = f"--command-timeout={answer}s", f"docker://{reference.qualified}"
    argv = inside(["skopeo", limit, "inspect", "--raw", *access.flags(), source])
    result = await run.run(argv, check=False, timeout=answer + 5, env=store.environment)
    if result.code != 0:
        raise trouble.of_pull(result.stderr, reference.registry, str(reference))
    if reference.digest and manifest.digest_of(result.stdout) != reference.digest:
        raise CorruptImage(f"{reference.registry} sent another manifest than it was asked for.")
    return result.stdout
