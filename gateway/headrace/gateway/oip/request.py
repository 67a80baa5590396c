"""Bodies of inference requests: JSON, with tensors as values in it or as bytes behind it."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from numpy.typing import NDArray

from headrace.contracts.errors import SignatureMismatch, quoted
from headrace.contracts.tensors import python_json, raw
from headrace.contracts.tensors.codec import Tensors, as_array
from headrace.contracts.tensors.oip_http import BINARY_ONLY, JSON_LENGTH, json_part, take
from headrace.contracts.tensors.raw import Buffer, MalformedTensor
from headrace.gateway.oip.checks import check_id, check_input, check_output
from headrace.gateway.oip.errors import MalformedBody, MalformedInput
from headrace.gateway.oip.parameters import Parameters, flag, read_parameters, refuse_unsupported


class InferRequest(msgspec.Struct, frozen=True):
    """An inference request.

    id: the client's own, None without one. outputs: name → whether it shall come as bytes; None stands for all outputs.
    """

    id: str | None
    inputs: Tensors
    outputs: dict[str, bool] | None
    parameters: Parameters

    def is_binary(self, output: str) -> bool:
        """Return whether an output shall come as bytes."""
        return self.parameters.binary if self.outputs is None else self.outputs[output]


class _Input(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] | None = None
    data: Any = msgspec.UNSET


class _Output(msgspec.Struct):
    name: str
    parameters: dict[str, Any] | None = None


class _Request(msgspec.Struct):
    inputs: list[_Input]
    id: str | None = None
    outputs: list[_Output] | None = None
    parameters: dict[str, Any] | None = None


_decode: Final = msgspec.json.Decoder(_Request).decode


def read_request(body: Buffer, json_length: str | None) -> InferRequest:
    """Read the body of an inference request; tensors are views into it where that is possible.

    json_length: the header JSON_LENGTH. Raises MalformedBody, MalformedInput and NotSupported, which name the field.
    """
    view = memoryview(body)
    try:
        length = json_part(view.nbytes, json_length)
    except MalformedTensor as exc:
        raise MalformedBody(f"the body {exc}; {JSON_LENGTH} counts the bytes of the JSON, uncompressed") from None
    request = _read_json(view[:length])
    parameters = read_parameters(request.parameters)
    check_id(request.id or "")
    return InferRequest(
        id=request.id,
        inputs=_read_inputs(request.inputs, view[length:]),
        outputs=_read_outputs(request.outputs, parameters),
        parameters=parameters,
    )


def _read_json(text: memoryview) -> _Request:
    try:
        try:
            return _decode(text)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            # Perhaps NaN or infinity, as Python's json module writes them.
            return msgspec.convert(python_json.decode(text), _Request)
    except msgspec.ValidationError as exc:
        words, _, place = str(exc).partition(" - at `")
        field = place.removesuffix("`").removeprefix("$").removeprefix(".")
        raise MalformedBody(f"the body is no inference request: {words}", field) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as exc:
        raise MalformedBody(f"the body is not JSON: {exc}") from None


def _read_inputs(inputs: list[_Input], binary: memoryview) -> Tensors:
    found: Tensors = {}
    at = 0
    for index, given in enumerate(inputs):
        where = f"inputs[{index}]"
        check_input(given.name, given.datatype, found, where)
        size = (given.parameters or {}).get("binary_data_size")
        try:
            if given.parameters:
                refuse_unsupported(given.parameters, f"{where}.parameters")
            if size is None:
                found[given.name] = _of_json(given, where)
                continue
            data = take(binary, at, size)
            found[given.name] = raw.unpack(data, given.datatype, given.shape)
            at += data.nbytes
        except MalformedTensor as exc:
            raise MalformedInput(f"input {quoted(given.name)} {exc}", where) from None
    if at != binary.nbytes:
        raise MalformedBody(
            f"{binary.nbytes - at} bytes follow the JSON that belong to no input; give their binary_data_size"
        )
    return found


def _of_json(given: _Input, where: str) -> NDArray[Any]:
    """Return the tensor of nested or flat values. Raises MalformedInput, MalformedTensor for an impossible shape."""
    if given.data is msgspec.UNSET:
        raise MalformedBody(f"input {quoted(given.name)} has neither data nor a binary_data_size", f"{where}.data")
    if given.datatype in BINARY_ONLY:
        raise MalformedInput(
            f"input {quoted(given.name)} is {given.datatype}, which has no JSON form; send its bytes behind the JSON, "
            f"with binary_data_size and the header {JSON_LENGTH}",
            f"{where}.data",
        )
    count = raw.element_count(given.shape)
    try:
        array = as_array(given.data, given.datatype, given.name)
    except SignatureMismatch as exc:
        raise MalformedInput(exc.message, f"{where}.data") from None
    if array.size != count:
        raise MalformedInput(
            f"input {quoted(given.name)} has {array.size} values, but its shape {given.shape} needs {count}",
            f"{where}.data",
        )
    if array.ndim > 1 and list(array.shape) != given.shape:
        raise MalformedInput(
            f"input {quoted(given.name)} is nested as {list(array.shape)}, but its shape is {given.shape}; nest it so, "
            "or give one flat list",
            f"{where}.data",
        )
    return array.reshape(given.shape)


def _read_outputs(outputs: list[_Output] | None, parameters: Parameters) -> dict[str, bool] | None:
    if not outputs:
        return None
    found: dict[str, bool] = {}
    for index, wanted in enumerate(outputs):
        where = f"outputs[{index}]"
        check_output(wanted.name, found, where)
        if wanted.parameters:
            refuse_unsupported(wanted.parameters, f"{where}.parameters")
        own = flag(wanted.parameters, "binary_data", f"{where}.parameters")
        found[wanted.name] = parameters.binary if own is None else own
    return found
