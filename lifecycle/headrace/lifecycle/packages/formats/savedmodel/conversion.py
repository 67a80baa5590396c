"""TensorFlow's SavedModel (a folder), converted through OpenVINO, since no runtime here reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from headrace.contracts import PackageError
from headrace.lifecycle.packages.declared import DeclaredModel
from headrace.lifecycle.packages.formats.content import check_readable
from headrace.lifecycle.packages.formats.openvino import MODEL_FILE, declared_model, openvino_library
from headrace.lifecycle.packages.formats.savedmodel.graph import assigning_operator, signature_names
from headrace.runtimes.local.failures import openvino_cause

SAVED_MODEL: Final = "saved_model.pb"

#: The signature that servers call unless told otherwise; OpenVINO converts it alone, or all of them into one model.
_DEFAULT: Final = "serving_default"


def take_in(source: Path, folder: Path, *, sample: Path | None = None) -> DeclaredModel:  # noqa: ARG001
    """Convert a SavedModel into a package's folder. Raises PackageError. sample: not needed."""
    check_readable(source / SAVED_MODEL)
    try:
        ov = openvino_library()
    except PackageError as exc:
        raise PackageError(
            f"{source} is a SavedModel, which is converted when it is added: {exc.message}; or convert it yourself and "
            f"add the result: pip install tf2onnx tensorflow-cpu; {_tf2onnx(source)}"
        ) from exc
    _check_signatures(source)
    try:
        model = ov.convert_model(source)
        ov.save_model(model, folder / MODEL_FILE, compress_to_fp16=False)
    except Exception as exc:  # OpenVINO's front ends raise what their parts raise.
        raise PackageError(
            f"OpenVINO can't convert {source}: {openvino_cause(exc).rstrip('.')}; try tf2onnx and add what it writes: "
            f"{_tf2onnx(source)}"
        ) from exc
    return declared_model(model, source)


def _tf2onnx(source: Path) -> str:
    return f"python -m tf2onnx.convert --saved-model {source} --output {source.name or 'model'}.onnx"


def _check_signatures(source: Path) -> None:
    content = (source / SAVED_MODEL).read_bytes()
    names = signature_names(content)
    if len(names) > 1 and _DEFAULT not in names:
        raise PackageError(
            f"{source} has the signatures {', '.join(names)}, of which a package serves one; convert one of them and "
            f"add the result: {_tf2onnx(source)} --signature_def {names[0]}"
        )
    if operator := assigning_operator(content, _DEFAULT if _DEFAULT in names else names[0] if names else ""):
        raise PackageError(
            f"{source} keeps a state between calls ({operator}), which a conversion would lose without a word; export "
            "a function that takes the state as an input and gives the next one as an output"
        )
