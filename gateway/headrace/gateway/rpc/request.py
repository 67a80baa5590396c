"""Messages of inference requests: tensors as raw contents, or as typed contents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from headrace.contracts.errors import quoted
from headrace.contracts.tensors import raw
from headrace.contracts.tensors.codec import Tensors
from headrace.contracts.tensors.oip_http import BINARY_ONLY
from headrace.contracts.tensors.raw import MalformedTensor
from headrace.gateway.oip.checks import check_id, check_input, check_output
from headrace.gateway.oip.errors import MalformedBody, MalformedInput
from headrace.gateway.oip.parameters import Parameters, read_parameters, refuse_unsupported
from headrace.gateway.oip.request import InferRequest
from headrace.runtimes.remote.messages import oip
from headrace.runtimes.remote.messages.contents import read_contents

_RAW: Final = "raw_input_contents"

_Message = TypeVar("_Message", bound=Message)


class ModelRequest(msgspec.Struct, frozen=True):
    """A request to a model. version: "" is the workers' default."""

    model: str
    version: str
    request: InferRequest


def read_message(kind: type[_Message], received: bytes) -> _Message:
    """Return a message from its bytes. Raises MalformedBody."""
    try:
        return kind.FromString(received)
    except DecodeError:
        raise MalformedBody(f"the message is no {kind.__name__} of the Open Inference Protocol v2") from None


def read_request(received: bytes) -> ModelRequest:
    """Read a ModelInferRequest; tensors with raw contents are views into it where that is possible.

    Raises MalformedBody, MalformedInput and NotSupported, which name the field.
    """
    message = read_message(oip.ModelInferRequest, received)
    parameters = read_parameters(_values(message.parameters))
    if len(message.raw_input_contents):
        # Who sends bytes reads bytes; `binary_data_output` asks for them after typed contents.
        parameters = msgspec.structs.replace(parameters, binary=True)
    check_id(message.id)
    request = InferRequest(
        id=message.id or None,
        inputs=_read_inputs(message),
        outputs=_read_outputs(message, parameters),
        parameters=parameters,
    )
    return ModelRequest(message.model_name, message.model_version, request)


def _values(parameters: Mapping[str, oip.InferParameter]) -> dict[str, Any]:
    """Return parameters by name; those without a value are left out."""
    chosen = {name: parameter.WhichOneof("parameter_choice") for name, parameter in parameters.items()}
    return {name: getattr(parameters[name], field) for name, field in chosen.items() if field}


def _read_inputs(message: oip.ModelInferRequest) -> Tensors:
    contents = message.raw_input_contents
    if len(contents) not in (0, len(message.inputs)):
        raise MalformedBody(
            f"the request has {len(message.inputs)} inputs, but {_RAW} of {len(contents)}; send them for every input, "
            "or for none",
            _RAW,
        )
    found: Tensors = {}
    for index, given in enumerate(message.inputs):
        where = f"inputs[{index}]"
        check_input(given.name, given.datatype, found, where)
        refuse_unsupported(_values(given.parameters), f"{where}.parameters")
        try:
            found[given.name] = _read_input(given, contents[index] if len(contents) else None)
        except MalformedTensor as exc:
            raise MalformedInput(f"input {quoted(given.name)} {exc}", where) from None
    return found


def _read_input(given: oip.ModelInferRequest.InferInputTensor, content: bytes | None) -> NDArray[Any]:
    typed = given.contents.ListFields()
    if content is not None:
        if typed:
            raise MalformedTensor(f"has contents and {_RAW}, of which a request must use one")
        return raw.unpack(content, given.datatype, given.shape)
    if given.datatype in BINARY_ONLY:
        raise MalformedTensor(f"is {given.datatype}, which has no typed contents; send {_RAW}")
    if len(typed) > 1:
        raise MalformedTensor(f"has contents of several types: {', '.join(field.name for field, _ in typed)}")
    return read_contents(given.contents, given.datatype, given.shape)


def _read_outputs(message: oip.ModelInferRequest, parameters: Parameters) -> dict[str, bool] | None:
    if not len(message.outputs):
        return None
    found: dict[str, bool] = {}
    for index, wanted in enumerate(message.outputs):
        where = f"outputs[{index}]"
        check_output(wanted.name, found, where)
        refuse_unsupported(_values(wanted.parameters), f"{where}.parameters")
        found[wanted.name] = parameters.binary
    return found
