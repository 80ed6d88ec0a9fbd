"""Fetching blobs from a registry, with resumption of what is half there.

skopeo starts a blob again from its first byte when it is started again itself; this goes on
with a Range request. Source: OCI distribution specification, "Pulling blobs".
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from sublet.domain.errors import DiskFull, PullFailed, SubletError
from sublet.domain.reference import Reference
from sublet.drivers.registry import challenge, curl
from sublet.drivers.registry.access import Access, Credentials, certificates
from sublet.drivers.registry.manifest import Blob

TRIES = 5
"""Connections in a row that bring nothing before a download is given up."""
PAUSE = 0.5
TRANSFER = 6 * 3600
_HINT = "Pull again: it goes on where it broke off."


class Source:
    """One repository of a registry, over HTTP."""

    def __init__(self, reference: Reference, access: Access, credentials: Credentials) -> None:
        self._registry, self._access = reference.registry, access
        self._credentials, self._reference = credentials, reference
        self._repository = reference.path
        self._trust = certificates(reference.registry)
        self._scheme = "https" if access.verify else ""
        self._authorization = ""
        self._asking = asyncio.Lock()

    async def fetch(self, blob: Blob, part: Path) -> None:
        """Bring `part` to the blob's size, from where it ends. Its digest is for the caller.

        Raises PullFailed, DiskFull.
        """
        await self._find_scheme()
        failures, most = 0, size_of(part)
        while (have := size_of(part)) != blob.size:
            if have > blob.size:
                part.unlink()
                continue
            answer = await self._get(blob, part, have)
            if answer.exit_code == 0 and size_of(part) == blob.size:
                return
            self._judge(answer, blob, part)
            failures = 0 if size_of(part) > most else failures + 1
            most = max(most, size_of(part))
            if failures == TRIES:
                raise self._failed(answer.complaint or "the connection breaks off")
            await asyncio.sleep(PAUSE * 2**failures if failures else 0)

    async def _get(self, blob: Blob, part: Path, have: int) -> curl.Answer:
        """One request; authorised anew, and made again, where that is asked for."""
        url = f"{self._base()}/{self._repository}/blobs/{blob.digest}"
        limit = [("max-filesize", str(blob.size))]
        for _ in range(2):
            used = self._authorization
            with part.open("ab") as sink:
                options = [*self._options(), *self._authorized(), *limit]
                answer = await curl.get(
                    url, options, self._trust, sink=sink.fileno(), offset=have, timeout=TRANSFER
                )
            if answer.status != 401 or not await self._authorize(answer.challenge, used):
                break
        return answer

    def _judge(self, answer: curl.Answer, blob: Blob, part: Path) -> None:
        """Raise what no further try would mend; prepare for one otherwise."""
        if answer.exit_code == curl.NO_RANGE or answer.status == 416:
            os.truncate(part, 0)  # this registry gives whole blobs only
        elif answer.exit_code == 23:
            raise DiskFull("No space left on the host for the image's layers.")
        elif answer.exit_code == 0 or answer.exit_code == curl.TOO_LARGE:
            part.unlink(missing_ok=True)
            raise self._failed(f"{blob.digest[:19]} has another size than its manifest says")
        elif answer.status in (401, 403):
            raise PullFailed(
                f"The registry {self._registry} refuses to give {blob.digest[:19]}.",
                hint=f"Log in with `sublet login {self._registry}`.",
            )
        elif 400 <= answer.status < 500 and answer.status not in (408, 429):
            raise self._failed(f"it answers {answer.status} for {blob.digest[:19]}")
        elif answer.exit_code not in curl.BROKEN and answer.status < 500:
            raise self._failed(answer.complaint or f"curl failed ({answer.exit_code})")

    def _failed(self, why: str) -> SubletError:
        text = f"The registry {self._registry} did not deliver {self._reference}: {why}."
        return PullFailed(text, hint=_HINT)

    async def _find_scheme(self) -> None:
        """Whether the registry speaks TLS; asked where it need not."""
        async with self._asking:
            if not self._scheme:
                url = f"https://{self._access.host}/v2/"
                answer = await curl.get(url, self._options(), self._trust)
                self._scheme = "https" if answer.status else "http"

    def _base(self) -> str:
        return f"{self._scheme}://{self._access.host}/v2"

    def _options(self) -> list[tuple[str, str]]:
        if self._access.verify:
            return [("proto", "=https")]
        return [("insecure", ""), ("proto", "=https,http")]

    def _authorized(self) -> list[tuple[str, str]]:
        if not self._authorization:
            return []
        return [("header", f"Authorization: {self._authorization}")]

    async def _authorize(self, header: str, used: str) -> bool:
        """Do what the challenge wants; whether there is another authorisation now than `used`,
        which was refused."""
        async with self._asking:
            if self._authorization != used:  # somebody else was faster
                return True
            found, basic = challenge.parse(header), self._credentials.basic(self._reference)
            if found.scheme == "bearer":
                self._authorization = await self._token(found, basic)
            elif found.scheme == "basic" and basic:
                self._authorization = f"Basic {basic}"
            return bool(self._authorization) and self._authorization != used

    async def _token(self, found: challenge.Challenge, basic: str) -> str:
        url = challenge.token_url(found, self._repository, plain=self._scheme == "http")
        if url is None:
            raise PullFailed(
                f"The registry {self._registry} names no sound place to get a token from.",
                hint="It has to be an HTTPS address; tell whoever runs the registry.",
            )
        options = [*self._options(), ("max-filesize", str(1 << 20))]
        if basic:
            options.append(("header", f"Authorization: Basic {basic}"))
        token = challenge.token_of((await curl.get(url, options, self._trust)).body)
        return f"Bearer {token}" if token else ""


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
