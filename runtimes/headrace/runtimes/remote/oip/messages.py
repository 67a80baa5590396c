"""Batches as messages of the Open Inference Protocol, and back; raw contents out where servers take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from headrace.contracts.errors import quoted
from headrace.contracts.tensors.codec import Tensors
from headrace.contracts.tensors.datatypes import DTYPES, datatype_of
from headrace.runtimes.remote.base import Answer, BadAnswer, Misconfigured, RemoteSignature
from headrace.runtimes.remote.encoding.raw import element_count, pack, unpack
from headrace.runtimes.remote.encoding.specs import Described, signature_of
from headrace.runtimes.remote.messages import oip
from headrace.runtimes.remote.messages.wire import Parts, field, fixed_numbers, narrowed, parsed, serialized

#: Numbers of fields that are written around arrays: of ModelInferRequest, and of an input in it.
_INPUTS: Final = 5
_RAW_INPUTS: Final = 7
_CONTENTS: Final = 5

#: OIP v2 name → field of InferTensorContents. Half-width floats have none; servers that answer so write them as FP32.
_FIELDS: Final = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP16": "fp32_contents",
    "BF16": "fp32_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}

#: Fields whose numbers have one width on the wire → their number and that width.
_FIXED_WIDTH: Final = {
    "bool_contents": (1, np.dtype(np.bool_)),
    "fp32_contents": (6, np.dtype("<f4")),
    "fp64_contents": (7, np.dtype("<f8")),
}
_WHOLE: Final[dict[str, np.dtype[Any]]] = {
    "int_contents": np.dtype("i4"),
    "int64_contents": np.dtype("i8"),
    "uint_contents": np.dtype("u4"),
    "uint64_contents": np.dtype("u8"),
}


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
            contents = field(_CONTENTS, _contents(array, datatype))
            parts += field(_INPUTS, [serialized(described), *contents])
        return b"".join([*parts, self._outputs])


def _refuse(name: str, datatype: str) -> None:
    if datatype in ("FP16", "BF16"):
        raise Misconfigured(f"input {quoted(name)} is {datatype}, which this server takes in no form")
    if datatype == "BYTES":
        # TorchServe hands them to the model as base64 within JSON, and quotes what comes back.
        raise Misconfigured(f"input {quoted(name)} is BYTES, which TorchServe garbles over gRPC; reach it over HTTP")


def _contents(array: NDArray[Any], datatype: str) -> Parts:
    where = _FIELDS[datatype]
    if where in _FIXED_WIDTH:
        return field(_FIXED_WIDTH[where][0], [pack(array)]) if array.size else []
    contents = oip.InferTensorContents()
    getattr(contents, where).extend(array.reshape(-1).tolist())
    return [serialized(contents)]


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
    count = element_count(shape, tensor.name)
    dtype = DTYPES.get(tensor.datatype)
    if dtype is None:
        raise BadAnswer(f"the server's output {quoted(tensor.name)} has the unknown datatype {quoted(tensor.datatype)}")
    where = _FIELDS[tensor.datatype]
    written = getattr(tensor.contents, where)
    if len(written) != count:
        raise BadAnswer(f"the server's output {quoted(tensor.name)} of shape {list(shape)} has {len(written)} values")
    if where in _FIXED_WIDTH:
        values = fixed_numbers(tensor.contents, where, _FIXED_WIDTH[where][1]).astype(dtype, copy=False)
    elif where in _WHOLE:
        values = narrowed(np.array(written, _WHOLE[where]), dtype, tensor.name)
    else:
        values = np.empty(count, dtype)
        values[:] = list(written)
    return values.reshape(shape)


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
