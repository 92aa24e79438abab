"""The shape of the code: imports point strictly down, nothing goes round in circles, files stay small."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "flyweight"

#: Top to bottom. Areas on one line do not import each other.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("cli",),
    ("serving",),
    ("planning",),
    ("bundle", "parallel", "report"),
    ("pruning", "quantization"),
    ("engines",),
    ("rewrite",),
    ("tables",),
    ("distillation",),
    ("graph", "zoo", "cost", "quality"),
    ("task",),
    ("errors",),
)
FLOOR = {area: len(LAYERS) - floor for floor, areas in enumerate(LAYERS) for area in areas}
FILES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def area_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports_of(path: Path, *, at_import: bool = False) -> set[str]:
    """Modules of flyweight that a file imports, anywhere in it or at import time, but for annotations only."""
    tree = ast.parse(path.read_text())
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in tree.body if at_import else ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("flyweight"):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if module_file(name) else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("flyweight")}
    return found


def module_file(module: str) -> Path | None:
    path = SOURCE.parent / Path(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.exists():
            return candidate
    return None


def test_every_area_has_a_layer() -> None:
    assert {area_of(path) for path in FILES} <= set(FLOOR)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down(path: Path) -> None:
    own = area_of(path)
    for module in imports_of(path):
        parts = module.split(".")
        if len(parts) == 1 or parts[1] == own or parts[1].startswith("_"):
            continue
        assert FLOOR[parts[1]] < FLOOR[own], f"{path.relative_to(SOURCE)} ({own}) imports {module}, not below it"


def test_no_file_is_on_a_circle() -> None:
    graph = {path: {file for m in imports_of(path) if (file := module_file(m)) in FILES} for path in FILES}
    done: set[Path] = set()

    def visit(path: Path, trail: tuple[Path, ...]) -> None:
        assert path not in trail, " -> ".join(str(p.relative_to(SOURCE)) for p in (*trail, path))
        if path not in done:
            for below in graph[path]:
                visit(below, (*trail, path))
            done.add(path)

    for path in FILES:
        visit(path, ())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_is_one_idea(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400
    assert path.stem not in {"utils", "helpers", "common", "misc", "base"}


def test_serving_path_never_imports_torch() -> None:
    """What `fw.load` reaches at import time is free of PyTorch, SciPy, the exporter and matplotlib."""
    heavy = {"torch", "scipy", "onnxscript", "matplotlib", "jinja2", "polars", "openvino"}
    start = [module_file("flyweight.bundle.load")]
    seen: set[Path] = set()
    while start:
        path = start.pop()
        if path is None or path in seen:
            continue
        seen.add(path)
        for node in ast.parse(path.read_text()).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & heavy, f"{path.relative_to(SOURCE)} imports {names}"
        start += [module_file(module) for module in imports_of(path, at_import=True)]
