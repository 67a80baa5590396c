"""The inside of each room: small folders, imports in one direction, short functions, docstrings in plain English."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator

import pytest
from tests.house.sources import ROOMS, Module, circles, folder_imports, module_imports, modules

#: More than a reader takes in at a glance; the next module gets a folder.
MODULES_OF_A_LEVEL = 14
#: Docstring included: a function that fits on a screen.
LINES_OF_A_FUNCTION = 40

#: Docstrings that name a thing by what happens to it, instead of naming it.
FORBIDDEN_OPENINGS = re.compile(r"(Gives?|Says?|Tells?|What)\b")
FORBIDDEN_PHRASES = re.compile(r"\bso\s+many\b", re.IGNORECASE)


def documented(module: Module) -> Iterator[tuple[ast.AST, str]]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield node, text


@pytest.mark.parametrize("room", ROOMS)
def test_no_level_of_a_room_is_crowded(room: str) -> None:
    # Migrations are a list that grows with every release; its reader looks at the last.
    files = [path for path in (module.path for module in modules(room)) if "migrations" not in path.parts]
    levels = Counter(path.parent.name for path in files if path.name != "__init__.py")
    assert {level: count for level, count in levels.items() if count > MODULES_OF_A_LEVEL} == {}


@pytest.mark.parametrize("room", ROOMS)
def test_no_modules_of_a_room_import_each_other_in_a_circle(room: str) -> None:
    assert circles(module_imports(room)) == []


@pytest.mark.parametrize("room", ROOMS)
def test_no_folders_of_a_room_import_each_other_in_a_circle(room: str) -> None:
    assert circles(folder_imports(room)) == []


def test_a_circle_is_found_and_a_diamond_is_none() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()}) == []


@pytest.mark.parametrize("room", ROOMS)
def test_every_function_fits_on_a_screen(room: str) -> None:
    long = [
        f"{module.at(node)} {node.name}: {lines} lines"
        for module in modules(room)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > LINES_OF_A_FUNCTION
    ]
    assert long == []


@pytest.mark.parametrize("room", ROOMS)
def test_docstrings_name_what_they_describe(room: str) -> None:
    found = [
        f"{module.at(node)}: {text.splitlines()[0]}"
        for module in modules(room)
        for node, text in documented(module)
        if FORBIDDEN_OPENINGS.match(text) or FORBIDDEN_PHRASES.search(text)
    ]
    assert found == []
