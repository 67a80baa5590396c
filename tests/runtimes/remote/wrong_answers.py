"""Answers of the Open Inference Protocol that no request may be given, by what is wrong with them.

Each is made for the right output `y`, FP32 [rows, 1], of a package that refuses NaN.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace.runtimes.remote.messages import oip

Array = NDArray[Any]


class HttpAnswer(NamedTuple):
    """A body of status 200. json_length: the header with the length of the JSON, where binary tensors follow it."""

    body: bytes
    json_length: str | None = None


def json_answer(y: Array, **changes: object) -> dict[str, Any]:
    """Return the right answer over HTTP; changes: of its output."""
    output = {"name": "y", "datatype": "FP32", "shape": list(y.shape), "data": y.ravel().tolist(), **changes}
    return {"model_name": "m", "model_version": "1", "outputs": [output]}


def _json(change: Callable[[Array], object]) -> Callable[[Array], HttpAnswer]:
    return lambda y: HttpAnswer(json.dumps(change(y)).encode())


def _body(body: bytes) -> Callable[[Array], HttpAnswer]:
    return lambda y: HttpAnswer(body)


def _right(y: Array) -> str:
    return json.dumps(json_answer(y))


def _twice(y: Array) -> dict[str, Any]:
    one = json_answer(y)
    one["outputs"] += json_answer(y + 1)["outputs"]
    return one


def _binary(json_length: str, size: int | None = None) -> Callable[[Array], HttpAnswer]:
    """Bytes after the JSON, at a place and of a size that may be lies. json_length: `{}` stands for the right one."""

    def respond(y: Array) -> HttpAnswer:
        parameters = {"binary_data_size": y.nbytes if size is None else size}
        output = {"name": "y", "datatype": "FP32", "shape": list(y.shape), "parameters": parameters}
        head = json.dumps({"model_name": "m", "outputs": [output]}).encode()
        return HttpAnswer(head + y.tobytes(), json_length.format(len(head)))

    return respond


HTTP: dict[str, Callable[[Array], HttpAnswer]] = {
    "too-few": _json(lambda y: json_answer(y[:-1])),
    "too-many": _json(lambda y: json_answer(np.concatenate([y, y]))),
    "no-rows": _json(lambda y: json_answer(y[:0])),
    "no-outputs": _json(lambda y: {"model_name": "m", "outputs": []}),
    "no-outputs-key": _json(lambda y: {"model_name": "m"}),
    "outputs-null": _json(lambda y: {"model_name": "m", "outputs": None}),
    "outputs-object": _json(lambda y: {"model_name": "m", "outputs": {"y": 1}}),
    "other-name": _json(lambda y: json_answer(y, name="z")),
    "name-null": _json(lambda y: json_answer(y, name=None)),
    "twice": _json(_twice),
    "fp64": _json(lambda y: json_answer(y, datatype="FP64")),
    "int64": _json(lambda y: json_answer(y, datatype="INT64", data=[1] * len(y))),
    "bytes": _json(lambda y: json_answer(y, datatype="BYTES", data=["1"] * len(y))),
    "no-such-datatype": _json(lambda y: json_answer(y, datatype="FP7")),
    "datatype-null": _json(lambda y: json_answer(y, datatype=None)),
    "wider": _json(lambda y: json_answer(np.concatenate([y, y], 1))),
    "rank-3": _json(lambda y: json_answer(y, shape=[len(y), 1, 2], data=[0.0] * 2 * len(y))),
    "shape-larger": _json(lambda y: json_answer(y, shape=[len(y), 2])),
    "shape-smaller": _json(lambda y: json_answer(y, data=[*y.ravel().tolist(), 1.0])),
    "shape-negative": _json(lambda y: json_answer(y, shape=[-len(y), -1])),
    "shape-minus-one": _json(lambda y: json_answer(y, shape=[-1, 2])),
    "shape-huge": _json(lambda y: json_answer(y, shape=[10**18, 10**18])),
    "shape-float": _json(lambda y: json_answer(y, shape=[len(y) + 0.5, 1])),
    "shape-text": _json(lambda y: json_answer(y, shape="many")),
    "no-shape": _json(lambda y: json_answer(y, shape=None)),
    "data-null": _json(lambda y: json_answer(y, data=None)),
    "data-text": _json(lambda y: json_answer(y, data=["a"] * len(y))),
    "data-objects": _json(lambda y: json_answer(y, data=[{}] * len(y))),
    "data-ragged": _json(lambda y: json_answer(y, data=[[1.0, 2.0], [1.0]])),
    "data-nulls": _json(lambda y: json_answer(y, data=[None] * len(y))),
    "nan": _json(lambda y: json_answer(y * np.nan)),
    "infinite": _json(lambda y: json_answer(y, data=[float("inf")] * len(y))),
    "overflow": lambda y: HttpAnswer(_right(y).replace('"data": [', '"data": [1e999, ').encode()),
    "html": _body(b"<html>It works!</html>"),
    "empty": _body(b""),
    "half-json": lambda y: HttpAnswer(_right(y)[:-5].encode()),
    "more-json": lambda y: HttpAnswer(_right(y).encode() + b"{}"),
    "json-list": _body(b"[]"),
    "json-null": _body(b"null"),
    "json-number": _body(b"7"),
    "json-deep": _body(b"[" * 200_000),
    "json-deep-object": _body(b'{"outputs":' * 100_000),
    "not-utf8": _body(b'{"outputs": "\xff\xfe"}'),
    "utf16": lambda y: HttpAnswer(_right(y).encode("utf-16")),
    "long-number": _body(b'{"outputs": [' + b"9" * 100_000 + b"]}"),
    "header-length-beyond": _binary("99999"),
    "header-length-negative": _binary("-1"),
    "header-length-text": _binary("many"),
    "header-length-zero": _binary("0"),
    "header-length-huge": _binary("9" * 5000),
    "binary-size-lie": _binary("{}", 3),
    "binary-size-negative": _binary("{}", -4),
    "binary-size-huge": _binary("{}", 10**15),
}


def message(y: Array, raw: list[bytes] | None = None, **changes: object) -> oip.ModelInferResponse:
    """Return the right answer over gRPC; changes: of its output. raw: in place of its contents."""
    found = oip.ModelInferResponse(model_name="m", model_version="1")
    found.outputs.add(**{"name": "y", "datatype": "FP32", "shape": y.shape, **changes})
    found.raw_output_contents.extend([y.tobytes()] if raw is None else raw)
    return found


def _proto(change: Callable[[Array], oip.ModelInferResponse]) -> Callable[[Array], bytes]:
    return lambda y: bytes(change(y).SerializeToString())


def _message_twice(y: Array) -> oip.ModelInferResponse:
    found = message(y)
    found.MergeFrom(message(y + 1))
    return found


def _typed(y: Array, **contents: object) -> oip.ModelInferResponse:
    found = message(y, raw=[])
    for name, values in contents.items():
        getattr(found.outputs[0].contents, name).extend(values)
    return found


GRPC: dict[str, Callable[[Array], bytes]] = {
    "too-few": _proto(lambda y: message(y[:-1])),
    "too-many": _proto(lambda y: message(np.concatenate([y, y]))),
    "no-rows": _proto(lambda y: message(y[:0])),
    "no-outputs": _proto(lambda y: oip.ModelInferResponse(model_name="m")),
    "empty-message": lambda y: b"",
    "other-name": _proto(lambda y: message(y, name="z")),
    "no-name": _proto(lambda y: message(y, name="")),
    "twice": _proto(_message_twice),
    "fp64": _proto(lambda y: message(y.astype(np.float64), datatype="FP64")),
    "int32": _proto(lambda y: message(y.astype(np.int32), datatype="INT32")),
    "bytes": _proto(lambda y: message(y, datatype="BYTES")),
    "no-such-datatype": _proto(lambda y: message(y, datatype="FP7")),
    "no-datatype": _proto(lambda y: message(y, datatype="")),
    "wider": _proto(lambda y: message(np.concatenate([y, y], 1))),
    "shape-larger": _proto(lambda y: message(y, shape=[len(y), 2])),
    "shape-negative": _proto(lambda y: message(y, shape=[-len(y), -1])),
    "shape-minus-one": _proto(lambda y: message(y, shape=[-1, 2])),
    "shape-huge": _proto(lambda y: message(y, shape=[2**62, 2**62])),
    "raw-too-short": _proto(lambda y: message(y, raw=[y.tobytes()[:-1]])),
    "raw-too-long": _proto(lambda y: message(y, raw=[y.tobytes() + b"\0\0\0\0"])),
    "raw-empty": _proto(lambda y: message(y, raw=[b""])),
    "raw-two": _proto(lambda y: message(y, raw=[b"", y.tobytes()])),
    "typed-nothing": _proto(_typed),
    "typed-too-few": _proto(lambda y: _typed(y, fp32_contents=y.ravel()[:-1])),
    "typed-too-many": _proto(lambda y: _typed(y, fp32_contents=[*y.ravel(), 1.0])),
    "typed-other": _proto(lambda y: _typed(y, int64_contents=[1] * len(y))),
    "nan": _proto(lambda y: message(y * np.float32(np.nan))),
    "garbage": lambda y: b"\xff" * 100,
    "truncated": lambda y: bytes(message(y).SerializeToString()[:-3]),
}
