"""The benchmark of compression runs, reports what it promises, and knows a target that was missed."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("searches", "tables", "targets"):
        importlib.import_module(f"compression_parts.{name}")
    yield sys.modules["compression_parts"]
    for name in [name for name in sys.modules if name.startswith("compression_parts")]:
        del sys.modules[name]


def search(*, ratio: float = 4.5, drop: float = 0.0, size: float = 9.0, wrong: int = 0) -> dict[str, Any]:
    """Make up what a search found that chose its only recipe."""
    evaluation = {"metric": "accuracy", "value": 0.99, "low": 0.98, "high": 1.0, "rows": 1000}
    lost = {"drop": drop, "drop_low": drop - 0.001, "drop_high": drop + 0.001}
    recipe = {
        "recipe": "int8-static",
        "verdict": "pays",
        "pays": True,
        "status": "measured",
        "time_ratio": {"median": ratio, "low": ratio - 0.1, "high": ratio + 0.1},
        "size_ratio": size,
        "selection": {**evaluation, **lost},
        "test": {**evaluation, **lost},
    }
    failed = {"recipe": "fp16", "verdict": "not applicable: no", "pays": False, "status": "not applicable"}
    return {
        "original": {"bytes": 1000, "test": {**evaluation, "drop": None, "drop_low": None, "drop_high": None}},
        "at_rows": 64,
        "chosen": "int8-static",
        "recipes": [recipe, failed],
        "wrongly_promoted": ["int8-static"] * wrong,
    }


def marks(parts: ModuleType, sections: dict[str, Any]) -> dict[str, str]:
    return {f"{each.section} {each.what}": each.mark for each in parts.targets.targets(sections)}


def test_figures_beyond_the_aim_and_between_it_and_what_must_be_are_told_apart(parts: ModuleType) -> None:
    assert marks(parts, {"digits": search(), "mnist": search(ratio=2.5, size=3.5)}) == {
        "digits best of the front, time at 64 rows": "aim reached",
        "digits accuracy gained, or lost if negative": "met",
        "digits times as small": "aim reached",
        "mnist best of the front, time at 64 rows": "met",
        "mnist accuracy gained, or lost if negative": "met",
        "mnist times as small": "met",
        "all promoted though slower or out of bounds, negative": "met",
    }


@pytest.mark.parametrize(
    ("found", "missed"),
    [
        (search(ratio=1.9), "digits best of the front, time at 64 rows"),
        (search(drop=0.006), "digits accuracy gained, or lost if negative"),
        (search(size=2.9), "digits times as small"),
        (search(wrong=1), "all promoted though slower or out of bounds, negative"),
    ],
)
def test_each_target_can_be_missed(parts: ModuleType, found: dict[str, Any], missed: str) -> None:
    said = marks(parts, {"digits": found})
    assert [what for what, mark in said.items() if mark == "NOT MET"] == [missed]


def test_a_search_that_chose_nothing_misses_all_but_the_last(parts: ModuleType) -> None:
    nothing = {**search(), "chosen": ""}
    assert list(marks(parts, {"minilm": nothing}).values()) == ["NOT MET", "NOT MET", "met"]
    assert "chosen: none" in parts.tables.of_search("minilm", nothing)


def test_tables_name_every_recipe_and_figure(parts: ModuleType) -> None:
    table = parts.tables.of_search("digits", search())
    assert "int8-static" in table
    assert "4.40 to 4.60" in table
    assert "not applicable: no" in table
    assert "aim reached" in parts.tables.of_targets(parts.targets.targets({"digits": search()}))
    seed = {"seed": 0, "labels_same_epochs": 0.8, "labels_same_steps": 0.81, "distilled": 0.95, "gain": 14.0}
    assert "+14.0" in parts.tables.of_distillation({"seeds": [seed]})


def test_one_run_measures_and_writes_everything_it_says(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "compression.py"), "--tiny", "--only", "digits", "--json"]
    command += ["--output", str(tmp_path / "found/result.json"), "--folder", str(tmp_path / "kept")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    assert found == json.loads((tmp_path / "found/result.json").read_text("utf-8"))
    # Whether int8 is faster is this machine's affair; whether the exit code says so isn't.
    assert done.returncode == (not all(target["met"] for target in found["targets"])), done.stderr
    digits = found["sections"]["digits"]
    assert [recipe["recipe"] for recipe in digits["recipes"]] == ["int8-static"]
    assert digits["recipes"][0]["time_ratio"]["low"] <= digits["recipes"][0]["time_ratio"]["median"]
    assert digits["wrongly_promoted"] == []
    assert found["machine"]["packages"]["onnxruntime"]
