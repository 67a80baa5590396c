"""`headrace models`: the packages of a model directory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from headrace.cli.commands.options import Models, settings_with
from headrace.cli.commands.profile import profile
from headrace.cli.console import Json, print_fields, print_json, print_table, say
from headrace.contracts.package import ModelDirectory, ModelPackage
from headrace.contracts.wording import sized

app = typer.Typer(no_args_is_help=True, help="Add, list, show, profile and remove models.")

Name = Annotated[str, typer.Argument(metavar="MODEL", show_default=False, help="Name of the model.")]


def _directory(models: Path | None) -> ModelDirectory:
    return ModelDirectory(settings_with(models=models).models)


@app.command()
def add(  # noqa: PLR0913, PLR0917  (the options of a command are its arguments)
    file: Annotated[
        Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, show_default=False, help="An ONNX file.")
    ],
    models: Models = None,
    name: Annotated[str | None, typer.Option(show_default="that of the file", help="Name of the model.")] = None,
    version: Annotated[str | None, typer.Option(show_default="the next number", help="Version of the package.")] = None,
    labels: Annotated[
        str, typer.Option(metavar="A,B,C", show_default=False, help="Class names, in the order of the output.")
    ] = "",
    max_rows: Annotated[int, typer.Option(min=1, help="Most rows in one batch.")] = 64,
    max_wait_ms: Annotated[float, typer.Option(min=0, help="Longest wait of a request for company.")] = 2.0,
    forbid_nan: Annotated[bool, typer.Option("--forbid-nan", help="Refuse inputs with NaN or infinity.")] = False,
    store: Annotated[
        Literal["json", "binary"], typer.Option(help="How rows keep outputs: readable in SQL, or exact bytes.")
    ] = "json",
    as_json: Json = False,
) -> None:
    """Make a package of an ONNX file: signature, checksum, a trial run.

    Inputs and outputs are read from the file, whose first dimension must be the rows of a batch, of any number.
    Versions never change: each `add` makes a new one.
    """
    from headrace.lifecycle.packages.registry import add_model

    package = add_model(
        file,
        _directory(models),
        name=name,
        version=version,
        labels=[label.strip() for label in labels.split(",") if label.strip()],
        max_rows=max_rows,
        max_wait_ms=max_wait_ms,
        allow_nan=not forbid_nan,
        store=store,
    )
    if as_json:
        print_json(_document(package))
    else:
        say(f"added {package.name} {package.version}; workers that run already must be restarted to serve it")
        _show(package)


@app.command(name="list")
def list_(models: Models = None, as_json: Json = False) -> None:
    """List the models and their versions."""
    directory = _directory(models)
    found = [(name, directory.versions(name), directory.get(name)) for name in directory.names()]
    if as_json:
        print_json(
            [
                {"name": name, "versions": versions, "latest": versions[-1], "runtime": latest.manifest.runtime}
                for name, versions, latest in found
            ]
        )
        return
    rows = (
        (
            name,
            ", ".join(versions),
            "; ".join(spec.describe() for spec in latest.manifest.inputs),
            "; ".join(spec.describe() for spec in latest.manifest.outputs),
        )
        for name, versions, latest in found
    )
    empty = f"no model in {directory.root}; add one with `headrace models add FILE`"
    print_table(("model", "versions", "inputs", "outputs"), rows, empty)


@app.command()
def show(
    name: Name,
    version: Annotated[str, typer.Option(show_default="the newest", help="Version of the package.")] = "",
    models: Models = None,
    as_json: Json = False,
) -> None:
    """Show what a model takes and gives, and check its file."""
    package = _directory(models).get(name, version)
    package.verify()
    if as_json:
        print_json(_document(package))
    else:
        _show(package)


app.command()(profile)


@app.command()
def rm(
    name: Name,
    version: Annotated[str, typer.Argument(metavar="VERSION", show_default=False, help="The version to remove.")],
    models: Models = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
) -> None:
    """Remove one version of a model."""
    from headrace.lifecycle.packages.registry import remove_model

    directory = _directory(models)
    package = directory.get(name, version)
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("nobody can be asked here; say --yes", param_hint="--yes")
        typer.confirm(f"Remove {package.folder}?", abort=True, err=True)
    remove_model(directory, package.name, package.version)
    say(f"removed {package.name} {package.version}")


def _document(package: ModelPackage) -> dict[str, object]:
    return {
        **msgspec.to_builtins(package.manifest),
        "folder": str(package.folder),
        "bytes": package.file.stat().st_size,
    }


def _show(package: ModelPackage) -> None:
    manifest = package.manifest
    batching = manifest.batching
    print_fields(
        [
            ("model", f"{package.name} {package.version}"),
            ("runtime", manifest.runtime),
            *(("input", spec.describe() + ("" if spec.allow_nan else ", no NaN")) for spec in manifest.inputs),
            *(("output", spec.describe()) for spec in manifest.outputs),
            *((("labels", ", ".join(manifest.labels)),) if manifest.labels else ()),
            ("batches", f"at most {batching.max_rows} rows, waiting at most {batching.max_wait_ms:g} ms"),
            ("outputs in rows", manifest.store.outputs),
            ("file", f"{package.file} ({sized(package.file.stat().st_size)})"),
            ("sha256", manifest.sha256),
            *((f"{key}", value) for key, value in manifest.provenance.items() if key != "profile"),
            *_profiled(manifest.provenance.get("profile")),
        ]
    )


def _profiled(record: object) -> list[tuple[str, object]]:
    """Give the line on how a package was profiled; `--json` has the figures."""
    if not isinstance(record, dict):
        return []
    where = f"{record.get('processor', 'unknown')}, {record.get('device', 'unknown')}"
    return [("profiled", f"on {where}, {record.get('measured_at', 'at an unknown time')}")]
