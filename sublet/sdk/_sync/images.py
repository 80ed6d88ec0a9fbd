# Made from ../_async/images.py by scripts/unasync.py; edit that file.
"""The client's verbs on images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sublet.sdk._sync.calls import Calls, Progress, silent
from sublet.sdk._http import quote

TYPE_CHECKING = False  # typing itself costs milliseconds of every command
if TYPE_CHECKING:
    from typing import Any


class ImageVerbs(Calls):
    """What can be done with images."""

    def images(self, filters: Sequence[str] = ()) -> list[dict[str, Any]]:
        """The images on this host; `filters` are `dangling=true`, `reference=…`, `label=…`,
        `before=…`, `since=…`, `until=…`."""
        return list(self.call("GET", "/v1/images", filter=list(filters)))

    def catalog(self) -> list[dict[str, Any]]:
        """The images that Sublet builds itself when they are asked for by a short name: `name`,
        `versions` (each `tag`, `suite`, whether it is `here`), and what they offer."""
        return list(self.call("GET", "/v1/catalog"))

    def catalog_entry(self, name: str) -> dict[str, Any]:
        """One image of the catalogue, with its `containerfile`. Raises NoSuchImage."""
        return dict(self.call("GET", f"/v1/catalog/{quote(name)}"))

    def inspect_image(self, name: str) -> dict[str, Any]:
        """All that is known of an image: its OCI config, digests, file."""
        return dict(self.call("GET", "/v1/images/inspect", name=name))

    def image_history(self, name: str) -> list[dict[str, Any]]:
        """The steps that made an image, the last first."""
        return list(self.call("GET", "/v1/images/history", name=name))

    def tag(self, source: str, name: str) -> None:
        """Give an image a further name."""
        self.call("POST", "/v1/images/tag", {"source": source, "name": name})

    def prune_images(
        self, *, all: bool = False, filters: Sequence[str] = (), dry_run: bool = False
    ) -> dict[str, Any]:
        """Remove images without a name that nothing needs, with `all` every one that no
        instance is made of: `images`, `cache` and `size` (bytes freed)."""
        body = {"all": all, "filters": list(filters), "dry_run": dry_run}
        return dict(self.call("POST", "/v1/images/prune", body))

    def ensure(self, reference: str, progress: Progress = silent) -> dict[str, Any]:
        """The image of this name, path or reference; fetched if it is not here."""
        body = {"reference": reference}
        return self._operate("/v1/images/ensure", body, progress)

    def pull(
        self, reference: str, progress: Progress = silent, *, tls_verify: bool | None = None
    ) -> dict[str, Any]:
        """Fetch an image from its registry, or make it from a Debian mirror.

        Certificates are verified, unless the registry is on loopback or `tls_verify` is False.
        """
        body = {"reference": reference, "tls_verify": tls_verify}
        return self._operate("/v1/images/pull", body, progress)

    def push(
        self, name: str, progress: Progress = silent, *, tls_verify: bool | None = None
    ) -> str:
        """Send an image to the registry in its name; the digest by which it can be pulled."""
        body = {"reference": name, "tls_verify": tls_verify}
        return str((self._operate("/v1/images/push", body, progress))["digest"])

    def login(
        self, registry: str, username: str, password: str, *, tls_verify: bool | None = None
    ) -> str:
        """Keep credentials that a registry (empty: docker.io) takes; the registry's name."""
        body = {"registry": registry, "username": username, "password": password}
        answer = self.call("POST", "/v1/registries/login", {**body, "tls_verify": tls_verify})
        return str(answer["registry"])

    def logout(self, registry: str) -> str:
        """Forget a registry's credentials; the registry's name."""
        return str(
            (self.call("DELETE", "/v1/registries/login", registry=registry))["registry"]
        )

    def build(
        self,
        directory: str,
        *,
        name: str = "",
        file: str = "",
        arguments: Mapping[str, str] | None = None,
        progress: Progress = silent,
    ) -> dict[str, Any]:
        """Build the Containerfile in a directory of this host (absolute paths); `arguments` are
        values for its `ARG`s."""
        body: dict[str, Any] = {"directory": directory, "name": name, "file": file}
        body["arguments"] = dict(arguments or {})
        return self._operate("/v1/images/build", body, progress)

    def import_image(
        self, path: str, *, name: str = "", trust: bool = False, progress: Progress = silent
    ) -> dict[str, Any]:
        """Take in a SIF file, a root file system's tar or a VM's disk (absolute path)."""
        body = {"path": path, "name": name, "trust": trust}
        return self._operate("/v1/images/import", body, progress)

    def pack(
        self, source: str, output: str, *, progress: Progress = silent
    ) -> dict[str, Any]:
        """Write an image, a root file system or an OCI layout into one runnable file."""
        body = {"source": source, "output": output}
        return self._operate("/v1/images/pack", body, progress)

    def remove_image(self, name: str, *, force: bool = False) -> dict[str, Any]:
        """Drop an image's name, and with the last name its file: `untagged`, `deleted`."""
        return dict(self.call("DELETE", "/v1/images", name=name, force=force))
