"""Imports go one way, so that a part can be read knowing only the parts below it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.tidy import house
from tests.tidy.house import BESIDE, LATE, LAYERS, PORTS, SEES_ONLY, Module

PLACES = {part for layer in LAYERS for part in layer} | set(PORTS)


def absolute(module: Module, node: ast.ImportFrom) -> str:
    """What `from x import` names in full; relative imports count up from the module's package."""
    if not node.level:
        return node.module or ""
    package = ["onefold", *module.path.relative_to(house.PACKAGE).parts[:-1]]
    base = package[: len(package) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


def imports(module: Module) -> Iterator[tuple[list[str], int, bool]]:
    """Every import of onefold's own modules: its dotted name in parts, its line, whether it runs late."""
    late = {
        id(inner)
        for outer in ast.walk(module.tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(outer, ast.If) and ast.unparse(outer.test).endswith("TYPE_CHECKING"))
        for inner in ast.walk(outer)
    }
    for node in ast.walk(module.tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{absolute(module, node)}.{alias.name}" for alias in node.names]
        for name in names:
            if name.split(".")[0] == "onefold":
                yield name.split(".")[1:], getattr(node, "lineno", 0), id(node) in late


def layer(part: str) -> int:
    return next(index for index, parts in enumerate(LAYERS) if part in parts)


def may_see(part: str, other: str, *, is_late: bool) -> bool:
    """Whether the table of the house lets a part import another."""
    if part == other or part == "":
        return True
    if other in PORTS:
        return part in PORTS[other]
    if other not in PLACES:  # a name of onefold/__init__.py, which stands above everything
        return part in LAYERS[-1]
    if part in PORTS:
        return layer(other) <= layer("protocols")
    if part in SEES_ONLY:
        return other in SEES_ONLY[part]
    if is_late and other in LATE.get(part, ()):
        return True
    return layer(other) < layer(part) or (part, other) in BESIDE


def test_every_part_has_a_place() -> None:
    parts = {module.part for module in house.source()} - {""}
    assert parts <= PLACES, "give it a line in LAYERS or PORTS (house.py) and in ARCHITECTURE.md"


def test_every_import_goes_down() -> None:
    wrong = []
    for module in house.source():
        for name, line, is_late in imports(module):
            other = name[0] if name else ""
            if module.part in {"", *PLACES} and not may_see(module.part, other, is_late=is_late):
                wrong.append(f"{module.name}:{line} {module.part} must not see {other or 'onefold itself'}")
    assert wrong == []


def test_connectors_do_not_see_each_other() -> None:
    wrong = []
    for module in house.source():
        own = module.inside.split("/")[1].removesuffix(".py") if module.part == "connectors" else ""
        if own and own != "__init__":
            others = {name[1] for name, _, _ in imports(module) if name[:1] == ["connectors"] and len(name) > 1}
            wrong += [f"{module.name} sees {other}" for other in others - {own} - house.CONNECTORS_SHARE]
    assert wrong == []


@pytest.mark.parametrize(
    ("part", "other", "is_allowed"),
    [
        ("epoch", "protocols", True),
        ("protocols", "epoch", False),
        ("epoch", "disk", False),
        ("journal", "disk", True),
        ("journal", "connectors", False),
        ("connectors", "engines", False),
        ("engines", "connectors", True),
        ("engines", "verify", False),
        ("guarantee", "epoch", False),
        ("audit", "epoch", False),
        ("audit", "engines", False),
        ("cli", "audit", True),
        ("disk", "journal", False),
    ],
)
def test_the_table_says_what_the_architecture_says(part: str, other: str, is_allowed: bool) -> None:
    assert may_see(part, other, is_late=False) is is_allowed


def test_a_late_import_is_allowed_only_where_listed() -> None:
    assert may_see("flow", "engines", is_late=True)
    assert not may_see("flow", "engines", is_late=False)
    assert not may_see("plan", "engines", is_late=True)
