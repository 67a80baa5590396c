"""`headrace compress`: make a model smaller and faster, and prove that it pays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from headrace.cli.commands.compress.options import GoalOptions, ModelOptions, SearchOptions, Threads
from headrace.cli.process.single_instance import single_instance
from headrace.cli.terminal.console import Json, print_json, print_table, say
from headrace.cli.terminal.default_command import DefaultToRun
from headrace.cli.terminal.option_groups import with_option_groups
from headrace.cli.terminal.options import Models, listed, settings_with
from headrace.contracts import ModelDirectory, Settings
from headrace.contracts.formatting import sized

if TYPE_CHECKING:
    from headrace.compression.data.dataset import Splits
    from headrace.compression.evaluation.evaluate import MaxDrop
    from headrace.compression.evaluation.metrics import Metric
    from headrace.compression.recipes.catalog import Runtime
    from headrace.compression.recipes.runner import Source
    from headrace.compression.search.inputs import Request
    from headrace.compression.search.search import Goal

app = typer.Typer(
    cls=DefaultToRun,
    no_args_is_help=True,
    help="Make a model smaller and faster, and prove that it pays. `headrace compress MODEL …` is short for `run`.",
)


@app.command()
@with_option_groups
def run(
    model: ModelOptions, goal: GoalOptions, search: SearchOptions, models: Models = None, as_json: Json = False
) -> None:
    """Compress a model with one recipe after the other, and promote the best result.

    Each result is measured against the original on this machine. The fastest one that keeps the metric within
    --max-drop and reaches --min-speedup becomes the next version of the model, with all measurements in its record. If
    none does, the original stays as it is and the exit code is 1. An interrupted run is resumed by the next one.
    """
    from headrace.cli.commands.compress.outcome import refuse_unmeasured, show_outcome
    from headrace.cli.commands.compress.progress import watched
    from headrace.compression.evaluation.evaluate import MaxDrop
    from headrace.compression.report.report import check_libraries, write_report
    from headrace.compression.search.inputs import open_source
    from headrace.compression.search.search import Search

    check_libraries()
    bound, runtime = MaxDrop.parse(goal.max_drop), _runtime_of(search.recipe or [], goal.runtime)
    settings = settings_with(models=models, threads=search.threads)
    directory, threads = ModelDirectory(settings.models), max(settings.threads, 1)
    with _compressing(settings) as folder:
        source, splits = open_source(_request(model), directory, folder, seed=search.seed, threads=threads)
        wanted = _goal(goal, search, bound, runtime, _metric(goal, source, splits), threads)
        with watched(goal.at_rows) as watcher:
            attempts = Search(source, splits, wanted, folder, watcher)
            found = attempts.try_recipes(search.recipe) if search.recipe else attempts.climb()
        page = write_report(found, search.report or attempts.folder, splits.test)
        promoted = attempts.promote(found, directory) if search.promote else None
    refuse_unmeasured(found)
    show_outcome(found, page, promoted, as_json=as_json)
    if not found.chosen:
        raise typer.Exit(1)


@app.command()
@with_option_groups
def review(model: ModelOptions, threads: Threads = None, models: Models = None, as_json: Json = False) -> None:
    """Compare an image classifier with lighter model families of the same input shape."""
    from headrace.compression.search.inputs import open_source
    from headrace.compression.search.review import review as compare

    settings = settings_with(models=models, threads=threads)
    counted = max(settings.threads, 1)
    with _compressing(settings) as folder:
        source, _ = open_source(_request(model), ModelDirectory(settings.models), folder, seed=0, threads=counted)
        found = compare(source.package, source.network, threads=counted)
    if as_json:
        print_json(found)
        return
    rows = [
        (
            each.name,
            each.parameters,
            each.multiply_adds,
            sized(each.file_bytes),
            *(f"{1000 * each.seconds[size]:.3f}" for size in found.row_sizes),
        )
        for each in found.models
    ]
    columns = ("model", "parameters", "multiply-adds", "size", *(f"ms at {size} rows" for size in found.row_sizes))
    print_table(columns, rows, "no family suits this model")


@app.command()
def recipes(as_json: Json = False) -> None:
    """List the recipes, the runtime of each and what it needs."""
    from headrace.compression.recipes.catalog import BLOCKS

    rows = [(name, block.of, block.runtime or "any", block.needs, block.summary) for name, block in BLOCKS.items()]
    if as_json:
        print_json([dict(zip(("name", "of", "runtime", "needs", "summary"), row, strict=True)) for row in rows])
        return
    print_table(("recipe", "of a", "runs on", "needs", "what it does"), rows, "there are no recipes")
    say("join them with +: prune-channels-50+int8-static")


@app.command()
def setup(
    converter: Annotated[
        Literal["litert"], typer.Argument(metavar="CONVERTER", show_default=False, help="Converter to install: litert.")
    ],
) -> None:
    """Install a converter that needs a Python environment of its own."""
    from headrace.compression.conversion.environment import converters_folder, set_up_litert

    assert converter == "litert"
    folder = converters_folder()
    set_up_litert(folder, say)
    say(f"the converter to LiteRT is ready in {folder}")


@contextmanager
def _compressing(settings: Settings) -> Iterator[Path]:
    """Hold the folder of compressions while the block runs. Raises CompressionError when another process has it."""
    from headrace.compression.errors import CompressionError

    folder = settings.home / "compress"
    with single_instance(
        folder,
        CompressionError,
        running="another `headrace compress` works",
        advice="and two would spoil each other's times; wait for it, or give another HEADRACE_HOME",
    ):
        yield folder


def _request(model: ModelOptions) -> Request:
    from headrace.compression.search.inputs import Request

    return Request(
        model.model,
        model.data,
        model.test,
        model.label,
        network=model.network,
        name=model.name,
        outputs=listed(model.outputs),
        labels=listed(model.labels),
    )


def _metric(goal: GoalOptions, source: Source, splits: Splits) -> Metric:
    from headrace.compression.evaluation.metrics import metric_for

    manifest = source.package.manifest
    return metric_for(goal.metric, manifest.signature, splits.test.labels, names=manifest.labels, output=goal.output)


def _goal(
    goal: GoalOptions, search: SearchOptions, bound: MaxDrop, runtime: Runtime, metric: Metric, threads: int
) -> Goal:
    from headrace.compression.search.search import Goal

    return Goal(
        metric,
        bound,
        runtime,
        at_rows=goal.at_rows,
        threads=threads,
        seed=search.seed,
        seconds=search.seconds,
        min_speedup=goal.min_speedup,
        exclude=search.excluded,
    )


def _runtime_of(recipes: Sequence[str], asked: Runtime | None) -> Runtime:
    """Return the runtime of the result. Raises CompressionError for an unknown recipe, BadParameter on a conflict."""
    from headrace.compression.recipes.catalog import check_names, runtime_of

    check_names(recipes)
    for name in recipes:
        if asked is not None and runtime_of(name, asked) != asked:
            raise typer.BadParameter(f"{name} is for {runtime_of(name, asked)}", param_hint="--for")
    return asked or "onnxruntime"
