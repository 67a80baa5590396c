"""Batches as messages of the Open Inference Protocol, and back; raw contents out where servers take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from numpy.typing import NDArray

from headrace.contracts.errors import quoted
from headrace.contracts.tensors.codec import Tensors
from headrace.contracts.tensors.datatypes import datatype_of
from headrace.runtimes.remote.base import Answer, BadAnswer, Misconfigured, RemoteSignature
from headrace.runtimes.remote.encoding.raw import answer_blamed, pack, unpack
from headrace.runtimes.remote.encoding.specs import Described, signature_of
from headrace.runtimes.remote.messages import oip
from headrace.runtimes.remote.messages.contents import read_contents, write_contents
from headrace.runtimes.remote.messages.wire import Parts, field, parsed, serialized

#: Numbers of fields that are written around arrays: of ModelInferRequest, and of an input in it.
_INPUTS: Final = 5
_RAW_INPUTS: Final = 7
_CONTENTS: Final = 5


class Batch:
    """A request for one batch."""

    def __init__(self, model: str, version: str, request_id: str, outputs: Sequence[str]) -> None:
        """outputs: those that are wanted; all if there are none."""
        self._head: Final = serialized(oip.ModelInferRequest(model_name=model, model_version=version, id=request_id))
        wanted = oip.ModelInferRequest()
        for name in outputs:
            wanted.outputs.add(name=name)
        self._outputs: Final = serialized(wanted)

    def with_raw(self, inputs: Tensors) -> bytes:
        """Return the request with its tensors as raw bytes, written around the memory of the arrays."""
        described = oip.ModelInferRequest()
        raw: Parts = []
        for name, array in inputs.items():
            described.inputs.add(name=name, datatype=datatype_of(array.dtype), shape=array.shape)
            raw += field(_RAW_INPUTS, [pack(array)])
        return b"".join([self._head, serialized(described), self._outputs, *raw])

    def with_values(self, inputs: Tensors) -> bytes:
        """Return the request with the values of its tensors one by one, as TorchServe takes them.

        Raises Misconfigured for datatypes that can't be sent so.
        """
        parts: Parts = [self._head]
        for name, array in inputs.items():
            datatype = datatype_of(array.dtype)
            _refuse(name, datatype)
            described = oip.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=array.shape)
            contents = field(_CONTENTS, write_contents(array, datatype))
            parts += field(_INPUTS, [serialized(described), *contents])
        return b"".join([*parts, self._outputs])


def _refuse(name: str, datatype: str) -> None:
    if datatype in ("FP16", "BF16"):
        raise Misconfigured(f"input {quoted(name)} is {datatype}, which this server takes in no form")
    if datatype == "BYTES":
        # TorchServe hands them to the model as base64 within JSON, and quotes what comes back.
        raise Misconfigured(f"input {quoted(name)} is BYTES, which TorchServe garbles over gRPC; reach it over HTTP")


def read_answer(received: bytes, request_id: str) -> Answer:
    """Return the outputs in a ModelInferResponse to a request. Raises BadAnswer."""
    response = parsed(oip.ModelInferResponse, received)
    if response.id and response.id != request_id:
        raise BadAnswer(f"the server answers request {quoted(response.id)}, not {request_id}")
    raw = response.raw_output_contents
    if len(raw) not in (0, len(response.outputs)):
        raise BadAnswer(f"the server's answer has {len(response.outputs)} outputs, but the contents of {len(raw)}")
    outputs: Tensors = {}
    for at, tensor in enumerate(response.outputs):
        if tensor.name in outputs:
            raise BadAnswer(f"the server's answer has the output {quoted(tensor.name)} twice")
        shape = tuple(tensor.shape)
        outputs[tensor.name] = unpack(raw[at], tensor.datatype, shape, tensor.name) if raw else _values(tensor, shape)
    return Answer(outputs, response.model_version)


def _values(tensor: oip.ModelInferResponse.InferOutputTensor, shape: tuple[int, ...]) -> NDArray[Any]:
    with answer_blamed(tensor.name):
        return read_contents(tensor.contents, tensor.datatype, shape)


def read_metadata(received: bytes) -> RemoteSignature:
    """Return the signature in a ModelMetadataResponse. Raises BadAnswer, PackageError."""
    response = parsed(oip.ModelMetadataResponse, received)
    inputs = [Described(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in response.inputs]
    outputs = [Described(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in response.outputs]
    found = signature_of(inputs, outputs)
    return RemoteSignature(
        inputs=found.inputs,
        outputs=found.outputs,
        # Of several versions, nothing says which one answers.
        version=response.versions[0] if len(response.versions) == 1 else "",
        platform=response.platform,
        max_rows=found.max_rows,
        row_sizes=found.row_sizes,
    )
