"""The structure of the code: packages, import circles, and who may name a task, an encoder or a data set.

`python -m tests.test_structure` prints its figures.
"""

from __future__ import annotations

import ast
import statistics
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

ROOT = Path(__file__).parents[1]
TREES = ("ponderv2", "ponder_cli")
KINDS_APART = {
    "tasks": tuple(path.parent.name for path in sorted(ROOT.glob("ponderv2/tasks/*/__init__.py"))),
    "encoder": ("sparse_unet", "image_backbone", "points_and_images"),
    "lift": ("densify", "projection", "volume_layers", "projected_sampling", "frustum_pooling", "fused"),
}
"""Parts of a package that only the package itself names: others ask their settings."""


@cache
def modules() -> dict[str, Path]:
    """Every module of the program by its dotted name."""
    paths = [path for tree in TREES for path in sorted((ROOT / tree).rglob("*.py"))]
    return {dotted(path): path for path in paths}


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported(node: ast.AST, known: dict[str, Path]) -> Iterator[str]:
    """Modules of the program that an import statement names."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in known)
    elif isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            whole = f"{node.module}.{alias.name}"
            if whole in known or node.module in known:
                yield whole if whole in known else node.module


def statements(tree: ast.Module) -> Iterator[ast.AST]:
    """All nodes, late imports in functions too, but for those that only type checkers see."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            waiting += ast.iter_child_nodes(node)


@cache
def import_graph() -> dict[str, frozenset[str]]:
    """What each module imports, at once or late."""
    known = modules()
    return {
        name: frozenset(
            other for node in statements(tree_of(path)) for other in imported(node, known) if other != name
        )
        for name, path in known.items()
    }


def circles(graph: dict[str, frozenset[str]]) -> list[list[str]]:
    """Modules that import each other: strongly connected components of more than one."""
    names = sorted(graph)
    number = {name: n for n, name in enumerate(names)}
    edges = [(number[name], number[other]) for name in names for other in graph[name]]
    rows, columns = zip(*edges, strict=True)
    matrix = coo_array((np.ones(len(edges)), (rows, columns)), shape=(len(names), len(names)))
    count, label = connected_components(matrix, directed=True, connection="strong")
    groups = [[name for name in names if label[number[name]] == one] for one in range(count)]
    return [group for group in groups if len(group) > 1]


def outsiders(package: str) -> list[str]:
    """Modules outside of a package that import one of its parts, anywhere."""
    known = modules()
    inside = tuple(f"ponderv2.{package}.{part}" for part in KINDS_APART[package])
    return sorted(
        f"{name} -> {other}"
        for name, path in known.items()
        if not name.startswith(f"ponderv2.{package}.")
        for node in ast.walk(tree_of(path))
        for other in imported(node, known)
        if other.startswith(inside)
    )


def figures() -> dict[str, float]:
    """What `docs` and reviews state about the structure."""
    lines = {name: len(path.read_text().splitlines()) for name, path in modules().items()}
    own = [n for n in lines.values() if n > 1]
    return {
        "source files": len(lines),
        "source lines": sum(lines.values()),
        "median lines": statistics.median(own),
        "longest file": max(own),
        "files under 60 lines": sum(n < 60 for n in own),
        "test files": len(list((ROOT / "tests").rglob("test_*.py"))),
        "import circles": len(circles(import_graph())),
        "files outside tasks/ that name a task": len(outsiders("tasks")),
        "files outside encoder/ that name an encoder": len(outsiders("encoder")),
    }


def test_modules_do_not_import_each_other_in_circles() -> None:
    assert circles(import_graph()) == []


def test_only_the_tasks_name_a_task() -> None:
    assert outsiders("tasks") == []


def test_only_the_encoders_name_an_encoder() -> None:
    assert outsiders("encoder") == []


def test_only_the_lifts_name_a_lift() -> None:
    assert outsiders("lift") == []


def test_every_package_has_its_place_in_the_import_contract() -> None:
    """import-linter checks the order; a package that is not listed would escape it."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(one["layers"] for one in contracts if one["type"] == "layers")
    listed = {name.strip() for layer in layers for name in layer.split("|")}
    there = {path.stem for path in (ROOT / "ponderv2").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert listed == there - {"__init__", "__pycache__"}


def test_files_hold_one_idea_each() -> None:
    """A mirror, not a target: a file of 100 to 400 lines is read in one sitting."""
    assert 90 <= figures()["median lines"] <= 250
    assert figures()["longest file"] <= 600


if __name__ == "__main__":
    for name, value in figures().items():
        print(f"{value:>8g}  {name}")  # noqa: T201
