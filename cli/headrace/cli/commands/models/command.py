"""`headrace models`: the packages of a model directory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from headrace.cli.commands.models.explained import explained_toml
from headrace.cli.commands.models.options import BatchOptions, PackageOptions
from headrace.cli.commands.models.profile import profile
from headrace.cli.terminal.console import Json, print_fields, print_json, print_table, say
from headrace.cli.terminal.option_groups import with_option_groups
from headrace.cli.terminal.options import Models, listed, settings_with
from headrace.contracts.errors import PackageError
from headrace.contracts.formatting import sized
from headrace.contracts.package.manifest import Manifest, ModelDirectory, ModelPackage
from headrace.contracts.package.signature import TensorSpec

app = typer.Typer(no_args_is_help=True, help="Add, list, show, profile and remove models.")

#: Characters of a constant's value that are shown.
_SHOWN_VALUE: Final = 60

Name = Annotated[str, typer.Argument(metavar="MODEL", show_default=False, help="Model name.")]


def _directory(models: Path | None) -> ModelDirectory:
    return ModelDirectory(settings_with(models=models).models)


@app.command()
@with_option_groups
def add(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE|FOLDER",
            exists=True,
            show_default=False,
            help="Model file (.onnx, .tflite, .pt2, OpenVINO's .xml, TVM's .so) or the folder of a SavedModel.",
        ),
    ],
    package: PackageOptions,
    batches: BatchOptions,
    models: Models = None,
    as_json: Json = False,
) -> None:
    """Make a package of a model file, after a trial run of the model.

    Inputs and outputs are read from the file. The trial finds the dimension that holds the rows, and whether the
    result of a row depends on the other rows of its batch; if it does, each request runs alone. Versions never change:
    each `add` makes a new one.
    """
    added = _add(file, _directory(models), package, batches)
    if as_json:
        print_json(_document(added))
    else:
        say(f"added {added.name} {added.version}; workers that run already must be restarted to serve it")
        _show(added)


def _add(file: Path, models: ModelDirectory, package: PackageOptions, batches: BatchOptions) -> ModelPackage:
    from headrace.lifecycle.packages.registry import add_model

    return add_model(
        file,
        models,
        name=package.name,
        version=package.version,
        labels=listed(package.labels),
        max_rows=batches.max_rows,
        max_wait_ms=batches.max_wait_ms,
        allow_nan=not package.forbid_nan,
        store=package.store,
        keep=listed(package.keep),
        decode=package.recipes,
        tokenizer=package.tokenizer,
        rows_at=batches.axes,
        constants=batches.constants,
        row_sizes=batches.sizes,
        independent_rows=None if batches.alone is None else not batches.alone,
        sample=batches.sample,
    )


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
    """Show a model's inputs, outputs and batching, and verify the checksums of its files."""
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
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask for confirmation.")] = False,
) -> None:
    """Remove one version of a model."""
    from headrace.lifecycle.packages.registry import remove_model

    directory = _directory(models)
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("there is no terminal to ask on; pass --yes", param_hint="--yes")
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


#: Note on packages made by hand.
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
            *_text(manifest),
            *_served(manifest),
            *(("note", line) for line in notes_of(package)),
            *((("note", _UNPROVEN),) if manifest.batching.independent_rows and not manifest.was_tried else ()),
            ("outputs in rows", store.outputs),
            *_place(package),
            *(("beside it", name) for name in manifest.files),
            *((f"{key}", value) for key, value in manifest.provenance.items() if key not in {"profile", "trial"}),
            *_profiled(manifest.provenance.get("profile")),
        ]
    )


def _place(package: ModelPackage) -> list[tuple[str, object]]:
    """Return the lines on where the model is: in a file, or on a server."""
    manifest = package.manifest
    server = manifest.server
    if not server:
        return [("file", f"{package.file} ({sized(package.size_bytes)})"), ("sha256", manifest.sha256)]
    which = f", version {server.version}" if server.version else f", label {server.label}" if server.label else ""
    most = f"at most {server.max_in_flight} batches at a time" if server.max_in_flight else "as many as pay"
    lines: list[tuple[str, object]] = [
        ("server", f"{server.model}{which}, by {manifest.runtime}"),
        *(("endpoint", endpoint) for endpoint in server.endpoints),
        ("in flight", f"{most}, on each endpoint"),
    ]
    if server.credentials:
        lines.append(("credentials", f"HEADRACE_SERVER_CREDENTIALS_{server.credentials}"))
    return lines


def _input(spec: TensorSpec) -> tuple[str, object]:
    notes = "" if spec.allow_nan else ", no NaN"
    notes += "; bulk jobs decode it from images" if spec.decode else ""
    notes += f"; tried with {list(spec.sample_shape)}" if spec.sample_shape else ""
    if spec.per_request:
        return ("parameter", f"{spec.describe()}{notes}, once a request")
    return ("input", f"{spec.describe()}{notes}")


def _text(manifest: Manifest) -> list[tuple[str, object]]:
    """Return the line on how bulk jobs make inputs of text."""
    tokenizer = manifest.tokenizer
    if not tokenizer:
        return []
    limit = tokenizer.limit(manifest.inputs)
    bound = f", at most {limit} tokens" if limit else ""
    return [("text", f"bulk jobs make {', '.join(tokenizer.inputs)} of the column {tokenizer.column!r}{bound}")]


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
