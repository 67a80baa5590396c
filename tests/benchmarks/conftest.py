"""The parts of the online benchmark as modules; `benchmarks/` is no package, a script's folder is its import path."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("bench", "measure", "plan", "report", "tries"):
        importlib.import_module(f"online_parts.{name}")
    yield sys.modules["online_parts"]
    for name in [name for name in sys.modules if name.startswith("online_parts")]:
        del sys.modules[name]
