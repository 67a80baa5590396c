"""`headrace score`: what is refused before anything is started, and with which exit code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["-"], "standard input"),
        (["a.csv", "--map", "image"], "COLUMN=INPUT"),
        (["a.csv", "--max-errors", "many"], "max_errors"),
        (["a.csv", "--on-null", "drop"], "on_null"),
        (["a.csv", "--format", "xml"], "format"),
        (["a.csv", "--priority", "12"], "priority"),
        (["folder", "--output", "folder/out"], "choose another --output"),
        (["a.csv", "--restart", "--add-new"], "restart"),
        ([], "INPUT"),
    ],
)
def test_misuse_is_said_before_anything_is_started(home: Path, headrace: Run, words: list[str], reason: str) -> None:
    found = headrace("score", "digits", *words)
    assert found.code == 2
    assert reason in found.line
    assert not (home / ".headrace").exists()


def test_a_model_that_is_not_here_starts_no_stack(home: Path, headrace: Run) -> None:
    found = headrace("score", "digits", "a.csv")
    assert found.code == 1
    assert "there is no model 'digits'" in found.line
    assert not (home / ".headrace").exists()


def test_a_job_is_not_left_to_a_stack_that_ends_with_the_command(home: Path, headrace: Run) -> None:
    found = headrace("score", "digits", "a.csv", "--detach")
    assert found.code == 2
    assert "headrace up" in found.line


def test_jobs_without_a_stack_say_how_to_start_one(home: Path, headrace: Run) -> None:
    found = headrace("jobs", "list")
    assert found.code == 1
    assert "headrace up" in found.line


def test_help_reads_well(headrace: Run) -> None:
    found = headrace("score", "--help")
    assert found.code == 0
    for part in ("What is computed", "How it is run", "When the job is there already", "INPUT-MODEL.scores"):
        assert part in found.out
    assert headrace("jobs", "--help").code == 0
