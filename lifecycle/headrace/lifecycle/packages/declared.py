"""A model file's own declaration of its inputs and outputs, in one form for all formats."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.lifecycle.packages.graph_facts import Graph


class DeclaredTensor(msgspec.Struct, frozen=True, kw_only=True):
    """One input or output as the file declares it.

    dims: all dimensions, that of the rows among them: a size, a symbol, or None for one that varies without a name;
    None as a whole where the file doesn't tell. optional: the file has a default for it, or takes the input's absence.
    sequence: a list of such tensors.
    """

    name: str
    datatype: str
    dims: tuple[int | str | None, ...] | None
    optional: bool = False
    sequence: bool = False


class DeclaredModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model file that was copied into the folder of its package.

    runtime: that runs it. file: its name in that folder; files: what it needs beside it. inputs, outputs: in the order
    of the file. labels: class names that the file holds. facts: of its origin, for the record. graph: what a trial may
    know of what happens inside.
    """

    runtime: str
    file: str
    inputs: tuple[DeclaredTensor, ...]
    outputs: tuple[DeclaredTensor, ...]
    files: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    facts: dict[str, Any] = {}
    graph: Graph = Graph()
