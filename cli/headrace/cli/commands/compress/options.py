"""The options of `headrace compress`, in groups."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from headrace.cli.terminal.options import listed

_GOAL: Final = "Goal"
_SEARCH: Final = "Search"
_NAMES: Final = "Names"

#: `--threads` of the commands that run the model.
Threads = Annotated[
    int | None, typer.Option(min=1, metavar="N", show_default="HEADRACE_THREADS", help="Threads of the model.")
]


@dataclass(frozen=True)
class ModelOptions:
    """The model and its data."""

    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            show_default=False,
            help="ONNX file, model of the model folder (NAME or NAME@VERSION), or module:factory of a torch network.",
        ),
    ]
    data: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            show_default=False,
            help="Data file: .npz, .csv, .parquet, .jsonl or .npy.",
        ),
    ]
    test: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            show_default="30 % of --data",
            help="Held-out test rows, used for the final figures only.",
        ),
    ] = None
    label: Annotated[str | None, typer.Option(metavar="COLUMN", help="Label column.")] = None
    network: Annotated[
        str,
        typer.Option(
            metavar="module:factory",
            help="Torch network that a package was exported from; needed to prune, distill or fine-tune it.",
        ),
    ] = ""
    name: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            show_default="name of the file or factory",
            help="Model name, for files and networks.",
            rich_help_panel=_NAMES,
        ),
    ] = ""
    outputs: Annotated[
        str, typer.Option(metavar="A,B", help="Output names of a torch network.", rich_help_panel=_NAMES)
    ] = ""
    labels: Annotated[
        str,
        typer.Option(
            metavar="A,B,C", help="Class names, comma-separated; for files and networks.", rich_help_panel=_NAMES
        ),
    ] = ""


@dataclass(frozen=True)
class GoalOptions:
    """The gain that is wanted, and the loss that is allowed for it."""

    metric: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default="depends on the outputs",
            help="Metric: accuracy, balanced-accuracy, f1, auc, rmse, mae, r2, agreement or cosine.",
            rich_help_panel=_GOAL,
        ),
    ] = None
    output: Annotated[
        str | None, typer.Option(metavar="NAME", help="Output to compute the metric of.", rich_help_panel=_GOAL)
    ] = None
    max_drop: Annotated[
        str,
        typer.Option(
            metavar="DROP",
            help="Largest allowed loss: percentage points of a score, per cent of an error.",
            rich_help_panel=_GOAL,
        ),
    ] = "0.5%"
    min_speedup: Annotated[
        float,
        typer.Option(
            min=1,
            metavar="TIMES",
            help="Smallest speed-up worth promoting, unless the model is smaller and no slower.",
            rich_help_panel=_GOAL,
        ),
    ] = 1.1
    at_rows: Annotated[
        int, typer.Option(min=1, metavar="N", help="Batch size to optimize for, in rows.", rich_help_panel=_GOAL)
    ] = 64
    runtime: Annotated[
        Literal["onnxruntime", "openvino", "litert", "torch", "tensorrt", "tvm"] | None,
        typer.Option(
            "--for",
            metavar="RUNTIME",
            show_default="onnxruntime",
            help="Runtime to serve with: onnxruntime, openvino, litert, torch, tensorrt or tvm.",
            rich_help_panel=_GOAL,
        ),
    ] = None


@dataclass(frozen=True)
class SearchOptions:
    """The recipes to try, and how they are tried and reported."""

    recipe: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Recipe to try; repeatable. `headrace compress recipes` lists them.",
            rich_help_panel=_SEARCH,
        ),
    ] = None
    search: Annotated[
        bool,
        typer.Option("--search", help="Try all recipes that apply; the default.", rich_help_panel=_SEARCH),
    ] = False
    exclude: Annotated[
        str,
        typer.Option(
            metavar="NODES",
            help="Nodes or operators to leave unquantized, such as /head/*,Softmax.",
            rich_help_panel=_SEARCH,
        ),
    ] = ""
    threads: Threads = None
    seed: Annotated[int, typer.Option(metavar="N", help="Random seed.", rich_help_panel=_SEARCH)] = 0
    seconds: Annotated[
        float,
        typer.Option(
            min=0, metavar="S", help="Seconds to time each recipe, for each batch size.", rich_help_panel=_SEARCH
        ),
    ] = 1.5
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            file_okay=False,
            show_default="beside the attempts",
            help="Folder for report.html and report.json.",
            rich_help_panel=_SEARCH,
        ),
    ] = None
    promote: Annotated[
        bool,
        typer.Option(
            "--promote/--no-promote",
            help="Add the best model to the model folder, as its next version.",
            rich_help_panel=_SEARCH,
        ),
    ] = True

    def __post_init__(self) -> None:
        """Refuse two contradicting options. Raises typer.BadParameter."""
        if self.recipe and self.search:
            raise typer.BadParameter("it tries every recipe; leave --recipe out", param_hint="--search")

    @property
    def excluded(self) -> tuple[str, ...]:
        """The names in `--exclude`."""
        return listed(self.exclude)
