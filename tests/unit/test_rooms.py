"""The rooms of design.md, section 2: imports point only downward, processes have one seam."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "sublet"

PERMITTED = {
    "domain": set(),
    "archive": {"domain"},
    "image": {"domain"},
    "drivers": {"archive", "image", "domain"},
    "engine": {"drivers", "archive", "image", "domain"},
    "api": {"engine", "drivers", "image", "domain"},
    "sdk": {"archive", "domain"},
    "browser": {"sdk", "domain"},
    "mcp": {"sdk", "domain"},
    "pytest_plugin": {"sdk", "domain"},
    "cli": {"browser", "mcp", "sdk", "domain"},
    "daemon": {"api", "engine", "drivers", "image", "domain"},
    "__init__": {"sdk", "domain"},
    "__main__": {"cli"},
}
"""What each room, and each module at the top, may import besides itself."""

BY_NAME = {("cli", "sublet.daemon")}
"""The CLI's `daemon` command becomes the daemon; it imports that one module, lazily."""

PURE = {"asyncio", "socket", "sqlite3", "shutil", "tempfile", "ctypes", "fcntl", "signal"}
"""What the domain has no business with: it decides, it does not act."""

SEAM = "sublet.drivers.run"
DIALECTS = {"native", "metadata", "docker", "ec2", "web"}


def module_name(package: Path, path: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST) -> Iterator[str]:
    """Every name that the tree imports, in whatever place; `from a import b` gives a.b.

    `import sublet` gives what is then used of it: a room may ask for the version.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name != "sublet")
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "sublet":
            yield f"sublet.{node.attr}"
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise AssertionError("relative import")
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(name: str) -> str:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def violations(package: Path) -> list[str]:
    """Every import below `package` (a folder named sublet) that the design does not permit."""
    found = []
    for path in sorted(package.rglob("*.py")):
        module = module_name(package, path)
        room = room_of(module)
        if room not in PERMITTED:
            found.append(f"{module}: {room} is no room")
            continue
        for name in imports(ast.parse(path.read_text())):
            problem = judge(module, room, name)
            if problem:
                found.append(f"{module}: {problem}")
    return found


def judge(module: str, room: str, name: str) -> str:
    """What is wrong with `module` importing `name`, or nothing."""
    top, *rest = name.split(".")
    if name == "sublet.__version__":
        return ""
    if top == "sublet":
        other = rest[0] if rest else "__init__"
        if (
            other != room
            and other not in PERMITTED[room]
            and (room, f"sublet.{other}") not in BY_NAME
        ):
            return f"{room} may not import {name}"
        dialects = {part for part in module.split(".")[2:3] if part in DIALECTS}
        if room == other == "api" and dialects and set(rest[1:2]) & DIALECTS - dialects:
            return f"one API dialect may not import another: {name}"
    elif name.startswith("subprocess") and module != SEAM:
        return f"processes are started by {SEAM} alone"
    elif room == "domain" and top in PURE:
        return f"the domain is pure and has no use for {top}"
    return ""


def graph(package: Path) -> dict[str, set[str]]:
    """Which module of the package imports which when it is itself imported."""
    files = {module_name(package, path): path for path in package.rglob("*.py")}
    edges: dict[str, set[str]] = {}
    for module, path in files.items():
        names = set(imports(at_import_time(ast.parse(path.read_text()))))
        targets = {name if name in files else name.rpartition(".")[0] for name in names}
        edges[module] = {target for target in targets if target in files and target != module}
    return edges


def at_import_time(tree: ast.Module) -> ast.Module:
    """The tree without what runs later or never: functions, `if TYPE_CHECKING`."""

    class Strip(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.AST) -> None:
            return None

        visit_AsyncFunctionDef = visit_FunctionDef

        def visit_If(self, node: ast.If) -> ast.AST:
            if ast.unparse(node.test).endswith("TYPE_CHECKING"):
                return ast.Pass()
            self.generic_visit(node)
            return node

    return Strip().visit(tree)


def cycle(edges: dict[str, set[str]]) -> list[str]:
    """Some cycle of imports, or nothing."""
    done: set[str] = set()

    def walk(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for target in sorted(edges.get(node, ())):
            if found := walk(target, [*path, node]):
                return found
        done.add(node)
        return []

    for start in sorted(edges):
        if found := walk(start, []):
            return found
    return []


def test_imports_point_downward() -> None:
    assert violations(PACKAGE) == []


def test_no_cycles() -> None:
    assert cycle(graph(PACKAGE)) == []


def test_inits_only_re_export() -> None:
    """`__init__.py` holds a docstring, imports, `__all__` and, at the top, a lazy `__getattr__`."""
    for path in PACKAGE.rglob("__init__.py"):
        kinds = {type(node) for node in ast.parse(path.read_text()).body}
        assert not kinds & {ast.ClassDef, ast.AsyncFunctionDef, ast.For, ast.While}, path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    package = tmp_path / "sublet"
    for room in ("domain", "drivers", "engine", "api/native", "api/ec2", "cli", "sdk"):
        (package / room).mkdir(parents=True)
    return package


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("domain/size.py", "from sublet.drivers import run"),
        ("domain/size.py", "import asyncio"),
        ("drivers/cgroup.py", "import sublet.engine.instances"),
        ("drivers/cgroup.py", "import subprocess"),
        ("drivers/cgroup.py", "from subprocess import run"),
        ("drivers/cgroup.py", "def late():\n    from sublet.api import native"),
        ("engine/images.py", "from sublet.cli import main"),
        ("engine/images.py", "from sublet import daemon"),
        ("cli/main.py", "from sublet.engine import instances"),
        ("sdk/client.py", "from sublet.drivers import store"),
        ("api/ec2/routes.py", "from sublet.api.native import render"),
        ("engine/images.py", "import sublet\n\nsublet.run('a')"),
        ("cellar/wine.py", ""),
        ("__init__.py", "from sublet.engine import instances"),
    ],
)
def test_the_checker_finds(tree: Path, path: str, code: str) -> None:
    file = tree / path
    file.parent.mkdir(exist_ok=True)
    file.write_text(code)
    assert len(violations(tree)) == 1


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("drivers/run.py", "import subprocess\nimport asyncio"),
        ("daemon.py", "from sublet.api import native\nfrom sublet.engine import instances"),
        ("api/ec2/routes.py", "from sublet.api.ec2 import render\nfrom sublet.domain import size"),
        ("api/ec2/routes.py", "import sublet\n\nprint(sublet.__version__)"),
        ("cli/main.py", "import sublet.sdk.client"),
        ("cli/daemon.py", "def main():\n    from sublet.daemon import serve"),
    ],
)
def test_the_checker_permits(tree: Path, path: str, code: str) -> None:
    (tree / path).write_text(code)
    assert violations(tree) == []


def test_the_checker_finds_cycles(tree: Path) -> None:
    (tree / "domain/a.py").write_text("from sublet.domain import b")
    (tree / "domain/b.py").write_text("from sublet.domain.c import x")
    (tree / "domain/c.py").write_text("import sublet.domain.a")
    assert [name[-1] for name in cycle(graph(tree))] == ["a", "b", "c", "a"]
    (tree / "domain/c.py").write_text("def later():\n    import sublet.domain.a")
    assert cycle(graph(tree)) == []
