"""`sublet browse --compare`: a page as two browsers show it, and what differs."""

from __future__ import annotations

import asyncio

from sublet.browser import Sight
from sublet.browser.picture import compare
from sublet.cli import browse, browse_files
from sublet.cli.output import Progress, print_json
from sublet.domain.browsing import Page, file_name, kind_of
from sublet.domain.errors import InvalidArgument


def both(page: Page, images: tuple[str, str], options: browse.Options, *, as_json: bool) -> None:
    """Look with both at once, and write one picture of A, B and their difference."""
    if options["pdf"]:
        raise InvalidArgument("--pdf does not go with --compare.", hint="Leave one of them out.")
    for image in images:
        kind_of(image)
    path = options["screenshot"] or f"{file_name(page, '-'.join(images))}.png"
    browse_files.check_writable(path)
    with Progress() as progress:
        seen = browse.run(_look(page, images, options, progress))
    captions = [f"{sight.browser} ({image})" for sight, image in zip(seen, images, strict=True)]
    found = compare(seen[0].screenshot, seen[1].screenshot, (captions[0], captions[1]))
    browse_files.write(path, found.picture)
    if as_json:
        pages = [browse_files.told(*pair) for pair in zip(seen, images, strict=True)]
        counts = {"pixels": found.pixels, "differing": found.differing, "share": found.share}
        print_json({"screenshot": path, **counts, "pages": pages})
        return
    for sight, image in zip(seen, images, strict=True):
        browse.warn(image, browse_files.warnings(sight))
    print(f"{100 * found.share:.2f} % of the pixels differ")
    print(path)


async def _look(
    page: Page, images: tuple[str, str], options: browse.Options, progress: Progress
) -> list[Sight]:
    visit = browse.visit_of(page, options)
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(browse.look(image, visit, options, progress)) for image in images
            ]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
