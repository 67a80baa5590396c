"""A model's description as TensorFlow Serving writes it over REST."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.contracts.errors import PackageError, quoted
from headrace.runtimes.remote.base import (
    MOST_BEFORE_REMEDY,
    BadAnswer,
    Misconfigured,
    ModelNotReady,
    RemoteSignature,
    in_line,
)
from headrace.runtimes.remote.encoding.specs import Described, signature_of
from headrace.runtimes.remote.tfserving.tensors import DATATYPES


class _Size(msgspec.Struct):
    # 64-bit numbers are strings in the JSON of protocol buffers.
    size: int = 0


class _Shape(msgspec.Struct):
    dim: list[_Size] = []
    unknown_rank: bool = False


class _Tensor(msgspec.Struct):
    dtype: str
    tensor_shape: _Shape = msgspec.field(default_factory=_Shape)


class _Signature(msgspec.Struct):
    inputs: dict[str, _Tensor] = {}
    outputs: dict[str, _Tensor] = {}


class _Signatures(msgspec.Struct):
    signature_def: dict[str, _Signature]


class _Cause(msgspec.Struct):
    error_message: str = ""


class _Version(msgspec.Struct):
    state: str = ""
    status: _Cause = msgspec.field(default_factory=_Cause)


class _Status(msgspec.Struct):
    model_version_status: list[_Version] = []


class _Metadata(msgspec.Struct):
    signature_def: _Signatures


class _Model(msgspec.Struct):
    version: str | int = ""


class _Answer(msgspec.Struct):
    metadata: _Metadata
    model_spec: _Model = msgspec.field(default_factory=_Model)


def read_metadata(document: dict[str, Any], signature_name: str) -> RemoteSignature:
    """Return the signature of a name. Raises PackageError if there is none of it, BadAnswer for another document."""
    try:
        answer = msgspec.convert(document, _Answer, strict=False)
    except msgspec.ValidationError as exc:
        raise BadAnswer(f"the description of the model can't be read: {exc}") from None
    signatures = answer.metadata.signature_def.signature_def
    found = signatures.get(signature_name)
    if found is None:
        known = ", ".join(sorted(name for name in signatures if not name.startswith("__")))
        raise PackageError(f"the model has no signature {quoted(signature_name)}; it has {known}")
    described = signature_of(_described(found.inputs), _described(found.outputs), str(answer.model_spec.version))
    return msgspec.structs.replace(described, platform="tensorflow")


def _described(tensors: dict[str, _Tensor]) -> list[Described]:
    return [
        Described(
            name,
            DATATYPES.get(tensor.dtype, tensor.dtype),
            None if tensor.tensor_shape.unknown_rank else tuple(dim.size for dim in tensor.tensor_shape.dim),
        )
        for name, tensor in sorted(tensors.items())
    ]


def check_status(document: dict[str, Any], where: str) -> None:
    """Raise ModelNotReady or Misconfigured if no version in the status of a model is available."""
    try:
        versions = msgspec.convert(document, _Status).model_version_status
    except msgspec.ValidationError as exc:
        raise BadAnswer(f"{where}: the status of the model can't be read: {exc}") from None
    states = {version.state for version in versions}
    if "AVAILABLE" in states:
        return
    if states & {"START", "LOADING"}:
        raise ModelNotReady(f"{where}: the server is loading the model")
    why = next((version.status.error_message for version in versions if version.status.error_message), "")
    why = f": {in_line(why, MOST_BEFORE_REMEDY)}" if why else ""
    raise Misconfigured(f"{where}: no version of the model is loaded{why}; load one there")
