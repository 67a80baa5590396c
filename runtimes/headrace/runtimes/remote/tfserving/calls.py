"""The calls of TensorFlow Serving as bytes: requests written, answers read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from headrace.contracts.errors import PackageError, quoted
from headrace.contracts.tensors.codec import Tensors
from headrace.runtimes.remote.base import (
    MOST_BEFORE_REMEDY,
    Answer,
    Misconfigured,
    ModelNotReady,
    OtherSignature,
    RemoteSignature,
    in_line,
)
from headrace.runtimes.remote.encoding.specs import Described, signature_of
from headrace.runtimes.remote.messages import tfserving
from headrace.runtimes.remote.messages.wire import Parts, field, parsed, serialized
from headrace.runtimes.remote.tfserving.tensors import name_of, read_tensor, write_tensor

_METADATA_FIELD: Final = "signature_def"

#: Numbers of fields that are written around arrays: of PredictRequest, and of an entry of a map.
_INPUTS: Final = 2
_KEY: Final = 1
_VALUE: Final = 2


class Target(msgspec.Struct, frozen=True):
    """A model on a server: of one version, of the version under a label, or of the latest."""

    model: str
    signature_name: str
    version: str = ""
    label: str = ""

    def spec(self) -> tfserving.ModelSpec:
        """Return the message. Raises PackageError for a version that is no number."""
        spec = tfserving.ModelSpec(name=self.model, signature_name=self.signature_name)
        if self.label:
            spec.version_label = self.label
        elif self.version:
            if not self.version.isdecimal() or int(self.version) >= 1 << 63:
                raise PackageError(
                    f"TensorFlow Serving has versions that are numbers, not {quoted(self.version)}; use a label"
                )
            spec.version.value = int(self.version)
        return spec

    def predict_request(self, inputs: Tensors, outputs: Sequence[str]) -> bytes:
        """Return a PredictRequest."""
        parts: Parts = [tfserving.PredictRequest(model_spec=self.spec()).SerializeToString()]
        for name, array in inputs.items():
            entry = [*field(_KEY, [name.encode()]), *field(_VALUE, write_tensor(array))]
            parts += field(_INPUTS, entry)
        parts.append(tfserving.PredictRequest(output_filter=outputs).SerializeToString())
        return b"".join(parts)

    def metadata_request(self) -> bytes:
        """Return a GetModelMetadataRequest."""
        request = tfserving.GetModelMetadataRequest(model_spec=self.spec(), metadata_field=[_METADATA_FIELD])
        return serialized(request)

    def status_request(self) -> bytes:
        """Return a GetModelStatusRequest; of all versions where a label is asked for, which servers don't resolve."""
        spec = Target(self.model, "", self.version if not self.label else "").spec()
        return serialized(tfserving.GetModelStatusRequest(model_spec=spec))

    def read_metadata(self, answer: bytes, where: str) -> RemoteSignature:
        """Return the signature in a GetModelMetadataResponse. Raises BadAnswer, OtherSignature, PackageError."""
        response = parsed(tfserving.GetModelMetadataResponse, answer)
        packed = response.metadata[_METADATA_FIELD].value
        signatures = parsed(tfserving.SignatureDefMap, packed).signature_def
        if self.signature_name not in signatures:
            has = ", ".join(sorted(signatures)) or "none"
            raise OtherSignature(f"{where}: the model has no signature {quoted(self.signature_name)}; it has: {has}")
        signature = signatures[self.signature_name]
        found = signature_of(_described(signature.inputs), _described(signature.outputs), _version(response.model_spec))
        return msgspec.structs.replace(found, platform="tensorflow")


def read_answer(answer: bytes) -> Answer:
    """Return the outputs in a PredictResponse. Raises BadAnswer."""
    response = parsed(tfserving.PredictResponse, answer)
    outputs = {name: read_tensor(response.outputs[name], name) for name in sorted(response.outputs)}
    return Answer(outputs, _version(response.model_spec))


def check_status(answer: bytes, where: str) -> None:
    """Raise ModelNotReady or Misconfigured if no version in a GetModelStatusResponse is available."""
    versions = list(parsed(tfserving.GetModelStatusResponse, answer).model_version_status)
    states = {version.state for version in versions}
    if tfserving.STATES["AVAILABLE"] in states:
        return
    if states & {tfserving.STATES["START"], tfserving.STATES["LOADING"]}:
        raise ModelNotReady(f"{where}: the server is loading the model")
    why = next((version.status.error_message for version in versions if version.status.error_message), "")
    why = f": {in_line(why, MOST_BEFORE_REMEDY)}" if why else ""
    raise Misconfigured(f"{where}: no version of the model is loaded{why}; load one there")


def _described(tensors: Mapping[str, tfserving.TensorInfo]) -> list[Described]:
    return [_tensor(name, info) for name, info in sorted(tensors.items())]


def _tensor(name: str, info: tfserving.TensorInfo) -> Described:
    if not info.name:
        raise PackageError(f"tensor {quoted(name)} is sparse or a composite; export the model with dense tensors")
    shape = None if info.tensor_shape.unknown_rank else tuple(dim.size for dim in info.tensor_shape.dim)
    return Described(name, name_of(info.dtype), shape)


def _version(spec: tfserving.ModelSpec) -> str:
    return str(spec.version.value) if spec.HasField("version") else ""
