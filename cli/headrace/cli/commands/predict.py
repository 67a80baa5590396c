"""`headrace predict`: one request from the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.terminal.console import Json, print_json, read_json, say
from headrace.cli.terminal.options import settings_with

if TYPE_CHECKING:
    import numpy as np


def predict(  # noqa: PLR0913, PLR0917  (the options of a command are its arguments)
    model: Annotated[str, typer.Argument(metavar="MODEL", show_default=False, help="Model name.")],
    source: Annotated[
        str,
        typer.Argument(metavar="INPUT.json", show_default=False, help="JSON file, or - for standard input."),
    ] = "",
    npz: Annotated[
        Path | None,
        typer.Option("--npz", metavar="FILE", exists=True, dir_okay=False, help="NumPy arrays instead of JSON."),
    ] = None,
    version: Annotated[str, typer.Option(show_default="the newest", help="Model version.")] = "",
    priority: Annotated[int, typer.Option(min=0, max=9, help="Priority; 9 is the most urgent.")] = 0,
    timeout_s: Annotated[float, typer.Option("--timeout", min=0, help="Seconds to wait for the result.")] = 30.0,
    as_json: Json = False,
) -> None:
    """Send one request to a model and print its outputs.

    The input is a JSON object with one nested list for each input of the model: `{"image": [[0.5, 1.0], [0.0, NaN]]}`.
    """
    inputs = _read_inputs(source, npz)
    from headrace.producers import Client

    with Client(settings_with()) as client:
        handle = client.submit(model, inputs, priority=priority, version=version)
        outputs = handle.result(timeout_s=timeout_s)
    if as_json:
        from headrace.contracts.tensors.codec import tensors_to_json

        print_json({"id": handle.id, "model": model, "outputs": json.loads(tensors_to_json(outputs))})
    else:
        _show(outputs)
        say(f"request {handle.id}")


def _read_inputs(source: str, npz: Path | None) -> dict[str, Any]:
    if bool(source) == bool(npz):
        raise typer.BadParameter("give either a JSON file (or `-`) or --npz FILE", param_hint="INPUT.json")
    return _read_arrays(npz) if npz else _read_object(source)


def _read_object(source: str) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text("utf-8")
    except OSError as exc:
        raise typer.BadParameter(f"{source} can't be read: {exc.strerror}", param_hint="INPUT.json") from None
    except UnicodeDecodeError as exc:
        raise typer.BadParameter(f"{source} is not UTF-8 text: {exc.reason}", param_hint="INPUT.json") from None
    document = read_json(text)
    if not isinstance(document, dict):
        raise typer.BadParameter('the JSON must be an object of inputs, {"name": [numbers…]}', param_hint="INPUT.json")
    return document


def _read_arrays(path: Path) -> dict[str, Any]:
    import zipfile

    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, AttributeError, EOFError, zipfile.BadZipFile) as exc:
        raise typer.BadParameter(
            f"{path} holds no numpy arrays (made by numpy.savez): {exc}", param_hint="--npz"
        ) from None


def _show(outputs: dict[str, np.ndarray[Any, Any]]) -> None:
    import numpy as np

    with np.printoptions(precision=4, suppress=True, linewidth=100, nanstr="NaN", infstr="Infinity"):
        for name, array in outputs.items():
            typer.echo(f"{name} {array.dtype} {list(array.shape)}\n{array}")
