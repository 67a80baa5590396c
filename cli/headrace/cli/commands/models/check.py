"""`headrace models check`: one real batch through a model, then the sizes that pay."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from headrace.cli.terminal.console import Json, err, print_fields, print_json, print_table, say
from headrace.cli.terminal.options import Device, Models, settings_with
from headrace.contracts.package.manifest import ModelDirectory, ModelPackage

if TYPE_CHECKING:
    from headrace.lifecycle.packages.checking import Checked, Timing


def check(
    name: Annotated[str, typer.Argument(metavar="MODEL", show_default=False, help="Model name.")],
    version: Annotated[str, typer.Option(show_default="the newest", help="Version of the package.")] = "",
    sample: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            show_default="a row of zeros",
            help="Real inputs: .npz, or JSON.",
        ),
    ] = None,
    device: Device = None,
    models: Models = None,
    as_json: Json = False,
) -> None:
    """Send one real batch through a model or to its server, then find the batch size that pays.

    Nothing is queued or stored: the model is loaded here, a model server is called from here. Batches of 1, 2, 4, …
    rows up to the package's max_rows are timed.
    """
    from headrace.lifecycle.packages.checking import check_package

    settings = settings_with(models=models, device=device)
    package = ModelDirectory(settings.models).get(name, version)
    watch = _say if err().is_terminal and not as_json else lambda _: None
    found = check_package(package, sample=sample, device=settings.device, threads=settings.threads, watch=watch)
    if as_json:
        print_json({"model": package.name, "version": package.version, "answer": msgspec.to_builtins(found)})
    else:
        _show(package, found)


def _say(timing: Timing) -> None:
    say(f"{timing.rows} rows: {timing.seconds * 1000:.3f} ms")


def _show(package: ModelPackage, found: Checked) -> None:
    took = f"in {found.seconds * 1000:.1f} ms, connecting and loading included"
    print_fields(
        [
            ("model", f"{package.name} {package.version}"),
            ("answered", f"{found.rows} row{'s' * (found.rows != 1)} {took}"),
            *((("version there", found.version),) if found.version else ()),
            *(("output", f"{each.name} {each.datatype} {list(each.shape)}") for each in found.outputs),
        ]
    )
    batching = package.manifest.batching
    if not batching.independent_rows:
        say("each request runs alone and whole, so there are no batches to compare")
        return
    print_table(
        ("rows", "ms", "rows/s", ""),
        [
            (
                str(timing.rows),
                f"{timing.seconds * 1000:.3f}",
                f"{timing.rows_per_second:,.0f}",
                "pays" if timing.rows == found.pays else "",
            )
            for timing in found.timings
        ],
        "no batch ran",
    )
    if found.stopped:
        say(found.stopped)
    if found.pays:
        say(_advice(found, batching.max_rows))


def _advice(found: Checked, max_rows: int) -> str:
    """Return the line on the size that pays."""
    if found.pays == found.timings[-1].rows == max_rows > 1:
        return (
            f"{max_rows} rows pay, the most that [batching] max_rows allows; if the model takes more, try a larger one"
        )
    return (
        f"{found.pays} rows pay: with what a worker spends on each batch, more have hardly a better rate; [batching] "
        f"max_rows is {max_rows}"
    )
