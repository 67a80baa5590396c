"""Tiny ONNX files, and the command line run in this process or as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from headrace.cli.main import main


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def line(self) -> str:
        """What stderr says, without the line breaks of a box."""
        return " ".join(self.err.replace("│", " ").split())


@pytest.fixture
def headrace(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Run a command as the console script does, but in this process."""

    def run(*words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["headrace", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        return Outcome(int(left.value.code or 0), out, err)

    return run


@pytest.fixture(scope="module")
def used_home() -> Iterator[Path]:
    """A folder that the stacks of one module share, so that only the first has to make a database."""
    with tempfile.TemporaryDirectory(prefix="headrace test ") as folder:
        yield Path(folder)


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder with a space in its path, in which commands run; no HEADRACE_* variable is set."""
    without_settings(monkeypatch)
    with tempfile.TemporaryDirectory(prefix="headrace test ") as folder:
        monkeypatch.chdir(folder)
        yield Path(folder)


@pytest.fixture
def shared_home(used_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As `home`, with the data that the tests of the module before left there."""
    without_settings(monkeypatch)
    monkeypatch.chdir(used_home)
    return used_home


def without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("HEADRACE_")]:
        monkeypatch.delenv(name)


def headrace_process(*words: object, **options: Any) -> subprocess.Popen[str]:
    """Start `headrace` as a process of its own."""
    command = [sys.executable, "-m", "headrace.cli", *map(str, words)]
    return subprocess.Popen(
        command, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


@pytest.fixture
def headrace_child() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `headrace` processes that don't outlive the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: object, **options: Any) -> subprocess.Popen[str]:
        started.append(headrace_process(*words, **options))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
        process.communicate()
