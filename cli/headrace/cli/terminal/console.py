"""Output of commands: tables and lines for people, JSON for programs, errors on stderr."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

#: Tables that go into a file or a pipe are not squeezed into the 80 columns that rich assumes there.
_PIPE_COLUMNS: Final = 200

#: What is set to the right in a table: a number, or the mark of one that is missing.
_NUMBER: Final = re.compile(r"[\d,.]+|-")

#: The option of every command that prints data.
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def out() -> Console:
    """The console for data."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_COLUMNS)


def err() -> Console:
    """The console for errors and progress."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(line: str) -> None:
    """Print one line of progress for a person, on stderr."""
    err().print(Text(line))


def print_json(document: object) -> None:
    """Print a document of msgspec structs, dataclasses and plain values as indented JSON.

    NaN and infinity are the literals NaN, Infinity and -Infinity, as Python's json module writes them.
    """
    plain = msgspec.to_builtins(document, str_keys=True, enc_hook=_encode)
    typer.echo(json.dumps(plain, indent=2, ensure_ascii=False))


def _encode(value: Any) -> object:
    """Write what msgspec does not know by itself: numpy numbers and arrays, paths."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """Print rows under headings; numbers to the right. empty: the line to print when there are none."""
    cells = [[_cell(value) for value in row] for row in rows]
    if not cells:
        say(empty)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for index, column in enumerate(columns):
        numeric = all(_NUMBER.fullmatch(row[index]) for row in cells)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    out().print(table)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def print_fields(fields: Sequence[tuple[str, object]]) -> None:
    """Print names and values, one a line."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in fields:
        table.add_row(Text(name), Text(_cell(value)))
    out().print(table)


def read_json(text: str) -> object:
    """Read JSON that a person wrote, NaN and infinity as of `print_json`.

    Raises typer.BadParameter naming line and column.
    """
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as exc:
        raise typer.BadParameter(f"not JSON: {exc}") from None
