"""`headrace compress`: make a model smaller and faster, and prove that it pays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from headrace.cli.terminal.console import Json, print_json, print_table, say
from headrace.cli.terminal.options import Models, settings_with
from headrace.contracts import ModelDirectory
from headrace.contracts.formatting import sized

if TYPE_CHECKING:
    from headrace.compression.recipes.catalog import Runtime
    from headrace.compression.recipes.runner import Source

_GOAL: Final = "What it may cost"
_HOW: Final = "How"
_NAMES: Final = "Names"


def compress(  # noqa: PLR0913, PLR0917  (the options of a command are its arguments)
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            show_default=False,
            help="An ONNX file, a model of the folder (NAME or NAME@VERSION), or module:factory of a torch network.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE", exists=True, dir_okay=False, help="Rows: .npz, .csv, .parquet, .jsonl or .npy."),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            show_default="30 % of --data",
            help="Rows for the final figures alone.",
        ),
    ] = None,
    label: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column with the right answers.")] = None,
    network: Annotated[
        str,
        typer.Option(
            metavar="module:factory", help="The torch network a package was made of: to prune, teach and train it."
        ),
    ] = "",
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default="what suits the outputs",
            help="accuracy, balanced-accuracy, f1, auc, rmse, mae, r2, agreement or cosine.",
            rich_help_panel=_GOAL,
        ),
    ] = None,
    output: Annotated[
        str | None, typer.Option(metavar="NAME", help="The output that the metric reads.", rich_help_panel=_GOAL)
    ] = None,
    max_drop: Annotated[
        str,
        typer.Option(
            metavar="DROP", help="What may be lost: points of a share, or a share of an error.", rich_help_panel=_GOAL
        ),
    ] = "0.5%",
    min_speedup: Annotated[
        float,
        typer.Option(
            min=1,
            metavar="TIMES",
            help="How many times as fast it must be, unless it is smaller and no slower.",
            rich_help_panel=_GOAL,
        ),
    ] = 1.1,
    at_rows: Annotated[
        int, typer.Option(min=1, metavar="N", help="Rows of the batch that is to be fast.", rich_help_panel=_GOAL)
    ] = 64,
    recipe: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Try this one; may be repeated. --recipes lists them.", rich_help_panel=_HOW),
    ] = None,
    search: Annotated[
        bool,
        typer.Option("--search", help="Try the whole ladder of recipes, as without --recipe.", rich_help_panel=_HOW),
    ] = False,
    exclude: Annotated[
        str,
        typer.Option(
            metavar="NODES",
            help="Nodes or operators that quantization leaves out, such as /head/*,Softmax.",
            rich_help_panel=_HOW,
        ),
    ] = "",
    runtime: Annotated[
        Literal["onnxruntime", "openvino", "litert", "torch", "tensorrt", "tvm"] | None,
        typer.Option(
            "--for",
            metavar="RUNTIME",
            show_default="onnxruntime",
            help="What will serve it: onnxruntime, openvino, litert, torch, tensorrt or tvm.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", show_default="HEADRACE_THREADS", help="Threads for the model.", rich_help_panel=_HOW
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of all that is random.", rich_help_panel=_HOW)] = 0,
    seconds: Annotated[
        float,
        typer.Option(min=0, metavar="S", help="Seconds to time each recipe, for each row count.", rich_help_panel=_HOW),
    ] = 1.5,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            file_okay=False,
            show_default="beside the attempts",
            help="Where report.html and report.json go.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    promote: Annotated[
        bool,
        typer.Option(
            "--promote/--no-promote",
            help="Put what pays into the model folder, as the next version.",
            rich_help_panel=_HOW,
        ),
    ] = True,
    name: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            show_default="that of the file or factory",
            help="Of the model, for files and networks.",
            rich_help_panel=_NAMES,
        ),
    ] = "",
    outputs: Annotated[
        str, typer.Option(metavar="A,B", help="Of a torch network's outputs.", rich_help_panel=_NAMES)
    ] = "",
    labels: Annotated[
        str, typer.Option(metavar="A,B,C", help="Of the classes, for files and networks.", rich_help_panel=_NAMES)
    ] = "",
    models: Models = None,
    as_json: Json = False,
    review: Annotated[bool, typer.Option("--review", help="Only compare the model with lighter families.")] = False,
    recipes: Annotated[bool, typer.Option("--recipes", help="Only list the recipes.")] = False,
    set_up: Annotated[
        Literal["litert"] | None, typer.Option("--set-up", help="Only install a converter's own environment.")
    ] = None,
) -> None:
    """Make a model smaller and faster, and prove that it pays.

    Recipes are tried one by one, and each is measured against the original on this machine. The fastest that keeps the
    metric within --max-drop, and is worth it by --min-speedup, becomes the next version of the model, with all
    measurements in its record. If none does, the original stays as it is, and the exit code is 1. A second run goes on
    where an interrupted one was.
    """
    if recipes:
        _list_recipes(as_json=as_json)
        return
    if set_up is not None:
        _set_up()
        return
    if model is None or data is None:
        raise typer.BadParameter("say what to compress, and rows to do it with: headrace compress MODEL --data FILE")
    if recipe and search:
        raise typer.BadParameter("it tries every recipe; leave --recipe out", param_hint="--search")
    from headrace.cli.commands.compress.lock import alone
    from headrace.cli.commands.compress.outcome import refuse_unmeasured, tell
    from headrace.cli.commands.compress.progress import watched
    from headrace.compression.evaluation.max_drop import MaxDrop
    from headrace.compression.evaluation.metric_choice import metric_for
    from headrace.compression.report import write_report
    from headrace.compression.search.inputs import Request, open_source
    from headrace.compression.search.search import Search, SearchConfig

    goes_to = _runtime_of(recipe or [], runtime)
    settings = settings_with(models=models, threads=threads)
    counted = max(settings.threads, 1)
    bound = MaxDrop.parse(max_drop)
    request = Request(
        model, data, test, label, network=network, name=name, outputs=_listed(outputs), labels=_listed(labels)
    )
    folder = settings.home / "compress"
    with alone(folder):
        source, splits = open_source(request, ModelDirectory(settings.models), folder, seed=seed, threads=counted)
        if review:
            _review(source, counted, as_json=as_json)
            return
        manifest = source.package.manifest
        chosen = metric_for(metric, manifest.signature, splits.test.labels, names=manifest.labels, output=output)
        goal = SearchConfig(
            chosen,
            bound,
            goes_to,
            at_rows=at_rows,
            threads=counted,
            seed=seed,
            seconds=seconds,
            min_speedup=min_speedup,
            exclude=_listed(exclude),
        )
        with watched(at_rows) as watcher:
            climbed = Search(source, splits, goal, folder, watcher)
            found = climbed.try_recipes(recipe) if recipe else climbed.run()
        page = write_report(found, report or climbed.folder, splits.test)
        promoted = climbed.promote(found, ModelDirectory(settings.models)) if promote else None
    refuse_unmeasured(found)
    tell(found, page, promoted, as_json=as_json)
    if not found.chosen:
        raise typer.Exit(1)


def _runtime_of(recipes: Sequence[str], asked: Runtime | None) -> Runtime:
    """Give the runtime that what is made will need. Raises for recipes that nobody knows or that need another."""
    from headrace.compression.recipes.catalog import check_names, runtime_of

    check_names(recipes)
    for name in recipes:
        if asked is not None and runtime_of(name, asked) != asked:
            raise typer.BadParameter(f"{name} is for {runtime_of(name, asked)}", param_hint="--for")
    return asked or "onnxruntime"


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _list_recipes(*, as_json: bool) -> None:
    from headrace.compression.recipes.catalog import BLOCKS

    rows = [(name, block.of, block.runtime or "any", block.needs, block.summary) for name, block in BLOCKS.items()]
    if as_json:
        print_json([dict(zip(("name", "of", "runtime", "needs", "summary"), row, strict=True)) for row in rows])
        return
    print_table(("recipe", "of a", "runs on", "needs", "what it does"), rows, "there are no recipes")
    say("join them with +: prune-channels-50+int8-static")


def _set_up() -> None:
    from headrace.compression.conversion.environment import converters_folder, set_up_litert

    folder = converters_folder()
    set_up_litert(folder, say)
    say(f"the converter to LiteRT is ready in {folder}")


def _review(source: Source, threads: int, *, as_json: bool) -> None:
    from headrace.compression.search.review import review

    found = review(source.package, source.network, threads=threads)
    if as_json:
        print_json(found)
        return
    rows = [
        (
            model.name,
            model.parameters,
            model.multiply_adds,
            sized(model.file_bytes),
            *(f"{1000 * model.seconds[rows]:.3f}" for rows in found.row_sizes),
        )
        for model in found.models
    ]
    columns = ("model", "parameters", "multiply-adds", "size", *(f"ms at {rows} rows" for rows in found.row_sizes))
    print_table(columns, rows, "no family suits this model")
