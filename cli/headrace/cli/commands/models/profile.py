"""`headrace models profile`: the best batch size of a model on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from headrace.cli.terminal.console import Json, err, out, print_fields, print_json, say
from headrace.cli.terminal.option_groups import with_option_groups
from headrace.cli.terminal.options import Device, Models, settings_with
from headrace.contracts import ModelDirectory, ModelPackage, Settings
from headrace.contracts.formatting import sized

if TYPE_CHECKING:
    from rich.table import Table

    from headrace.compression.benchmarking.batch_advice import Point
    from headrace.compression.benchmarking.profiler import Profile, Watch


@dataclass(frozen=True)
class MeasuringOptions:
    """The runs to measure."""

    rows: Annotated[str, typer.Option(metavar="1,2,4,…", show_default="1,2,4,…,256", help="Batch sizes, in rows.")] = ""
    threads: Annotated[
        str, typer.Option(metavar="1,2", show_default="1,2,4,… up to the cores", help="Numbers of threads.")
    ] = ""
    device: Device = None
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            show_default="random rows",
            help="Data file with real rows, as for compress.",
        ),
    ] = None
    seconds: Annotated[float, typer.Option(min=0, help="Seconds for each batch size and number of threads.")] = 1.0


@with_option_groups
def profile(
    name: Annotated[str, typer.Argument(metavar="MODEL", show_default=False, help="Model name.")],
    measuring: MeasuringOptions,
    version: Annotated[str, typer.Option(show_default="the newest", help="Version of the package.")] = "",
    models: Models = None,
    write: Annotated[bool, typer.Option("--write/--no-write", help="Write the advice into model.toml.")] = True,
    as_json: Json = False,
) -> None:
    """Measure a model over batch sizes and threads, and advise on batch size, waiting time and threads.

    Latency, throughput and memory of each batch size are measured in a process of their own. The advice goes into the
    package, so that workers on such a machine need not learn the model's times first.
    """
    settings = settings_with(models=models, device=measuring.device)
    package = ModelDirectory(settings.models).get(name, version)
    measured = _measure(package, measuring, settings)
    from headrace.compression.benchmarking.profiler import write_profile

    written = write_profile(package, measured) if write else None
    if as_json:
        manifest = str(written.folder / "model.toml") if written else None
        print_json({**msgspec.to_builtins(measured), "written": manifest})
        return
    _show(package, measured, settings, written=written is not None)


def _measure(package: ModelPackage, measuring: MeasuringOptions, settings: Settings) -> Profile:
    row_sizes, thread_counts = _numbers(measuring.rows, "--rows"), _numbers(measuring.threads, "--threads")
    from headrace.compression.benchmarking.profiler import profile as measure
    from headrace.compression.data.loading import read_dataset
    from headrace.compression.data.row_layout import as_taken

    specs = package.manifest.inputs
    inputs = as_taken(specs, read_dataset(measuring.data, specs, None).inputs) if measuring.data else None
    with _progress(package) as watch:
        return measure(
            package,
            rows=row_sizes,
            threads=thread_counts,
            inputs=inputs,
            device=settings.device,
            seconds=measuring.seconds,
            watch=watch,
        )


def _numbers(text: str, option: str) -> list[int]:
    """Read whole numbers of at least 1, with commas between."""
    words = [word.strip() for word in text.split(",")] if text else []
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise typer.BadParameter(f"{text!r} is no list of whole numbers above 0, such as 1,8,64", param_hint=option)
    return [int(word) for word in words]


@contextmanager
def _progress(package: ModelPackage) -> Iterator[Watch]:
    """Show the table as it fills and how far it is, on a terminal; it goes when the block ends."""
    from rich.console import Group
    from rich.live import Live
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = err()
    bar = Progress(TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    task = bar.add_task(f"Profiling {package.name} {package.version}", total=1.0)
    if not console.is_terminal:
        say(f"profiling {package.name} {package.version}")
        yield lambda _points, _share: None
        return
    with Live(bar, console=console, transient=True, auto_refresh=False) as live:

        def watch(points: Sequence[Point], share: float) -> None:
            bar.update(task, completed=share)
            live.update(Group(_table(points), bar), refresh=True)

        yield watch


def _table(points: Sequence[Point], advised: tuple[int, int] | None = None) -> Table:
    """Lay out the figures. advised: threads and rows of the line to mark."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("threads", "rows", "ms", "median", "p95", "rows/s", "memory"):
        table.add_column(column, justify="right")
    table.add_column("")
    for point in points:
        table.add_row(
            str(point.threads),
            str(point.rows),
            f"{point.seconds * 1000:.3f}",
            f"{point.median_seconds * 1000:.3f}",
            f"{point.p95_seconds * 1000:.3f}",
            f"{point.rows_per_second:,.0f}",
            sized(point.peak_bytes),
            "advised" if (point.threads, point.rows) == advised else "",
        )
    return table


def _show(package: ModelPackage, measured: Profile, settings: Settings, *, written: bool) -> None:
    from headrace.compression.benchmarking.profiler import describe_sizes

    advice = measured.advice
    out().print(_table(measured.points, (advice.threads, advice.max_rows)))
    kept_ms = package.manifest.batching.max_wait_ms
    print_fields(
        [
            ("threads", advice.threads),
            (
                "max_rows",
                f"{advice.max_rows} (the model alone has nearly its best throughput from {advice.knee_rows} on)",
            ),
            ("max_wait_ms", f"{advice.max_wait_ms:.2g} is the longest wait that can pay; model.toml has {kept_ms:g}"),
            ("a run", f"{advice.seconds_fixed * 1000:.4g} ms + {advice.seconds_per_row * 1000:.4g} ms a row"),
            *([("sizes", describe_sizes(measured.sizes))] if measured.sizes else []),
            ("measured on", f"{measured.conditions.processor}, {measured.conditions.device}, {measured.inputs} rows"),
            *(("note", note) for note in measured.notes),
        ]
    )
    if written:
        say(f"written into {package.folder / 'model.toml'}; workers that run already must be restarted to use it")
    else:
        say("nothing was written; without --no-write the advice goes into model.toml")
    if advice.threads != settings.threads:
        say(f"note: workers run with {settings.threads} threads; start them with --threads {advice.threads}")
