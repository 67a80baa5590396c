"""Batches over HTTP in the Open Inference Protocol, as JSON and as binary tensors behind it.

Source: https://github.com/kserve/open-inference-protocol (inference_rest.md), and Triton's extension_binary_data.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import orjson

from headrace.contracts.errors import quoted
from headrace.contracts.tensors.codec import Tensors
from headrace.contracts.tensors.datatypes import datatype_of
from headrace.contracts.tensors.oip_http import BINARY_ONLY, JSON_LENGTH, json_part, take
from headrace.contracts.tensors.raw import MalformedTensor
from headrace.runtimes.remote.base import Answer, BadAnswer, Misconfigured
from headrace.runtimes.remote.encoding.json_values import read_document, read_values, write_flat
from headrace.runtimes.remote.encoding.raw import Buffer, answer_blamed, element_count, pack, unpack


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A batch to be written. request_id: comes back with the answer. outputs: none stands for all."""

    request_id: str
    inputs: Tensors
    outputs: Sequence[str] = ()
    parameters: Mapping[str, Any] = {}


class Written(msgspec.Struct, frozen=True):
    """A body in parts, and its headers."""

    body: list[Buffer]
    headers: dict[str, str]


#: What a question that asks for no batch carries.
NOTHING: Final = Written([], {})


class _Tensor(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] | None = None
    data: Any = None


class _Response(msgspec.Struct):
    outputs: list[_Tensor]
    id: str | None = None
    model_version: str | int | None = None


def write_json(question: Question) -> Written:
    """Return a batch as JSON. Raises Refused for bytes that are no text, Misconfigured for FP16 and BF16."""
    tensors = []
    for name, array in question.inputs.items():
        datatype = datatype_of(array.dtype)
        if datatype in BINARY_ONLY:
            raise Misconfigured(
                f"input {quoted(name)} is {datatype}, which has no JSON form, and the server takes no binary tensors; "
                "reach it over gRPC"
            )
        head = orjson.dumps({"name": name, "shape": array.shape, "datatype": datatype})
        tensors.append(head[:-1] + b',"data":' + write_flat(array, name) + b"}")
    rest = _envelope(question, {"outputs": [{"name": name} for name in question.outputs]} if question.outputs else {})
    body = rest[:-1] + b',"inputs":[' + b",".join(tensors) + b"]}"
    return Written([body], {"Content-Type": "application/json"})


def write_binary(question: Question) -> Written:
    """Return a batch with its tensors behind the JSON, and the same asked of the answer."""
    parts: list[Buffer] = []
    tensors = []
    for name, array in question.inputs.items():
        raw = pack(array)
        parts.append(raw)
        size = memoryview(raw).nbytes
        tensor = {"name": name, "shape": array.shape, "datatype": datatype_of(array.dtype)}
        tensors.append(tensor | {"parameters": {"binary_data_size": size}})
    if question.outputs:
        wanted = [{"name": name, "parameters": {"binary_data": True}} for name in question.outputs]
        head = _envelope(question, {"inputs": tensors, "outputs": wanted})
    else:
        head = _envelope(question, {"inputs": tensors}, binary_data_output=True)
    headers = {"Content-Type": "application/octet-stream", JSON_LENGTH: str(len(head))}
    return Written([head, *parts], headers)


def _envelope(question: Question, fields: Mapping[str, Any], **parameters: Any) -> bytes:
    given = {**question.parameters, **parameters}
    return orjson.dumps({"id": question.request_id, **({"parameters": given} if given else {}), **fields})


def split(body: Buffer, json_length: str | None) -> tuple[dict[str, Any], memoryview]:
    """Return the JSON object of an answer and the bytes behind it. Raises BadAnswer.

    json_length: the answer's header of that name, None where there are no binary tensors.
    """
    view = memoryview(body)
    try:
        length = json_part(view.nbytes, json_length)
    except MalformedTensor as exc:
        raise BadAnswer(f"the server's answer {exc}") from None
    document = read_document(view[:length])
    if not isinstance(document, dict):
        raise BadAnswer(f"the server's answer is no JSON object: {quoted(document)}")
    return document, view[length:]


def read_answer(document: dict[str, Any], binary: memoryview, question: Question) -> Answer:
    """Return the outputs that were asked for. Raises BadAnswer, also for the answer to another request."""
    try:
        response = msgspec.convert(document, _Response)
    except (msgspec.ValidationError, RecursionError) as exc:
        raise BadAnswer(f"the server's answer is not one of the Open Inference Protocol: {exc}") from None
    if response.id and response.id != question.request_id:
        raise BadAnswer(f"the server answers request {quoted(response.id)}, not {question.request_id}")
    found = _read_tensors(response.outputs, binary)
    for name in question.outputs:
        if name not in found:
            raise BadAnswer(f"the server's answer has no output {quoted(name)}; it has {quoted(', '.join(found))}")
    version = response.model_version
    return Answer({name: found[name] for name in question.outputs or found}, "" if version is None else str(version))


def _read_tensors(tensors: Sequence[_Tensor], binary: memoryview) -> Tensors:
    found: Tensors = {}
    at = 0
    for tensor in tensors:
        if tensor.name in found:
            raise BadAnswer(f"the server's answer has the output {quoted(tensor.name)} twice")
        size = (tensor.parameters or {}).get("binary_data_size")
        if size is None:
            found[tensor.name] = _from_json(tensor)
            continue
        with answer_blamed(tensor.name):
            data = take(binary, at, size)
        found[tensor.name] = unpack(data, tensor.datatype, tensor.shape, tensor.name)
        at += data.nbytes
    if at != binary.nbytes:
        raise BadAnswer(f"the server's answer carries {binary.nbytes - at} bytes too many")
    return found


def _from_json(tensor: _Tensor) -> Any:
    array = read_values(tensor.data, tensor.datatype, tensor.name)
    if array.size != element_count(tensor.shape, tensor.name):
        raise BadAnswer(
            f"the server's output {quoted(tensor.name)} holds {array.size} values, not those of {tensor.shape}"
        )
    return array.reshape(tensor.shape)
