"""The base install is light, its extras bring what they promise, and what is missing is named with its remedy."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

STORE = ("alembic", "psycopg", "sqlalchemy")
CLI = ("rich", "typer")
#: What no extra but `worker` and those above it bring.
WORKER = ("celery", "onnx", "onnxruntime")

#: Imports and runs code as if some libraries were not installed.
WITHOUT = """
import sys
for name in sys.argv.pop(1).split(","):
    sys.modules[name] = None
"""


def run_without(libraries: tuple[str, ...], code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT + code, ",".join(libraries)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def name_of(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    assert found
    return found[0].lower()


def libraries(extra: str) -> set[str]:
    """Return what an extra installs beside the base, as named in pyproject.toml; extras that it includes as well."""
    found: set[str] = set()
    for requirement in PROJECT["optional-dependencies"][extra]:
        if included := re.fullmatch(r"headrace\[(.+)\]", requirement):
            found |= set().union(*map(libraries, included[1].split(",")))
        else:
            found.add(name_of(requirement))
    return found


def installed_with(library: str, seen: set[str]) -> set[str]:
    """Return a library and all that it requires."""
    name = library.replace("_", "-")
    if name in seen:
        return seen
    seen.add(name)
    try:
        lines = requires(name) or []
    except PackageNotFoundError:
        return seen
    for line in lines:
        if "extra ==" not in line:
            installed_with(name_of(line), seen)
    return seen


def test_the_base_brings_nothing_of_the_extras() -> None:
    base: set[str] = set()
    for requirement in PROJECT["dependencies"]:
        installed_with(name_of(requirement), base)
    assert base & {*STORE, *CLI, *WORKER, "psycopg-binary", "torch", "pyarrow"} == set()


@pytest.mark.parametrize("extra", ["worker", "local", "compress", "testing", "dev"])
def test_extras_that_run_workers_bring_the_store_and_the_command_line(extra: str) -> None:
    assert {*STORE, *CLI, *WORKER} <= libraries(extra)


def test_a_producer_works_without_the_extras() -> None:
    code = "import headrace.contracts, headrace.queueing, headrace.producers; headrace.producers.Client"
    done = run_without((*STORE, *CLI, *WORKER), code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("library", ["psycopg", "sqlalchemy"])
@pytest.mark.parametrize(
    "call",
    [
        "client.get('some-id')",
        "client.submit('m', {'x': [1.0]}, durable=True)",
    ],
)
def test_reading_rows_without_the_store_extra_names_it(library: str, call: str) -> None:
    code = f"""
from headrace.contracts import ConfigurationError, Settings
from headrace.producers import Client
with Client(Settings(broker_url="redis://127.0.0.1:1/0", database_url="postgresql://127.0.0.1:1/x")) as client:
    client._look = lambda model: None
    try:
        {call}
    except ConfigurationError as error:
        print(error)
"""
    done = run_without((library,), code)
    assert done.returncode == 0, done.stderr
    assert f"needs {library}, which is not installed" in done.stdout
    assert 'pip install "headrace[store]"' in done.stdout


@pytest.mark.parametrize("library", CLI)
def test_the_command_without_its_extra_is_one_line(library: str) -> None:
    done = run_without((library,), "from headrace.cli.__main__ import main; main()")
    assert done.returncode == 1
    assert done.stderr == f'error: {library} is not installed; run `pip install "headrace[cli]"`\n'


@pytest.mark.parametrize(
    ("library", "extra", "words"),
    [
        ("sqlalchemy", "store", ["store", "migrate"]),
    ],
)
def test_a_command_without_its_extra_is_one_line(library: str, extra: str, words: list[str]) -> None:
    code = f"""
import os
os.environ |= {{
    "HEADRACE_BROKER_URL": "redis://127.0.0.1:1/0", "HEADRACE_DATABASE_URL": "postgresql://127.0.0.1:1/x",
}}
sys.argv[1:] = {words}
from headrace.cli.__main__ import main
main()
"""
    done = run_without((library,), code)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert f'pip install "headrace[{extra}]"' in done.stderr


def test_the_project_names_where_users_find_what() -> None:
    assert {"Documentation", "Source", "Changelog", "Issues"} <= set(PROJECT["urls"])
