"""Weights that an ONNX file keeps in other files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from headrace.contracts import PackageError
from headrace.lifecycle.packages.formats.content import check_readable

if TYPE_CHECKING:
    import onnx

#: protobuf, which ONNX files are, can't write more into one file.
MAX_FILE_BYTES: Final = 2**31 - 1

#: Where weights that stay files of their own lie in a package, so that none takes the place of model.toml.
WEIGHTS_FOLDER: Final = "weights"


def place_weights(model: onnx.ModelProto, source: Path, folder: Path) -> list[str] | None:
    """Take weights from other files into the model, or copy those files into the package where one file can't hold all.

    Returns the copies' paths in the package, none if the model holds all; None as a whole if the model has had all its
    weights before, and stays as it was. Raises PackageError for files that are missing, too short, or elsewhere.
    """
    outside = [tensor for tensor in _tensors(model) if tensor.data_location == tensor.EXTERNAL]
    if not outside:
        return None
    pieces = [_Piece(tensor, source) for tensor in outside]
    if model.ByteSize() + sum(piece.length for piece in pieces) <= MAX_FILE_BYTES:
        for piece in pieces:
            piece.take_in()
        return []
    copies: dict[str, Path] = {}
    for piece in pieces:
        copies[piece.keep_outside()] = piece.path
    for name, path in copies.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
    return sorted(copies)


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Return a graph and all graphs within its nodes."""
    yield graph
    for node in graph.node:
        for inner in _inner_graphs(node):
            yield from graphs_of(inner)


def _inner_graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Return all tensors that a model holds: weights, constants, and those of its functions."""
    graphs = list(graphs_of(model.graph))
    for function in model.functions:
        graphs += [graph for node in function.node for inner in _inner_graphs(node) for graph in graphs_of(inner)]
    for graph in graphs:
        yield from graph.initializer
    for nodes in (*(graph.node for graph in graphs), *(function.node for function in model.functions)):
        for node in nodes:
            for attribute in node.attribute:
                yield attribute.t
                yield from attribute.tensors


class _Piece:
    """One tensor whose values are a piece of another file."""

    def __init__(self, tensor: onnx.TensorProto, source: Path) -> None:
        self._tensor: Final = tensor
        fields = {entry.key: entry.value for entry in tensor.external_data}
        location = fields.get("location", "")
        self._name: Final = _name_within(location, tensor, source)
        self.path: Final = source.parent / self._name
        _check_place(self.path, source)
        check_readable(self.path)
        size = self.path.stat().st_size
        try:
            self._offset: Final = int(fields.get("offset") or 0)
            self.length: Final = int(fields.get("length") or size - self._offset)
        except ValueError:
            raise PackageError(f"{source} names no place in {location!r} for {tensor.name!r}; it is damaged") from None
        if self._offset < 0 or self.length < 0 or self._offset + self.length > size:
            raise PackageError(
                f"{self.path} has {size} bytes, but {source} wants {self.length} of them from {self._offset} on, for "
                f"the tensor {tensor.name!r}; the file is cut short or belongs to another model: copy both again"
            )

    def take_in(self) -> None:
        """Move the values into the tensor."""
        with self.path.open("rb") as file:
            file.seek(self._offset)
            self._tensor.raw_data = file.read(self.length)
        self._tensor.ClearField("external_data")
        self._tensor.ClearField("data_location")

    def keep_outside(self) -> str:
        """Point the tensor at the copy that its file has in a package, and return that copy's path there."""
        target = f"{WEIGHTS_FOLDER}/{self._name}"
        for entry in self._tensor.external_data:
            if entry.key == "location":
                entry.value = target
        return target


def _name_within(location: str, tensor: onnx.TensorProto, source: Path) -> str:
    name = PurePosixPath(os.path.normpath(location)) if location and "\0" not in location else PurePosixPath("..")
    if name.is_absolute() or name.parts[:1] == ("..",):
        raise PackageError(
            f"{source} keeps its tensor {tensor.name!r} in {location!r}, outside the folder of the model; put that "
            "file beside the model, and save it anew: onnx.save(onnx.load(…), …, save_as_external_data=True)"
        )
    return str(name)


def _check_place(path: Path, source: Path) -> None:
    """Refuse links that lead elsewhere; the caches of Hugging Face link a model and its weights into one folder."""
    allowed = (source.parent.resolve(), source.resolve().parent)
    if not any(path.resolve().is_relative_to(folder) for folder in allowed):
        raise PackageError(f"{path} is a link that leads out of the folder of {source}; put the file itself there")
