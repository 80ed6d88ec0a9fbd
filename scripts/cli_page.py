"""Make docs/reference/cli.md from the commands themselves (click).

`--check` writes nothing and exits 1 if the page is not current.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sublet.cli.commands import cli  # noqa: E402

PAGE = ROOT / "docs" / "reference" / "cli.md"
HEAD = """\
<!-- Made by scripts/cli_page.py from the commands' own help; do not edit. -->

# Command line

Docker's idiom: the same verbs, flags and exit codes. Standard output carries the result
alone; progress and notes go to standard error. Every listing has `--json`.

`run` and `exec` exit with the command's own code; 125 is an error of Sublet's, 126 a command
that cannot be executed, 127 one that is not there. Other verbs exit with 1 on an error.
"""


def commands(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    """Path and help of the command and of all below it."""
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None and not child.hidden:
                inner = click.Context(child, info_name=name, parent=context)
                yield from commands(child, inner)


def page() -> str:
    """The whole page."""
    context = click.Context(
        cli, info_name="sublet", terminal_width=90, max_content_width=90, **cli.context_settings
    )
    return HEAD + "".join(
        f"\n## {path}\n\n```text\n{text.rstrip()}\n```\n" for path, text in commands(cli, context)
    )


def main() -> int:
    current = PAGE.read_text() if PAGE.exists() else ""
    if "--check" in sys.argv[1:]:
        if current != page():
            print(f"{PAGE.name} is not current; run `make docs`.", file=sys.stderr)
            return 1
    elif current != page():
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
