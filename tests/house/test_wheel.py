"""What users install: a wheel with every portion, its data files and entry points that lead somewhere."""

from __future__ import annotations

import configparser
import importlib
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def build(kind: str, source: Path, target: Path) -> Path:
    """Run the build backend on its own: no isolation, hence no network."""
    script = f"import sys, hatchling.build as b; print(b.build_{kind}(sys.argv[1]))"
    command: Sequence[str] = [sys.executable, "-c", script, str(target)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return target / done.stdout.splitlines()[-1]


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_every_file_of_every_portion_and_nothing_else(wheel: Path) -> None:
    portions = {
        str(path.relative_to(room.parent))
        for room in ROOT.glob("*/headrace")
        for path in room.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names_in(wheel) == portions


@pytest.mark.parametrize(
    "pattern",
    [
        "headrace/contracts/py.typed",
        "headrace/results_store/migrations/env.py",
        "headrace/results_store/migrations/script.py.mako",
        "headrace/results_store/migrations/versions/*.py",
        "headrace/reporting/base.html.j2",
        "headrace/reporting/report.css",
        "headrace/compression/report/page.html.j2",
        "headrace/cli/demo/data/digits.npz",
        "headrace/cli/demo/data/ATTRIBUTION.md",
        "headrace/cli/demo/data/models/digits/*/model.toml",
        "headrace/cli/demo/data/models/digits/*/model.onnx",
    ],
)
def test_the_wheel_holds_its_data_files(wheel: Path, pattern: str) -> None:
    assert [name for name in names_in(wheel) if Path(name).match(pattern)] != []


def test_the_wheel_states_its_license(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        assert "License-Expression: Apache-2.0" in archive.read(metadata).decode()
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())


def test_every_entry_point_leads_to_something(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        parser = configparser.ConfigParser(delimiters="=")
        parser.read_string(archive.read(name).decode())
    for section in parser.sections():
        for target in parser[section].values():
            module, _, attribute = target.partition(":")
            assert hasattr(importlib.import_module(module), attribute), target


def test_a_wheel_built_from_the_source_archive_is_the_same(wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(build("sdist", ROOT, tmp_path)) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert names_in(build("wheel", source, tmp_path)) == names_in(wheel)
    for needed in ("LICENSE", "Makefile", "constraints.txt", "README.md", "tests/conftest.py"):
        assert (source / needed).is_file(), needed
