"""Real sentences: the prose of docstrings in Python's standard library and in packages that are here anyway."""

from __future__ import annotations

import ast
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]

#: Their docstrings are read in this order until there are enough sentences; what is not installed is left out.
PACKAGES = ("numpy", "sklearn", "scipy", "torch", "onnx", "celery", "sqlalchemy", "psycopg", "redis", "pandas")
SEED = 0


def docstrings(folder: Path) -> Iterator[str]:
    """Yield the docstrings of all modules below a folder, in the order of their paths."""
    for file in sorted(folder.rglob("*.py")):
        parts = file.relative_to(folder).parts
        if "site-packages" in parts or "test" in parts or "tests" in parts:
            continue
        try:
            tree = ast.parse(file.read_text("utf-8"))
        except (SyntaxError, UnicodeDecodeError, ValueError, RecursionError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node)
                if text:
                    yield text


def folders() -> Iterator[Path]:
    """Yield the folders of code whose docstrings are read."""
    yield Path(sysconfig.get_paths()["stdlib"])
    for name in PACKAGES:
        found = importlib.util.find_spec(name)
        if found is not None and found.origin is not None:
            yield Path(found.origin).parent


def sentences(count: int) -> list[str]:
    """Return different sentences, in an order that has nothing to do with where they come from.

    Raises SystemExit when there are fewer than wanted.
    """
    sys.path.insert(0, str(ROOT / "examples/minilm"))
    from prepare import sentences_of, texts  # type: ignore[import-not-found]

    found: dict[str, None] = {}
    for text in texts():
        found.update(dict.fromkeys(sentences_of(text)))
    for folder in folders():
        if len(found) >= count:
            break
        for text in docstrings(folder):
            found.update(dict.fromkeys(sentences_of(text)))
    if len(found) < count:
        raise SystemExit(f"there are {len(found)} sentences here, not {count}; install more packages with docstrings")
    order = np.random.default_rng(SEED).permutation(len(found))[:count]
    every = list(found)
    return [every[number] for number in order]
