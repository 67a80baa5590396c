"""Servers whose answers aren't what the package says: each request ends by name, and none gets another's answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.workers.servers.hostile import grpc_peer, http_peer
from tests.workers.servers.hostile.conftest import Arena
from tests.workers.servers.hostile.grpc_peer import x_of
from tests.workers.servers.hostile.http_peer import Call

from headrace.contracts import DeadlineExceeded, InferenceFailed
from headrace.runtimes.remote.messages import oip


def _http(change: Callable[[np.ndarray], dict[str, Any]]) -> http_peer.Behaviour:
    return lambda call: call.respond(json.dumps(change(2 * call.x)))


def _text(body: bytes | str, status: str = "200 OK", **headers: str) -> http_peer.Behaviour:
    return lambda call: call.respond(body, status, **headers)


def _good(y: np.ndarray) -> str:
    return json.dumps(http_peer.answer(y))


def _twice(y: np.ndarray) -> dict[str, Any]:
    one = http_peer.answer(y)
    one["outputs"] += http_peer.answer(y + 1)["outputs"]
    return one


def _binary(length: str, claimed: int | None = None) -> http_peer.Behaviour:
    """An answer whose bytes follow the JSON, at a place and of a size that may be lies."""

    def respond(call: Call) -> None:
        y = 2 * call.x
        output = {"name": "y", "datatype": "FP32", "shape": list(y.shape)}
        output["parameters"] = {"binary_data_size": y.nbytes if claimed is None else claimed}
        head = json.dumps({"model_name": "m", "outputs": [output]})
        call.respond(
            head.encode() + y.tobytes(),
            content_type="application/octet-stream",
            Inference_Header_Content_Length=length.format(len(head)),
        )

    return respond


#: What a server answers over HTTP that no request may be given.
HTTP: dict[str, http_peer.Behaviour] = {
    "too-few": _http(lambda y: http_peer.answer(y[:-1])),
    "too-many": _http(lambda y: http_peer.answer(np.concatenate([y, y]))),
    "no-rows": _http(lambda y: http_peer.answer(y[:0])),
    "no-outputs": _http(lambda y: {"model_name": "m", "outputs": []}),
    "no-outputs-key": _http(lambda y: {"model_name": "m"}),
    "outputs-null": _http(lambda y: {"model_name": "m", "outputs": None}),
    "outputs-object": _http(lambda y: {"model_name": "m", "outputs": {"y": 1}}),
    "other-name": _http(lambda y: http_peer.answer(y, name="z")),
    "name-null": _http(lambda y: http_peer.answer(y, name=None)),
    "twice": _http(_twice),
    "fp64": _http(lambda y: http_peer.answer(y, datatype="FP64")),
    "int64": _http(lambda y: http_peer.answer(y, datatype="INT64", data=[1] * len(y))),
    "bytes": _http(lambda y: http_peer.answer(y, datatype="BYTES", data=["1"] * len(y))),
    "no-such-datatype": _http(lambda y: http_peer.answer(y, datatype="FP7")),
    "datatype-null": _http(lambda y: http_peer.answer(y, datatype=None)),
    "wider": _http(lambda y: http_peer.answer(np.concatenate([y, y], 1))),
    "rank-3": _http(lambda y: http_peer.answer(y, shape=[len(y), 1, 2], data=[0.0] * 2 * len(y))),
    "shape-larger": _http(lambda y: http_peer.answer(y, shape=[len(y), 2])),
    "shape-smaller": _http(lambda y: http_peer.answer(y, data=[*y.ravel().tolist(), 1.0])),
    "shape-negative": _http(lambda y: http_peer.answer(y, shape=[-len(y), -1])),
    "shape-minus-one": _http(lambda y: http_peer.answer(y, shape=[-1, 2])),
    "shape-huge": _http(lambda y: http_peer.answer(y, shape=[10**18, 10**18])),
    "shape-float": _http(lambda y: http_peer.answer(y, shape=[len(y) + 0.5, 1])),
    "shape-text": _http(lambda y: http_peer.answer(y, shape="many")),
    "no-shape": _http(lambda y: http_peer.answer(y, shape=None)),
    "data-null": _http(lambda y: http_peer.answer(y, data=None)),
    "data-text": _http(lambda y: http_peer.answer(y, data=["a"] * len(y))),
    "data-objects": _http(lambda y: http_peer.answer(y, data=[{}] * len(y))),
    "data-ragged": _http(lambda y: http_peer.answer(y, data=[[1.0, 2.0], [1.0]])),
    "data-nulls": _http(lambda y: http_peer.answer(y, data=[None] * len(y))),
    "nan": _http(lambda y: http_peer.answer(y * np.nan)),
    "infinite": _http(lambda y: http_peer.answer(y, data=[float("inf")] * len(y))),
    "overflow": lambda call: call.respond(_good(2 * call.x).replace('"data": [', '"data": [1e999, ')),
    "error-body": _text('{"error": "CUDA is out of order"}'),
    "html": _text("<html>It works!</html>", content_type="text/html"),
    "empty": _text(""),
    "no-content": lambda call: call.send(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "half-json": lambda call: call.respond(_good(2 * call.x)[:-5]),
    "more-json": lambda call: call.respond(_good(2 * call.x) + "{}"),
    "json-list": _text("[]"),
    "json-null": _text("null"),
    "json-number": _text("7"),
    "json-deep": _text("[" * 200_000),
    "json-deep-object": _text('{"outputs":' * 100_000),
    "not-utf8": _text(b'{"outputs": "\xff\xfe"}'),
    "utf16": lambda call: call.respond(_good(2 * call.x).encode("utf-16")),
    "long-number": _text('{"outputs": [' + "9" * 100_000 + "]}"),
    "gzip-lie": lambda call: call.respond(_good(2 * call.x), content_encoding="gzip"),
    "header-length-beyond": _binary("99999"),
    "header-length-negative": _binary("-1"),
    "header-length-text": _binary("many"),
    "header-length-zero": _binary("0"),
    "header-length-huge": _binary("9" * 5000),
    "binary-size-lie": _binary("{}", 3),
    "binary-size-negative": _binary("{}", -4),
    "binary-size-huge": _binary("{}", 10**15),
}


def _grpc(change: Callable[[np.ndarray], Any]) -> grpc_peer.Behaviour:
    return lambda request, context: change(2 * x_of(request))


def _grpc_twice(y: np.ndarray) -> Any:
    message = grpc_peer.answer(y)
    message.MergeFrom(grpc_peer.answer(y + 1))
    return message


def _typed(y: np.ndarray, **contents: Any) -> Any:
    message = oip.ModelInferResponse(model_name="m")
    output = message.outputs.add(name="y", datatype="FP32", shape=y.shape)
    for name, values in contents.items():
        getattr(output.contents, name).extend(values)
    return message


def _no_raw(y: np.ndarray, raw: list[bytes]) -> Any:
    message = grpc_peer.answer(y)
    del message.raw_output_contents[:]
    message.raw_output_contents.extend(raw)
    return message


#: What a server answers over gRPC that no request may be given.
GRPC: dict[str, grpc_peer.Behaviour] = {
    "too-few": _grpc(lambda y: grpc_peer.answer(y[:-1])),
    "too-many": _grpc(lambda y: grpc_peer.answer(np.concatenate([y, y]))),
    "no-rows": _grpc(lambda y: grpc_peer.answer(y[:0])),
    "no-outputs": _grpc(lambda y: oip.ModelInferResponse(model_name="m")),
    "empty-message": _grpc(lambda y: b""),
    "other-name": _grpc(lambda y: grpc_peer.answer(y, name="z")),
    "no-name": _grpc(lambda y: grpc_peer.answer(y, name="")),
    "twice": _grpc(_grpc_twice),
    "fp64": _grpc(lambda y: grpc_peer.answer(y.astype(np.float64), datatype="FP64")),
    "int32": _grpc(lambda y: grpc_peer.answer(y.astype(np.int32), datatype="INT32")),
    "bytes": _grpc(lambda y: grpc_peer.answer(y, datatype="BYTES")),
    "no-such-datatype": _grpc(lambda y: grpc_peer.answer(y, datatype="FP7")),
    "no-datatype": _grpc(lambda y: grpc_peer.answer(y, datatype="")),
    "wider": _grpc(lambda y: grpc_peer.answer(np.concatenate([y, y], 1))),
    "shape-larger": _grpc(lambda y: grpc_peer.answer(y, shape=[len(y), 2])),
    "shape-negative": _grpc(lambda y: grpc_peer.answer(y, shape=[-len(y), -1])),
    "shape-minus-one": _grpc(lambda y: grpc_peer.answer(y, shape=[-1, 2])),
    "shape-huge": _grpc(lambda y: grpc_peer.answer(y, shape=[2**62, 2**62])),
    "raw-too-short": _grpc(lambda y: grpc_peer.answer(y, raw=y.tobytes()[:-1])),
    "raw-too-long": _grpc(lambda y: grpc_peer.answer(y, raw=y.tobytes() + b"\0\0\0\0")),
    "raw-empty": _grpc(lambda y: grpc_peer.answer(y, raw=b"")),
    "raw-two": _grpc(lambda y: _no_raw(y, [b"", y.tobytes()])),
    "typed-nothing": _grpc(_typed),
    "typed-too-few": _grpc(lambda y: _typed(y, fp32_contents=y.ravel()[:-1])),
    "typed-too-many": _grpc(lambda y: _typed(y, fp32_contents=[*y.ravel(), 1.0])),
    "typed-other": _grpc(lambda y: _typed(y, int64_contents=[1] * len(y))),
    "nan": _grpc(lambda y: grpc_peer.answer(y * np.float32(np.nan))),
    "garbage": _grpc(lambda y: b"\xff" * 100),
    "truncated": _grpc(lambda y: grpc_peer.answer(y).SerializeToString()[:-3]),
}

_ALL = [*(f"h-{name}" for name in HTTP), *(f"g-{name}" for name in GRPC)]
PACKAGES = {name: {"nan": "refuse"} for name in _ALL}


@pytest.mark.parametrize("model", _ALL)
def test_a_wrong_answer_fails_its_requests_by_name_and_no_other_model_feels_it(arena: Arena, model: str) -> None:
    if model.startswith("h-"):
        arena.http.models[model].infer = HTTP[model[2:]]
    else:
        arena.grpc.models[model].infer = GRPC[model[2:]]
    ends = arena.ends(model, *range(1, 13))
    # What is packed, or says so, is a matter of the way: requests wait.
    wanted = DeadlineExceeded if model == "h-gzip-lie" else InferenceFailed
    assert all(isinstance(each, wanted) for each in ends), ends
    assert all(each.message for each in ends)
    arena.is_well(model)
    arena.mend(model)
