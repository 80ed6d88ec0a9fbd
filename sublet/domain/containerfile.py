"""The base images that a Containerfile names, and the same file with others in their place.

Covers what names an image from outside: `FROM [--platform=…] IMAGE [AS NAME]`, with the
defaults of `ARG` before it, `COPY --from=IMAGE` and `RUN --mount=…,from=IMAGE`. Stages
of the file itself, their numbers and `scratch` are no images. Everything else is left to
buildah. Source: Dockerfile reference, "FROM" and "Understand how ARG and FROM interact".
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from sublet.domain.errors import BuildFailed

_FROM = re.compile(r"(\s*FROM\s+(?:--platform=\S+\s+)?)(\S+)(?:\s+AS\s+(\S+))?(.*)", re.I | re.S)
_ARG = re.compile(r"\s*ARG\s+(\w+)(?:=(\"[^\"]*\"|'[^']*'|\S*))?\s*", re.I)
_COPY = re.compile(r"(\s*(?:COPY|ADD)\s(?:\s*--\S+)*?\s*--from=)(\S+)(.*)", re.I | re.S)
_MOUNT = re.compile(r"(--mount=(?:[^\s,]+,)*?from=)([^\s,]+)")
_RUN = re.compile(r"\s*RUN\s", re.I)
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?:(:?[-+])([^}]*))?\})")
_HEREDOC = re.compile(r"<<-?\s*[\"']?(\w+)[\"']?")


@dataclass(slots=True)
class _Stages:
    """What is known while the file is read from its beginning."""

    arguments: dict[str, str]
    names: set[str]
    count: int = 0

    def is_own(self, name: str) -> bool:
        return name.lower() in self.names or (name.isdigit() and int(name) < self.count)


def base_images(text: str, arguments: Mapping[str, str] | None = None) -> list[str]:
    """The images from outside that the Containerfile needs, each once, in order.

    `arguments` override the defaults of `ARG`. Raises BuildFailed where the file has no
    FROM, or a FROM whose variables have no value.
    """
    found: list[str] = []
    substitute(text, lambda name: found.append(name) or name, arguments)  # type: ignore[func-returns-value]
    return list(dict.fromkeys(found))


def substitute(
    text: str, replace: Callable[[str], str], arguments: Mapping[str, str] | None = None
) -> str:
    """The Containerfile with every image from outside replaced; the lines stay as many."""
    stages = _Stages(dict(arguments or {}), set())
    given = frozenset(stages.arguments)
    result = []
    for line in _instructions(text):
        if not stages.count and (match := _ARG.fullmatch(line)):
            if match[1] not in given and match[2] is not None:
                value = match[2].strip("\"'")
                stages.arguments[match[1]] = expand(value, stages.arguments)
        elif match := _FROM.fullmatch(line):
            line = _from(match, stages, replace)
        elif (match := _COPY.fullmatch(line)) and _is_outside(match[2], stages):
            line = match[1] + replace(match[2]) + match[3]
        elif _RUN.match(line):
            line = _MOUNT.sub(lambda found: _mount(found, stages, replace), line)
        result.append(line)
    if not stages.count:
        raise BuildFailed("The Containerfile has no FROM.", hint="Begin it with FROM IMAGE.")
    return "".join(result)


def pairs(text: str, instruction: str) -> dict[str, str]:
    """All `NAME=value` of one instruction, `LABEL` or `ENV`, as they are written."""
    found: dict[str, str] = {}
    for line in _instructions(text):
        word, _, rest = line.strip().partition(" ")
        if word.upper() == instruction:
            written = (part.partition("=") for part in shlex.split(rest.replace("\\\n", " ")))
            found.update({name: value for name, _, value in written})
    return found


def expand(text: str, values: Mapping[str, str]) -> str:
    """`$NAME`, `${NAME}`, `${NAME:-default}` and `${NAME:+other}` replaced by values."""

    def value(match: re.Match[str]) -> str:
        name, operator, word = match[1] or match[2], match[3] or "", match[4] or ""
        known = values.get(name, "")
        if operator.endswith("-"):
            return known or word
        return (word if known else "") if operator.endswith("+") else known

    return _VARIABLE.sub(value, text)


def _from(match: re.Match[str], stages: _Stages, replace: Callable[[str], str]) -> str:
    written, name = match[2], match[3]
    image = expand(written.strip("\"'"), stages.arguments)
    if not image:
        raise BuildFailed(
            f"FROM {written}: the variable has no value.", hint="Give ARG a default before FROM."
        )
    own = image.lower() == "scratch" or stages.is_own(image)
    stages.count += 1
    if name:
        stages.names.add(name.lower())
    alias = f" AS {name}" if name else ""
    return f"{match[1]}{image if own else replace(image)}{alias}{match[4]}"


def _mount(match: re.Match[str], stages: _Stages, replace: Callable[[str], str]) -> str:
    return match[1] + (replace(match[2]) if _is_outside(match[2], stages) else match[2])


def _is_outside(name: str, stages: _Stages) -> bool:
    return not ("$" in name or name.lower() == "scratch" or stages.is_own(name))


def _instructions(text: str) -> Iterator[str]:
    """Instructions with their continuation lines, comments and here-documents, verbatim."""
    lines = iter(text.splitlines(keepends=True))
    for line in lines:
        whole = line
        if line.strip() and not line.lstrip().startswith("#"):
            while _continues(line) and (line := next(lines, "")):
                whole += line
            if re.match(r"\s*(RUN|COPY|ADD)\s", whole, re.I):
                for end in _HEREDOC.findall(whole):
                    for line in lines:
                        whole += line
                        if line.strip() == end:
                            break
        yield whole


def _continues(line: str) -> bool:
    """Whether an instruction goes on after this line: `\\` at its end, or a comment within."""
    return line.rstrip().endswith("\\") or line.lstrip().startswith("#")
