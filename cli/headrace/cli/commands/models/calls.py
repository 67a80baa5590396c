"""Calls of a model that work as they stand, for `headrace models show`."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any, Final

import typer

from headrace.contracts.package.manifest import Manifest
from headrace.contracts.tensors.datatypes import datatype_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

_IMPORT: Final = "from headrace.producers import Client"

#: Inputs of more numbers are written as numpy makes them.
_WRITTEN_OUT: Final = 32


def show_calls(manifest: Manifest) -> None:
    """Print a call from Python and one from a shell, with one row of zeros."""
    python, shell = calls_of(manifest)
    typer.echo("\nask it, from Python or a shell, here with a row of zeros:\n")
    for line in (*python, "", *shell):
        typer.echo(f"    {line}" if line else "")


def calls_of(manifest: Manifest) -> tuple[list[str], list[str]]:
    """Return the lines of a Python program and of a shell script that send one row."""
    # Commands that show no model don't wait for numpy.
    from headrace.lifecycle.packages.checking import example_row

    inputs = example_row(manifest.inputs)
    name = manifest.name
    if sum(array.size for array in inputs.values()) > _WRITTEN_OUT:
        zeros = {key: f"numpy.zeros({list(array.shape)}, {_dtype(array)!r})" for key, array in inputs.items()}
        made = ", ".join(f"{key!r}: {array}" for key, array in zeros.items())
        save = f"import numpy; numpy.savez('rows.npz', **{{{made}}})"
        python = ["import numpy", _IMPORT, "", f"print(Client().predict({name!r}, {{{made}}}))"]
        return python, [f"python -c {_quoted(save)}", f"headrace predict {name} --npz rows.npz"]
    plain = {key: _plain(array.tolist()) for key, array in inputs.items()}
    python = [_IMPORT, "", f"print(Client().predict({name!r}, {plain!r}))"]
    return python, [f"echo {shlex.quote(json.dumps(plain))} | headrace predict {name} -"]


def _quoted(code: str) -> str:
    """Return Python code as one word of a shell, readable where it may be."""
    return shlex.quote(code) if set(code) & set('"$`\\!') else f'"{code}"'


def _dtype(array: NDArray[Any]) -> str:
    datatype = datatype_of(array.dtype)
    # numpy knows no bfloat16, and its bytes of unknown length are pickled; values are cast as the package says.
    return {"BF16": "float32", "BYTES": "U1"}.get(datatype, array.dtype.name)


def _plain(value: Any) -> Any:
    """Return nested lists with text in place of bytes."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value
