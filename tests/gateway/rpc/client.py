"""A client of the gateway over gRPC that sends what a test likes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray

from headrace.contracts.tensors.datatypes import datatype_of
from headrace.contracts.tensors.raw import pack
from headrace.gateway.rpc.service import SERVICE
from headrace.runtimes.remote.base import Answer
from headrace.runtimes.remote.messages import oip
from headrace.runtimes.remote.messages.contents import write_contents
from headrace.runtimes.remote.oip.messages import read_answer

#: No call of a test takes longer on its own.
LIMIT_S = 60.0


@dataclass
class Client:
    """A channel to a gateway."""

    channel: grpc.Channel

    def send(self, call: str, request: Message | bytes, **options: Any) -> bytes:
        """Make a call. Raises grpc.RpcError."""
        received: bytes = self.start(call, request, **options).result()
        return received

    def start(self, call: str, request: Message | bytes, **options: Any) -> Any:
        """Make a call, and return its future."""
        received = request if isinstance(request, bytes) else request.SerializeToString()
        stub: Any = self.channel.unary_unary(f"/{SERVICE}/{call}")
        return stub.future(received, **{"timeout": LIMIT_S, **options})

    def infer(self, model: str, *values: float, **options: Any) -> Answer:
        """Run a model on one row of FP32."""
        return read_answer(self.send("ModelInfer", row(model, *values), **options), "mine")

    def refusal(self, call: str, request: Message | bytes, **options: Any) -> Refusal:
        """Make a call that must fail."""
        return refusal_of(self.start(call, request, **options))


@dataclass
class Refusal:
    """The status of a call that failed."""

    code: grpc.StatusCode
    text: str
    metadata: Mapping[str, str]


def refusal_of(future: Any) -> Refusal:
    """Return the end of a call that must fail."""
    error = future.exception()
    assert error is not None, "the call succeeded"
    metadata = dict(error.trailing_metadata() or ())
    return Refusal(error.code(), error.details(), metadata)


@contextmanager
def connected(address: str) -> Iterator[Client]:
    """Open a channel, and close it."""
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(address, options) as channel:
        yield Client(channel)


def request(
    model: str,
    inputs: Mapping[str, NDArray[Any]],
    *,
    raw: bool = True,
    outputs: Sequence[str] = (),
    parameters: Mapping[str, object] | None = None,
    version: str = "",
) -> oip.ModelInferRequest:
    """Return a request with the id `mine`. parameters: values by name, whole numbers as int64."""
    found = oip.ModelInferRequest(model_name=model, model_version=version, id="mine")
    for name, array in inputs.items():
        datatype = datatype_of(array.dtype)
        given = found.inputs.add(name=name, datatype=datatype, shape=array.shape)
        if raw:
            found.raw_input_contents.append(bytes(pack(array)))
        else:
            given.contents.MergeFromString(b"".join(write_contents(array, datatype)))
    for name in outputs:
        found.outputs.add(name=name)
    kinds = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}
    for name, value in (parameters or {}).items():
        setattr(found.parameters[name], kinds[type(value)], value)
    return found


def row(model: str, *values: float, **options: Any) -> oip.ModelInferRequest:
    """Return a request of one row of FP32."""
    return request(model, {"x": np.array([values], np.float32)}, **options)
