"""Make docs/reference/errors.md from sublet/domain/errors.py.

`--check` writes nothing and exits 1 if the page is not current.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sublet.domain.errors import SubletError, all_errors  # noqa: E402

PAGE = ROOT / "docs" / "reference" / "errors.md"
HEAD = """\
<!-- Made by scripts/errors_page.py from sublet/domain/errors.py; do not edit. -->

# Errors

Every error has a code that does not change. The API sends `{"code", "message", "hint"}` with
the HTTP status given here; the CLI prints message and hint to standard error and exits with
the exit code given here; the SDK raises the class of the same name, a `sublet.SubletError`.

| code | meaning | HTTP | exit |
| --- | --- | --- | --- |
"""


def row(cls: type[SubletError]) -> str:
    meaning = (cls.__doc__ or "").strip().splitlines()[0]
    return f"| [`{cls.code}`](#{cls.code}) | {meaning} | {cls.status} | {cls.exit_code} |\n"


def section(cls: type[SubletError]) -> str:
    meaning = " ".join((cls.__doc__ or "").split())
    advice = f"\n\nWhat to do: {cls.default_hint}" if cls.default_hint else ""
    return f"\n## {cls.code}\n\n`{cls.__name__}`. {meaning}{advice}\n"


def page() -> str:
    """The whole page, errors in the order of the alphabet."""
    errors = sorted(all_errors(), key=lambda cls: cls.code)
    return HEAD + "".join(map(row, errors)) + "".join(map(section, errors))


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
