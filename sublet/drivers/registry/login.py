"""Logging in to registries and out, by skopeo."""

from __future__ import annotations

from sublet.domain.errors import InvalidArgument, LoginFailed
from sublet.drivers import run
from sublet.drivers.registry import trouble
from sublet.drivers.registry.access import Access

ANSWER = 60


async def login(access: Access, username: str, password: str) -> None:
    """Try the credentials, and keep them if the registry takes them.

    Raises LoginFailed, PullFailed where it is not reached, UntrustedRegistry.
    """
    if not username or not password or "\n" in password or username.startswith("-"):
        raise InvalidArgument(
            "A login needs a user name and a password of one line.",
            hint="Give them with -u and --password-stdin.",
        )
    options = [*access.flags(), f"--username={username}", "--password-stdin"]
    argv = ["skopeo", "login", *options, access.registry]
    result = await run.run(argv, input=f"{password}\n".encode(), check=False, timeout=ANSWER)
    if result.code != 0:
        raise trouble.of_login(result.stderr, access.registry)


async def logout(access: Access) -> None:
    """Forget the credentials. Raises LoginFailed where there are none."""
    argv = ["skopeo", "logout", "--authfile", str(access.authfile), access.registry]
    result = await run.run(argv, check=False, timeout=ANSWER)
    if result.code != 0:
        raise LoginFailed(
            f"You are not logged in to {access.registry}.",
            hint="`sublet login` without a registry means docker.io; name it as it was then.",
        )
