"""`headrace models add`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.commands.models.description import document_of, show_package
from headrace.cli.commands.models.options import BatchOptions, PackageOptions
from headrace.cli.commands.models.server_options import ServerOptions
from headrace.cli.terminal.console import Json, print_json, say
from headrace.cli.terminal.option_groups import with_option_groups
from headrace.cli.terminal.options import Models, directory_of, listed

if TYPE_CHECKING:
    from headrace.lifecycle.packages.registry import PackageOptions as Options


@with_option_groups
def add(
    package: PackageOptions,
    batches: BatchOptions,
    servers: ServerOptions,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE|FOLDER",
            exists=True,
            show_default=False,
            help="Model file (.onnx, .tflite, .pt2, OpenVINO's .xml, TVM's .so) or the folder of a SavedModel.",
        ),
    ] = None,
    models: Models = None,
    as_json: Json = False,
) -> None:
    """Make a package of a model file, or of a model on a model server, after a trial run.

    Inputs and outputs are read from the file or asked of the server. The trial finds the dimension that holds the rows,
    and whether the result of a row depends on the other rows of its batch; if it does, each request runs alone.
    Versions never change: each `add` makes a new one.
    """
    from headrace.lifecycle.packages.registry import add_model, add_remote_model

    server = servers.described(file)
    options = _options(package, batches)
    directory = directory_of(models)
    if server is not None:
        added = add_remote_model(server, directory, servers.kind or "", **options)
    else:
        assert file
        added = add_model(file, directory, **options)
    if as_json:
        print_json(document_of(added))
    else:
        say(f"added {added.name} {added.version}; workers that run already must be restarted to serve it")
        show_package(added)


def _options(package: PackageOptions, batches: BatchOptions) -> Options:
    options: Options = {
        "name": package.name,
        "version": package.version,
        "labels": listed(package.labels),
        "max_wait_ms": batches.max_wait_ms,
        "allow_nan": not package.forbid_nan,
        "store": package.store,
        "keep": listed(package.keep),
        "decode": package.recipes,
        "tokenizer": package.tokenizer,
        "rows_at": batches.axes,
        "constants": batches.constants,
        "row_sizes": batches.sizes,
        "independent_rows": None if batches.alone is None else not batches.alone,
        "sample": batches.sample,
    }
    if batches.max_rows is not None:
        options["max_rows"] = batches.max_rows
    return options
