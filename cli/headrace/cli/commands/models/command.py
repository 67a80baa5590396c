"""`headrace models`: the packages of a model directory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
import typer

from headrace.cli.commands.models.explained import explained_toml
from headrace.cli.commands.models.profile import profile
from headrace.cli.terminal.console import Json, print_fields, print_json, print_table, say
from headrace.cli.terminal.options import Models, settings_with
from headrace.contracts.errors import PackageError
from headrace.contracts.formatting import sized
from headrace.contracts.package.manifest import Manifest, ModelDirectory, ModelPackage
from headrace.contracts.package.signature import TensorSpec

app = typer.Typer(no_args_is_help=True, help="Add, list, show, profile and remove models.")

#: Under this heading `--help` lists the options that decide which requests share a run.
_ROWS: Final = "Rows and batches"

#: Characters of a constant's value that are shown.
_SHOWN_VALUE: Final = 60

Name = Annotated[str, typer.Argument(metavar="MODEL", show_default=False, help="Name of the model.")]


def _directory(models: Path | None) -> ModelDirectory:
    return ModelDirectory(settings_with(models=models).models)


@app.command()
def add(  # noqa: PLR0913, PLR0917  (the options of a command are its arguments)
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE|FOLDER",
            exists=True,
            show_default=False,
            help="A model: .onnx, .tflite, .pt2, OpenVINO's .xml, TVM's .so, or the folder of a SavedModel.",
        ),
    ],
    models: Models = None,
    name: Annotated[str | None, typer.Option(show_default="that of the file", help="Name of the model.")] = None,
    version: Annotated[str | None, typer.Option(show_default="the next number", help="Version of the package.")] = None,
    labels: Annotated[
        str, typer.Option(metavar="A,B,C", show_default="those in the file", help="Class names, in the output's order.")
    ] = "",
    max_rows: Annotated[int, typer.Option(min=1, rich_help_panel=_ROWS, help="Most rows in one batch.")] = 64,
    max_wait_ms: Annotated[
        float, typer.Option(min=0, rich_help_panel=_ROWS, help="Longest wait of a request for company.")
    ] = 2.0,
    forbid_nan: Annotated[bool, typer.Option("--forbid-nan", help="Refuse inputs with NaN or infinity.")] = False,
    store: Annotated[
        Literal["json", "binary"] | None,
        typer.Option(show_default="by size", help="How outputs are stored: readable in SQL, or exact bytes."),
    ] = None,
    keep: Annotated[
        str, typer.Option(metavar="A,B", show_default="all", help="Outputs to store and return; others are dropped.")
    ] = "",
    rows_at: Annotated[
        str,
        typer.Option(
            metavar="TENSOR=AXIS,…",
            rich_help_panel=_ROWS,
            show_default="found by trial",
            help="Dimension that holds the rows, counted from 0.",
        ),
    ] = "",
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            rich_help_panel=_ROWS,
            metavar="INPUT=JSON",
            show_default=False,
            help="Fix an input, such as sr=16000; repeatable.",
        ),
    ] = None,
    row_sizes: Annotated[
        str,
        typer.Option(
            metavar="N,N",
            rich_help_panel=_ROWS,
            show_default="as in the file",
            help="Run these row counts only; pad to the next one.",
        ),
    ] = "",
    alone: Annotated[
        bool | None,
        typer.Option(
            "--alone/--batch",
            rich_help_panel=_ROWS,
            show_default="by trial",
            help="Run each request alone, or let requests share a run.",
        ),
    ] = None,
    sample: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=_ROWS,
            exists=True,
            dir_okay=False,
            help="Real inputs for the trial: .npz, or JSON.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a package of a model file, after a trial that proves how it may be served.

    Inputs and outputs are read from the file. The trial finds the dimension that holds the rows, and whether a row's
    answer is the same in any company; a model for which it isn't serves each request alone. Versions never change: each
    `add` makes a new one.
    """
    from headrace.lifecycle.packages.registry import add_model

    package = add_model(
        file,
        _directory(models),
        name=name,
        version=version,
        labels=_listed(labels),
        max_rows=max_rows,
        max_wait_ms=max_wait_ms,
        allow_nan=not forbid_nan,
        store=store,
        keep=_listed(keep),
        rows_at=_axes(rows_at),
        constants=_constants(values or []),
        row_sizes=_numbers(row_sizes),
        independent_rows=None if alone is None else not alone,
        sample=sample,
    )
    if as_json:
        print_json(_document(package))
    else:
        say(f"added {package.name} {package.version}; workers that run already must be restarted to serve it")
        _show(package)


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _axes(text: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for pair in _listed(text):
        name, _, axis = pair.rpartition("=")
        if not name.strip() or not axis.strip().isdecimal():
            raise typer.BadParameter(f"{pair!r} is not TENSOR=AXIS, such as state=1", param_hint="--rows-at")
        found[name.strip()] = int(axis)
    return found


def _numbers(text: str) -> list[int]:
    wrong = [part for part in _listed(text) if not part.isdecimal() or int(part) < 1]
    if wrong:
        raise typer.BadParameter(f"{wrong[0]!r} is not a number of rows, such as 8", param_hint="--row-sizes")
    return sorted({int(part) for part in _listed(text)})


def _constants(pairs: list[str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise typer.BadParameter(f"{pair!r} is not INPUT=JSON, such as sr=16000", param_hint="--set")
        try:
            found[name.strip()] = msgspec.json.decode(value)
        except msgspec.DecodeError:
            # Text needs no quotes, which a shell would take away.
            found[name.strip()] = value
    return found


@app.command(name="list")
def list_(models: Models = None, as_json: Json = False) -> None:
    """List the models and their versions."""
    directory = _directory(models)
    found = []
    for name in directory.names():
        try:
            found.append((name, directory.versions(name), directory.get(name)))
        except PackageError as exc:
            # One package that is wrong must not hide the others.
            say(f"{name}: {exc.message}")
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
    as_toml: Annotated[bool, typer.Option("--toml", help="Print model.toml with each field explained.")] = False,
    as_json: Json = False,
) -> None:
    """Show what a model takes and gives and how it is served, and check its file."""
    if as_toml and as_json:
        raise typer.BadParameter("print either TOML or JSON", param_hint="--toml")
    package = _directory(models).get(name, version)
    package.verify()
    if as_json:
        print_json(_document(package))
    elif as_toml:
        typer.echo(explained_toml(package.manifest), nl=False)
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
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("nobody can be asked here; say --yes", param_hint="--yes")
        typer.confirm(f"Remove {directory.root / name / version}?", abort=True, err=True)
    remove_model(directory, name, version)
    say(f"removed {name} {version}")


def _document(package: ModelPackage) -> dict[str, object]:
    from headrace.lifecycle.packages.registry import notes_of

    return {
        **msgspec.to_builtins(package.manifest),
        "folder": str(package.folder),
        "bytes": package.size_bytes,
        "notes": notes_of(package),
    }


#: Of packages made by hand.
_UNPROVEN: Final = (
    "rows are taken for independent, but no trial is recorded: `headrace models add` makes one, HEADRACE_CHECK_EVERY "
    "watches while they are served"
)


def _show(package: ModelPackage) -> None:
    from headrace.lifecycle.packages.registry import notes_of

    manifest = package.manifest
    store = manifest.store
    print_fields(
        [
            ("model", f"{package.name} {package.version}"),
            ("runtime", manifest.runtime),
            *(_input(spec) for spec in manifest.inputs),
            *(("constant", f"{each.name} {each.datatype} = {_value(each.value)}") for each in manifest.constants),
            *((_output(spec, kept=not store.keep or spec.name in store.keep)) for spec in manifest.outputs),
            *((("labels", ", ".join(manifest.labels)),) if manifest.labels else ()),
            *_served(manifest),
            *(("note", line) for line in notes_of(package)),
            *((("note", _UNPROVEN),) if manifest.batching.independent_rows and not manifest.was_tried else ()),
            ("outputs in rows", store.outputs),
            ("file", f"{package.file} ({sized(package.size_bytes)})"),
            *(("beside it", name) for name in manifest.files),
            ("sha256", manifest.sha256),
            *((f"{key}", value) for key, value in manifest.provenance.items() if key not in {"profile", "trial"}),
            *_profiled(manifest.provenance.get("profile")),
        ]
    )


def _input(spec: TensorSpec) -> tuple[str, object]:
    notes = "" if spec.allow_nan else ", no NaN"
    notes += f"; tried with {list(spec.sample_shape)}" if spec.sample_shape else ""
    if spec.per_request:
        return ("parameter", f"{spec.describe()}{notes}, once a request")
    return ("input", f"{spec.describe()}{notes}")


def _output(spec: TensorSpec, *, kept: bool) -> tuple[str, object]:
    return ("output", spec.describe() + ", once a request" * spec.per_request + ("" if kept else ", not kept"))


def _value(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _SHOWN_VALUE else f"{text[:_SHOWN_VALUE]}…"


def _served(manifest: Manifest) -> list[tuple[str, object]]:
    """Return the lines on how requests are run."""
    batching = manifest.batching
    if not batching.independent_rows:
        return [("served", "one request a run, alone and whole")]
    lines: list[tuple[str, object]] = [
        ("served", f"in batches of at most {batching.max_rows} rows, waiting at most {batching.max_wait_ms:g} ms")
    ]
    if batching.row_sizes:
        sizes = " or ".join(map(str, batching.row_sizes))
        padded = "" if batching.row_sizes == (1,) else " padded or"
        lines.append(("rows of a run", f"{sizes}; batches of other sizes run{padded} in pieces"))
    return lines


def _profiled(record: object) -> list[tuple[str, object]]:
    """Return the line on how a package was profiled; `--json` has the figures."""
    if not isinstance(record, dict):
        return []
    where = f"{record.get('processor', 'unknown')}, {record.get('device', 'unknown')}"
    return [("profiled", f"on {where}, {record.get('measured_at', 'at an unknown time')}")]
