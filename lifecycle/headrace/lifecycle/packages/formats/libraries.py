"""The libraries that formats need, each brought by an extra of headrace."""

from __future__ import annotations

import importlib
from typing import Any

from headrace.contracts import PackageError


def library(name: str, extra: str) -> Any:
    """Import a library. Raises PackageError naming the extra that brings it."""
    try:
        return importlib.import_module(name)
    except ImportError as exc:
        state = "is not installed" if isinstance(exc, ModuleNotFoundError) else f"can't be loaded ({exc})"
        raise PackageError(f'this format needs {name}, which {state}; pip install "headrace[{extra}]"') from exc
