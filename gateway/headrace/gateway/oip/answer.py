"""Bodies of answers to inference requests: JSON, with outputs as values in it or as bytes behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
import orjson
from numpy.typing import NDArray

from headrace.contracts.errors import quoted
from headrace.contracts.package.signature import Signature
from headrace.contracts.tensors.codec import Tensors
from headrace.contracts.tensors.datatypes import all_finite, datatype_of
from headrace.contracts.tensors.oip_http import BINARY_ONLY, flat_json, native
from headrace.contracts.tensors.raw import Buffer, MalformedTensor, pack
from headrace.gateway.oip.errors import MalformedBody, NotInJson
from headrace.gateway.oip.request import InferRequest


class Identity(msgspec.Struct, frozen=True):
    """The names in an answer. id: the client's own, else that of the row. version: "" where it isn't known."""

    model: str
    version: str
    id: str


class Written(msgspec.Struct, frozen=True):
    """A body. json_bytes: the length of its JSON part where bytes of tensors follow, else None."""

    body: bytes
    json_bytes: int | None = None


def asked_for(request: InferRequest, signature: Signature, model: str) -> dict[str, str]:
    """Return the outputs that a request asks for, with their datatypes, before the model runs.

    Raises MalformedBody for one that the model doesn't have.
    """
    datatypes = {spec.name: spec.datatype for spec in signature.outputs}
    if request.outputs is None:
        return datatypes
    for index, name in enumerate(request.outputs):
        if name not in datatypes:
            raise MalformedBody(
                f"model {model!r} has no output {name!r}; it has {', '.join(datatypes)}", f"outputs[{index}].name"
            )
    return {name: datatypes[name] for name in request.outputs}


def chosen_outputs(outputs: Tensors, request: InferRequest) -> Tensors:
    """Return the outputs that a request asks for, in its order. Raises MalformedBody for one the model doesn't have."""
    if request.outputs is None:
        return outputs
    for index, name in enumerate(request.outputs):
        if name not in outputs:
            raise MalformedBody(
                f"the model has no output {quoted(name)}; it has {', '.join(map(quoted, outputs))}",
                f"outputs[{index}].name",
            )
    return {name: outputs[name] for name in request.outputs}


def write_answer(identity: Identity, outputs: Tensors, is_binary: Callable[[str], bool], nonfinite: str) -> Written:
    """Write an answer. nonfinite: see `parameters.NONFINITE`. Raises NotInJson."""
    tensors: list[bytes] = []
    parts: list[Buffer] = []
    for name, array in outputs.items():
        head = orjson.dumps({"name": name, "shape": array.shape, "datatype": datatype_of(array.dtype)})[:-1]
        if is_binary(name):
            data = pack(array)
            parts.append(data)
            tensors.append(head + b',"parameters":{"binary_data_size":%d}}' % memoryview(data).nbytes)
        else:
            tensors.append(head + b',"data":' + _values(name, array, nonfinite) + b"}")
    fields: dict[str, Any] = {"model_name": identity.model}
    if identity.version:
        fields["model_version"] = identity.version
    head = orjson.dumps(fields | {"id": identity.id})[:-1] + b',"outputs":[' + b",".join(tensors) + b"]}"
    if not parts:
        return Written(head)
    return Written(b"".join([head, *parts]), len(head))


def refuse_binary_only(name: str, datatype: str) -> None:
    """Raise NotInJson for an output whose datatype has no JSON form."""
    if datatype in BINARY_ONLY:
        raise NotInJson(f"output {quoted(name)} is {datatype}, which has no JSON form; {_REMEDY}", name)


_REMEDY: Final = 'ask for its bytes: "outputs": [{"name": …, "parameters": {"binary_data": true}}]'


def _values(name: str, array: NDArray[Any], nonfinite: str) -> bytes:
    refuse_binary_only(name, datatype_of(array.dtype))
    finite = all_finite(array)
    if not finite and nonfinite == "refuse":
        raise NotInJson(
            f"output {quoted(name)} holds NaN or infinity, which JSON has no form for; {_REMEDY}, or say what to write "
            'instead: "parameters": {"nonfinite": "null"} or "literal"',
            name,
        )
    if not finite and nonfinite == "null":
        # The encoder writes both as null.
        return orjson.dumps(native(array).reshape(-1), option=orjson.OPT_SERIALIZE_NUMPY)
    try:
        return flat_json(array)
    except MalformedTensor as exc:
        raise NotInJson(f"output {quoted(name)} {exc}; {_REMEDY}", name) from None
