"""The options of `headrace score`, in groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from headrace.producers.jobs.order import ScoreOptions

_COMPUTED: Final = "What is computed"
_RUN: Final = "How it is run"
_AGAIN: Final = "When the job is there already"


@dataclass(frozen=True)
class What:
    """Options on what is computed; part of the job's identity."""

    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="URI|store",
            show_default="INPUT-MODEL.scores",
            help="Folder or URI for the output; `store` for rows in Postgres.",
            rich_help_panel=_COMPUTED,
        ),
    ] = ""
    mapping: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="COLUMN=INPUT",
            show_default=False,
            help="Column for an input of the model, where names differ; repeatable.",
            rich_help_panel=_COMPUTED,
        ),
    ] = None
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            show_default=False,
            help="Column of the input to copy to the output; repeatable.",
            rich_help_panel=_COMPUTED,
        ),
    ] = None
    prefix: Annotated[str, typer.Option(help="Prefix of the output's columns.", rich_help_panel=_COMPUTED)] = ""
    limit: Annotated[int, typer.Option(min=0, show_default="all", help="Rows to score.", rich_help_panel=_COMPUTED)] = 0
    output_format: Annotated[
        str,
        typer.Option("--format", metavar="parquet|csv|jsonl", help="Format of the output.", rich_help_panel=_COMPUTED),
    ] = "parquet"
    input_format: Annotated[
        str,
        typer.Option(
            metavar="FORMAT",
            show_default="by name",
            help="Format of the input: parquet, csv, jsonl, arrow, npy, images, openai.",
            rich_help_panel=_COMPUTED,
        ),
    ] = ""
    on_null: Annotated[
        str,
        typer.Option(
            metavar="error|skip|fill=V", help="Rows with nulls: bad, left out or filled.", rich_help_panel=_COMPUTED
        ),
    ] = "error"
    truncate: Annotated[
        str,
        typer.Option(
            metavar="error|cut", help="Text longer than the model takes: bad or cut.", rich_help_panel=_COMPUTED
        ),
    ] = "error"
    version: Annotated[
        str, typer.Option(show_default="the one served", help="Model version.", rich_help_panel=_COMPUTED)
    ] = ""


@dataclass(frozen=True)
class How:
    """How the job is run. None: not given."""

    priority: Annotated[
        int | None,
        typer.Option(min=0, max=9, show_default="0", help="Priority; 9 goes first.", rich_help_panel=_RUN),
    ] = None
    weight: Annotated[
        float | None,
        typer.Option(show_default="1", help="Share of the workers among jobs of one priority.", rich_help_panel=_RUN),
    ] = None
    max_errors: Annotated[
        str | None,
        typer.Option(
            metavar="N|P%", show_default="no bound", help="Bad rows after which to stop.", rich_help_panel=_RUN
        ),
    ] = None
    workers: Annotated[
        int | None,
        typer.Option(min=0, show_default="all", help="Most worker processes at a time.", rich_help_panel=_RUN),
    ] = None
    max_rows_per_s: Annotated[
        float | None,
        typer.Option(min=0, show_default="no bound", help="Most rows a second.", rich_help_panel=_RUN),
    ] = None
    name: Annotated[str, typer.Option(show_default=False, help="Name to find the job by.", rich_help_panel=_RUN)] = ""


@dataclass(frozen=True)
class Again:
    """Options on what to do when the job is there already."""

    restart: Annotated[bool, typer.Option("--restart", help="Begin anew.", rich_help_panel=_AGAIN)] = False
    add_new: Annotated[
        bool, typer.Option("--add-new", help="Also score files that are new.", rich_help_panel=_AGAIN)
    ] = False
    keep_version: Annotated[
        bool,
        typer.Option("--keep-version", help="Go on with the version it was begun with.", rich_help_panel=_AGAIN),
    ] = False


def options_of(what: What, how: How, again: Again, *, dry_run: bool) -> ScoreOptions:
    """Return the options of `Client.score` that a command line gives. Raises typer.BadParameter."""
    given: dict[str, Any] = {name: value for name, value in vars(how).items() if value is not None}
    given |= {name: True for name, value in vars(again).items() if value}
    given |= {name: value for name, value in vars(what).items() if name not in {"output", "output_format", "mapping"}}
    given["keep"] = what.keep or ()
    given["format"] = what.output_format
    given["mapping"] = dict(map(_pair, what.mapping or ()))
    if dry_run:
        given["dry_run"] = True
    options: ScoreOptions = given  # type: ignore[assignment]
    return options


def _pair(text: str) -> tuple[str, str]:
    column, equals, name = text.rpartition("=")
    if not equals or not column or not name:
        raise typer.BadParameter(f"{text!r} is not COLUMN=INPUT", param_hint="--map")
    return column, name
