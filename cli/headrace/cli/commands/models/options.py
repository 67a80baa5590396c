"""The options of `headrace models add`, in groups."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
import typer

from headrace.cli.terminal.options import listed
from headrace.contracts.errors import PackageError
from headrace.contracts.package.image_recipe import IMAGENET, ImageDecode

#: Under this heading `--help` lists the options that decide which requests share a run.
_ROWS: Final = "Rows and batches"


@dataclass(frozen=True)
class PackageOptions:
    """Names of the package, and the outputs it keeps."""

    name: Annotated[str | None, typer.Option(show_default="name of the file, or on the server", help="Model name.")] = (
        None
    )
    version: Annotated[str | None, typer.Option(show_default="the next number", help="Version of the package.")] = None
    labels: Annotated[
        str,
        typer.Option(
            metavar="A,B,C",
            show_default="those in the file",
            help="Class names, comma-separated, in the output's order.",
        ),
    ] = ""
    forbid_nan: Annotated[bool, typer.Option("--forbid-nan", help="Refuse inputs with NaN or infinity.")] = False
    store: Annotated[
        Literal["json", "binary"] | None,
        typer.Option(show_default="by size", help="How outputs are stored: json, readable in SQL, or binary, exact."),
    ] = None
    keep: Annotated[
        str, typer.Option(metavar="A,B", show_default="all", help="Outputs to store and return; others are dropped.")
    ] = ""
    decode: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INPUT=RECIPE",
            show_default=False,
            help='How bulk jobs make an input of images: imagenet, or JSON such as image={"resize": [28, 28]}.',
        ),
    ] = None
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            show_default=False,
            help="The tokenizer.json by which bulk jobs make inputs of text.",
        ),
    ] = None

    @property
    def recipes(self) -> dict[str, ImageDecode]:
        """Input → recipe, as in `--decode`; the input is "" where it was left out. Raises typer.BadParameter."""
        found = {}
        for pair in self.decode or []:
            name, _, text = ("", "", pair) if pair.startswith("{") or "=" not in pair else pair.partition("=")
            try:
                found[name.strip()] = IMAGENET if text == "imagenet" else msgspec.json.decode(text, type=ImageDecode)
            except (msgspec.MsgspecError, PackageError) as exc:
                raise typer.BadParameter(
                    f"{text!r} is no recipe ({exc}); give imagenet, or JSON with the fields of [inputs.decode]",
                    param_hint="--decode",
                ) from None
        return found


@dataclass(frozen=True)
class BatchOptions:
    """Batches of the model, and its rows where the trial needs help to find them."""

    max_rows: Annotated[
        int | None,
        typer.Option(
            min=1, rich_help_panel=_ROWS, show_default="64, or the server's limit", help="Maximum rows per batch."
        ),
    ] = None
    max_wait_ms: Annotated[
        float,
        typer.Option(min=0, rich_help_panel=_ROWS, help="Longest wait of a request for others to share its batch."),
    ] = 2.0
    rows_at: Annotated[
        str,
        typer.Option(
            metavar="TENSOR=AXIS,…",
            rich_help_panel=_ROWS,
            show_default="found by trial",
            help="Dimension that holds the rows, counted from 0.",
        ),
    ] = ""
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            rich_help_panel=_ROWS,
            metavar="INPUT=JSON",
            show_default=False,
            help="Fix an input, such as sr=16000; repeatable.",
        ),
    ] = None
    row_sizes: Annotated[
        str,
        typer.Option(
            metavar="N,N",
            rich_help_panel=_ROWS,
            show_default="as in the file",
            help="Batch sizes that the model can run, in rows; others are padded to the next one.",
        ),
    ] = ""
    alone: Annotated[
        bool | None,
        typer.Option(
            "--alone/--batch",
            rich_help_panel=_ROWS,
            show_default="by trial",
            help="Run each request alone, or let requests share a batch.",
        ),
    ] = None
    sample: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=_ROWS,
            exists=True,
            dir_okay=False,
            help="Real inputs for the trial: .npz, or JSON.",
        ),
    ] = None

    @property
    def axes(self) -> dict[str, int]:
        """Tensor → dimension of its rows, as in `--rows-at`. Raises typer.BadParameter."""
        found: dict[str, int] = {}
        for pair in listed(self.rows_at):
            name, _, axis = pair.rpartition("=")
            if not name.strip() or not axis.strip().isdecimal():
                raise typer.BadParameter(f"{pair!r} is not TENSOR=AXIS, such as state=1", param_hint="--rows-at")
            found[name.strip()] = int(axis)
        return found

    @property
    def sizes(self) -> list[int]:
        """Row counts in `--row-sizes`, in order. Raises typer.BadParameter."""
        wrong = [part for part in listed(self.row_sizes) if not part.isdecimal() or int(part) < 1]
        if wrong:
            raise typer.BadParameter(f"{wrong[0]!r} is not a number of rows, such as 8", param_hint="--row-sizes")
        return sorted({int(part) for part in listed(self.row_sizes)})

    @property
    def constants(self) -> dict[str, Any]:
        """Input → value, as in `--set`. Raises typer.BadParameter."""
        found: dict[str, Any] = {}
        for pair in self.values or []:
            name, equals, value = pair.partition("=")
            if not equals or not name.strip():
                raise typer.BadParameter(f"{pair!r} is not INPUT=JSON, such as sr=16000", param_hint="--set")
            try:
                found[name.strip()] = msgspec.json.decode(value)
            except msgspec.DecodeError:
                # Text needs no quotes, which a shell would take away.
                found[name.strip()] = value
        return found
