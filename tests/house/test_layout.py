"""The house: thirteen portions of one namespace package, each known to the build and the linters."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ROOMS = [
    "bulk",
    "cli",
    "compression",
    "contracts",
    "gateway",
    "lifecycle",
    "producers",
    "queueing",
    "reporting",
    "results_store",
    "runtimes",
    "testing",
    "workers",
]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())


#: What a newcomer expects at the root, and nothing else; files that git ignores don't count.
ROOT_FILES = {
    ".dockerignore",
    ".env.example",
    ".gitignore",
    ".pre-commit-config.yaml",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Dockerfile",
    "LICENSE",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "constraints.txt",
    "docker-compose.yml",
    "pyproject.toml",
}
ROOT_FOLDERS = {".ci", "benchmarks", "deploy", "docs", "examples", "tests", *ROOMS}


def test_the_root_holds_what_a_newcomer_expects_and_nothing_else() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [Path(name) for name in listed.split("\0") if name]
    assert {path.parts[0] for path in paths if len(path.parts) > 1} == ROOT_FOLDERS
    assert {path.name for path in paths if len(path.parts) == 1} == ROOT_FILES


def test_every_folder_with_a_portion_is_a_known_room() -> None:
    assert sorted(path.parent.name for path in ROOT.glob("*/headrace")) == ROOMS


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_a_portion_of_the_namespace_and_typed(room: str) -> None:
    portion = ROOT / room / "headrace"
    # With an __init__.py in either, one portion would hide the others, and `compression` would hide Python's own.
    assert not (ROOT / room / "__init__.py").exists()
    assert not (portion / "__init__.py").exists()
    assert [path.name for path in portion.iterdir() if path.name != "__pycache__"] == [room]
    assert (portion / room / "__init__.py").is_file()
    assert (portion / room / "py.typed").is_file()


def test_every_tool_knows_every_room() -> None:
    tool = PYPROJECT["tool"]
    assert sorted(tool["hatch"]["build"]["dev-mode-dirs"]) == ROOMS
    assert sorted(tool["hatch"]["build"]["targets"]["wheel"]["packages"]) == [f"{room}/headrace" for room in ROOMS]
    assert sorted(tool["mypy"]["mypy_path"]) == ROOMS
    # Given the namespace's name alone, mypy would look at its first portion and no other.
    assert sorted(tool["mypy"]["packages"]) == [*(f"headrace.{room}" for room in ROOMS), "tests"]
    assert sorted(tool["ruff"]["src"]) == ROOMS
    layers = " ".join(tool["importlinter"]["contracts"][0]["layers"])
    assert sorted(re.findall(r"headrace\.(\w+)", layers)) == ROOMS


def test_every_room_has_an_order_inside() -> None:
    inside = [contract for contract in PYPROJECT["tool"]["importlinter"]["contracts"] if "containers" in contract]
    assert sorted({container.split(".")[1] for contract in inside for container in contract["containers"]}) == ROOMS


def test_imports_follow_the_layers_of_the_rooms_and_inside_them() -> None:
    command = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_tests_are_no_packages() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_the_base_installs_no_model_runtime() -> None:
    heavy = re.compile(r"(onnx|torch|pyarrow|scikit-learn|tensor)", re.IGNORECASE)
    assert [line for line in PYPROJECT["project"]["dependencies"] if heavy.match(line)] == []
    extras = PYPROJECT["project"]["optional-dependencies"]
    assert [line for name in ("worker", "local", "dev") for line in extras[name] if line.startswith("torch")] == []


def test_the_pre_commit_hooks_are_all_local_and_need_no_network() -> None:
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in repos] == ["local"]
    assert {hook["language"] for hook in repos[0]["hooks"]} <= {"system", "unsupported", "pygrep", "fail"}
    done = subprocess.run(
        [sys.executable, "-m", "pre_commit", "validate-config"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
