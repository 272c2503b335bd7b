"""The house of docs/architecture.md: every module has its line, and imports what stands below it or to its right."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "experiments"
MODULES = {
    ".".join(part for part in file.relative_to(PACKAGE).with_suffix("").parts if part != "__init__"): file
    for file in PACKAGE.rglob("*.py")
}


def places() -> dict[str, tuple[int, int]]:
    """The line and the place in it of every module and folder of the list."""
    found, folder = {}, ""
    lines = (ROOT / "docs" / "architecture.md").read_text().splitlines()
    for number, line in enumerate(lines):
        if listed := re.match(r"( {4}| {8})((?:\w+(?:\.py|/) *)+)(?: {2}|$)", line):
            inner = f"{folder}." if len(listed[1]) == 8 else ""
            for place, name in enumerate(listed[2].split()):
                folder = name.removesuffix("/") if name.endswith("/") and not inner else folder
                found[inner + name.removesuffix("/").removesuffix(".py")] = number, place
    return found


PLACES = places()
PUBLIC = ("_exit", "_replace", "_target_")  # of `os`, of named tuples, of Hydra's configs


def folders(module: str) -> list[str]:
    """A module, and the folders that it is in, the innermost first."""
    parts = module.split(".")
    return [".".join(parts[:length]) for length in range(len(parts), 0, -1)]


def place(module: str) -> tuple[int, int] | None:
    """Of a module, or of the innermost folder of it that is in the list."""
    return next((PLACES[name] for name in folders(module) if name in PLACES), None)


def imported(node: ast.AST) -> Iterator[str]:
    """Our modules that code imports, also within functions, but not only for types."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.ImportFrom) and (child.module or "").partition(".")[0] == "experiments":
            module = (child.module or "").removeprefix("experiments").removeprefix(".")
            for name in child.names:
                inner = f"{module}.{name.name}".removeprefix(".")
                yield inner if inner in MODULES else module
        yield from imported(child)


def test_every_line_names_something() -> None:
    assert len(PLACES) > 40
    for name in PLACES:
        assert name in MODULES, name


@pytest.mark.parametrize("module", [module for module in sorted(MODULES) if not module.startswith("tracking.")])
def test_only_tracking_knows_mlflow(module: str) -> None:
    assert not re.search(r"^ *(import|from) mlflow", MODULES[module].read_text(), re.MULTILINE)


@pytest.mark.parametrize("module", sorted(set(MODULES) - {""}))
def test_imports_run_downward(module: str) -> None:
    here = place(module)
    assert here, "it is not in the list"
    for other in set(imported(ast.parse(MODULES[module].read_text()))) - {"", module}:
        there = place(other)
        assert there, other
        assert here < there or here == there, other


def test_the_rooms_are_few_and_stand_above_each_other() -> None:
    """Modules and folders at the top of the package, and the pairs of which one imports the other."""
    rooms = {module.partition(".")[0] for module in MODULES} - {""}
    pairs = {
        (module.partition(".")[0], other.partition(".")[0])
        for module, file in MODULES.items()
        for other in imported(ast.parse(file.read_text()))
        if module and other and module.partition(".")[0] != other.partition(".")[0]
    }
    assert len(rooms) <= 18
    assert len(pairs) <= 70
    assert not [pair for pair in pairs if pair[::-1] in pairs]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_files_and_functions_are_short(module: str) -> None:
    text = MODULES[module].read_text()
    assert text.count("\n") <= 250
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 45, node.name


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_private_parts_of_other_packages_are_used(module: str) -> None:
    """Names that begin with an underscore, of anything but an object of the class itself."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [*node.module.split("."), *(name.name for name in node.names)]
            assert not [name for name in names if re.match("_(?!_)", name)], ast.unparse(node)
        if isinstance(node, ast.Attribute) and re.match("_(?!_)", node.attr):
            owner = ast.unparse(node.value)
            assert owner in ("self", "cls") or node.attr in PUBLIC, ast.unparse(node)
