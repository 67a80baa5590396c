"""A command takes a dataclass, and typer sees its fields."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from headrace.cli.terminal.option_groups import with_option_groups


@dataclass(frozen=True)
class Where:
    file: Annotated[Path, typer.Argument(help="File to read.")]
    depth: Annotated[int, typer.Option(min=1, help="Depth to go.")] = 3


@pytest.fixture
def seen() -> list[tuple[Where, bool]]:
    return []


@pytest.fixture
def app(seen: list[tuple[Where, bool]]) -> typer.Typer:
    app = typer.Typer()

    @app.command()
    @with_option_groups
    def look(where: Where, loud: Annotated[bool, typer.Option("--loud")] = False) -> None:
        """Look at a file."""
        seen.append((where, loud))

    return app


def test_fields_are_options_with_their_types_defaults_and_limits(
    app: typer.Typer, seen: list[tuple[Where, bool]]
) -> None:
    assert CliRunner().invoke(app, ["some/file", "--depth", "7", "--loud"]).exit_code == 0
    assert CliRunner().invoke(app, ["other"]).exit_code == 0
    assert seen == [(Where(Path("some/file"), 7), True), (Where(Path("other"), 3), False)]
    assert CliRunner().invoke(app, ["other", "--depth", "0"]).exit_code == 2
    assert CliRunner().invoke(app, []).exit_code == 2


def test_the_help_is_that_of_the_command_and_its_fields(app: typer.Typer) -> None:
    shown = CliRunner().invoke(app, ["--help"]).output
    assert all(text in shown for text in ("Look at a file.", "File to read.", "Depth to go."))
