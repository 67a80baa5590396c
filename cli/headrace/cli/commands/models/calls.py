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

    from headrace.contracts.tensors.codec import Tensors

_IMPORT: Final = "from headrace.producers import Client"

#: Inputs of more numbers are written as numpy makes them.
_WRITTEN_OUT: Final = 32

#: How code turns an array into nested lists.
_AS_LISTS: Final = ".tolist()"


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
    if sum(array.size for array in inputs.values()) > _WRITTEN_OUT:
        return _large_calls(manifest.name, inputs)
    name = manifest.name
    plain = {key: _plain(array.tolist()) for key, array in inputs.items()}
    python = [_IMPORT, "", f"print(Client().predict({name!r}, {plain!r}))"]
    return python, [f"echo {shlex.quote(json.dumps(plain))} | headrace predict {name} -"]


def _large_calls(name: str, inputs: Tensors) -> tuple[list[str], list[str]]:
    zeros = {key: _zeros(array) for key, array in inputs.items()}
    made = ", ".join(f"{key!r}: {array}" for key, array in zeros.items())
    python = ["import numpy", _IMPORT, "", f"print(Client().predict({name!r}, {{{made}}}))"]
    if not any(array.endswith(_AS_LISTS) for array in zeros.values()):
        save = f"import numpy; numpy.savez('rows.npz', **{{{made}}})"
        return python, [f"python -c {_quoted(save)}", f"headrace predict {name} --npz rows.npz"]
    listed = ", ".join(f"{key!r}: {array.removesuffix(_AS_LISTS)}{_AS_LISTS}" for key, array in zeros.items())
    write = f"import json, numpy; print(json.dumps({{{listed}}}))"
    return python, [f"python -c {_quoted(write)} | headrace predict {name} -"]


def _zeros(array: NDArray[Any]) -> str:
    """Return Python code for zeros, or for empty texts."""
    datatype = datatype_of(array.dtype)
    if datatype == "BF16":
        # numpy has no such numbers; lists become them.
        return f"numpy.zeros({list(array.shape)}){_AS_LISTS}"
    # Bytes of any length would be pickled by numpy.
    dtype = "U1" if datatype == "BYTES" else array.dtype.name
    return f"numpy.zeros({list(array.shape)}, {dtype!r})"


def _quoted(code: str) -> str:
    """Return Python code as one word of a shell, readable where it may be."""
    return shlex.quote(code) if set(code) & set('"$`\\!') else f'"{code}"'


def _plain(value: Any) -> Any:
    """Return nested lists with text in place of bytes."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value
