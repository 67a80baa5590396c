"""Choice of the format module for a model file or folder."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Final, Protocol, cast

from headrace.contracts import PackageError
from headrace.lifecycle.packages.declared import DeclaredModel
from headrace.lifecycle.packages.formats.content import check_readable, kind_of_content
from headrace.lifecycle.packages.formats.unsupported import refuse

#: Suffix → module of this folder. Modules are imported when their format is met: each needs a library of its own.
_MODULES: Final = {
    ".onnx": "onnx",
    ".tflite": "litert",
    ".lite": "litert",
    ".pt2": "torch",
    ".xml": "openvino",
    ".so": "tvm",
    ".tar": "tvm",
}

_SAVED_MODEL: Final = "saved_model.pb"


class _Format(Protocol):
    """The interface of a format's module."""

    def take_in(self, source: Path, folder: Path, *, sample: Path | None) -> DeclaredModel: ...


def take_in(source: Path, folder: Path, *, sample: Path | None = None) -> DeclaredModel:
    """Copy a model file, or a folder that holds a SavedModel, into a package's folder.

    sample: a file with rows for each input (.npz, .json), for formats that don't tell what they take.
    Raises PackageError in one line, with the cause and what can be done about it.
    """
    return _format_of(source).take_in(source, folder, sample=sample)


def _format_of(source: Path) -> _Format:
    if source.is_dir():
        _check_folder(source)
        return _module("savedmodel.conversion")
    if source.name == _SAVED_MODEL:
        raise PackageError(f"{source} is a part of a SavedModel; add the folder that holds it: {source.parent}")
    check_readable(source)
    suffix = source.suffix.lower()
    content = kind_of_content(source)
    if suffix in _MODULES:
        if content is not None and suffix not in content.suffixes:
            raise PackageError(f"{source} is {content.name}, whatever its name says; {content.remedy}")
        return _module(_MODULES[suffix])
    refuse(source, content)
    if content is not None and content.suffixes:
        return _module(_MODULES[content.suffixes[0]])
    # ONNX files have no mark at their start, and people give them many suffixes.
    return _module("onnx")


def _module(name: str) -> _Format:
    return cast("_Format", importlib.import_module(f"headrace.lifecycle.packages.formats.{name}"))


def _check_folder(source: Path) -> None:
    if (source / _SAVED_MODEL).is_file():
        return
    found = sorted(path for path in source.rglob("*") if path.suffix.lower() in _MODULES and path.is_file())
    if found:
        listed = ", ".join(str(path) for path in found[:4]) + (" …" if len(found) > 4 else "")
        raise PackageError(f"{source} is a folder; add the model file itself: {listed}")
    raise PackageError(f"{source} is a folder without a model: there is no {_SAVED_MODEL} in it, and no model file")
