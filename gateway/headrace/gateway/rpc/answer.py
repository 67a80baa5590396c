"""Messages of answers to inference requests, written around the memory of the outputs."""

from __future__ import annotations

from typing import Final

from headrace.contracts.errors import quoted
from headrace.contracts.tensors.codec import Tensors
from headrace.contracts.tensors.datatypes import datatype_of
from headrace.contracts.tensors.oip_http import BINARY_ONLY
from headrace.contracts.tensors.raw import pack
from headrace.gateway.oip.answer import Identity
from headrace.gateway.oip.errors import MalformedBody
from headrace.runtimes.remote.messages import oip
from headrace.runtimes.remote.messages.contents import write_contents
from headrace.runtimes.remote.messages.wire import Parts, field, serialized

#: Numbers of fields that are written around arrays: of ModelInferResponse, and of an output in it.
_OUTPUTS: Final = 5
_RAW_OUTPUTS: Final = 6
_CONTENTS: Final = 5


def write_answer(identity: Identity, outputs: Tensors, *, raw: bool) -> bytes:
    """Write a ModelInferResponse. raw: whether outputs come as raw contents; typed ones have no FP16 and BF16.

    Raises MalformedBody.
    """
    head = oip.ModelInferResponse(model_name=identity.model, model_version=identity.version, id=identity.id)
    parts: Parts = [serialized(head)]
    behind: Parts = []
    for name, array in outputs.items():
        datatype = datatype_of(array.dtype)
        described = oip.ModelInferResponse.InferOutputTensor(name=name, datatype=datatype, shape=array.shape)
        if raw:
            parts += field(_OUTPUTS, [serialized(described)])
            behind += field(_RAW_OUTPUTS, [pack(array)])
        else:
            refuse_raw_only(name, datatype)
            contents = field(_CONTENTS, write_contents(array, datatype))
            parts += field(_OUTPUTS, [serialized(described), *contents])
    return b"".join([*parts, *behind])


def refuse_raw_only(name: str, datatype: str) -> None:
    """Raise MalformedBody for an output whose datatype has no typed contents."""
    if datatype in BINARY_ONLY:
        raise MalformedBody(
            f"output {quoted(name)} is {datatype}, which has no typed contents; send the inputs as raw_input_contents, "
            "or the parameter binary_data_output: true",
            "outputs",
        )
