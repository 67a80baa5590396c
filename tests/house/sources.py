"""The source of the rooms as the house tests see it: modules, their imports, and the circles among them."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = sorted(path.parent.name for path in ROOT.glob("*/headrace"))

Graph = Mapping[str, set[str]]


@dataclass(frozen=True)
class Module:
    """A module of a room: its dotted name within the room, its file, its parsed source."""

    name: str
    path: Path
    tree: ast.Module

    def at(self, node: ast.AST) -> str:
        """Return where a node is, as an editor opens it."""
        return f"{self.path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


@cache
def modules(room: str) -> tuple[Module, ...]:
    """Return every module of a room; a folder's `__init__` goes by the folder's name, the room's own by ""."""
    top = ROOT / room / "headrace" / room
    found = []
    for path in sorted(top.rglob("*.py")):
        parts = path.relative_to(top).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append(Module(name, path, ast.parse(path.read_text("utf-8"))))
    return tuple(found)


def _imported(tree: ast.Module, known: Mapping[str, str]) -> Iterator[str]:
    """Yield every known module imported anywhere in another: under TYPE_CHECKING and within functions as well."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                # `from package import module` and `from module import name` look the same.
                name = f"{node.module}.{alias.name}"
                found = name if name in known else node.module
                if found in known:
                    yield found


def module_imports(room: str) -> Graph:
    """Return which modules of a room each of its modules imports."""
    known = {f"headrace.{room}.{module.name}".rstrip("."): module.name for module in modules(room)}
    return {
        module.name: {known[name] for name in _imported(module.tree, known)} - {module.name} for module in modules(room)
    }


def folder_imports(room: str) -> Graph:
    """Return which parts of a room (its top-level folders and modules) each of its parts imports."""
    graph: dict[str, set[str]] = {}
    for name, imported in module_imports(room).items():
        part = name.partition(".")[0]
        graph.setdefault(part, set()).update({other.partition(".")[0] for other in imported} - {part})
    return graph


def circles(graph: Graph) -> list[list[str]]:
    """Return the groups of nodes that reach each other (strongly connected components of two or more; Tarjan 1972)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        order[node] = lowest[node] = len(order)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in order:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in stack:
                lowest[node] = min(lowest[node], order[other])
        if lowest[node] == order[node]:
            start = stack.index(node)
            group = sorted(stack[start:])
            del stack[start:]
            if len(group) > 1:
                found.append(group)

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return found
