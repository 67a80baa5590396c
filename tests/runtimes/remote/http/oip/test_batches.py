"""Batches over HTTP: tensors as bytes or as JSON, as the server takes them, and what else a request says."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import DTypeLike
from tests.runtimes.remote.http.oip.conftest import Connect
from tests.runtimes.remote.http.oip.fake_server import (
    KSERVE,
    LONG_S,
    MLSERVER,
    TRITON,
    Document,
    FakeServer,
    X,
    answered,
    echo,
    parts,
)
from tests.runtimes.remote.http.scripted import Asked, reply

from headrace.runtimes.remote.base import Misconfigured, Refused, ServerAway
from headrace.runtimes.remote.encoding.raw import pack


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(
    "x",
    [
        X,
        np.array([[math.nan, math.inf, -0.0]], np.float64),
        np.array([[2**63 - 1, -(2**63)]], np.int64),
        np.array([[True], [False]]),
        np.array([[2**64 - 1]], np.uint64),
        np.array([["ä".encode(), b""]], object),
        np.zeros((0, 3), np.float32),
    ],
    ids=["FP32", "NaN", "INT64", "BOOL", "UINT64", "BYTES", "empty"],
)
def test_tensors_travel_exactly(connect: Connect, binary: bool, x: np.ndarray) -> None:
    server, connection = connect(FakeServer(TRITON if binary else MLSERVER))
    answer = connection.infer({"x": x}, ["y"], LONG_S)
    assert ("inference-header-content-length" in server.asked[-1].headers) is binary
    assert answer.version == "3"
    found = answer.outputs["y"]
    assert (found.dtype, found.shape) == (x.dtype, x.shape)
    assert pack(found) == pack(x)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_travels_as_bytes_alone(connect: Connect, dtype: DTypeLike) -> None:
    x = np.array([[1.5, -2.0]], dtype)
    assert connect(FakeServer(TRITON))[1].infer({"x": x}, ["y"], LONG_S).outputs["y"].tobytes() == x.tobytes()
    server, connection = connect(FakeServer(MLSERVER))
    with pytest.raises(Misconfigured, match=r"input 'x' is (FP16|BF16), which has no JSON form"):
        connection.infer({"x": x}, ["y"], LONG_S)
    assert [asked.path for asked in server.asked] == ["/v2"]


def test_bytes_that_are_no_text_travel_as_bytes_alone(connect: Connect) -> None:
    x = np.array([[b"\xff\x00"]], object)
    assert connect(FakeServer(TRITON))[1].infer({"x": x}, ["y"], LONG_S).outputs["y"].tolist() == [[b"\xff\x00"]]
    with pytest.raises(Refused, match="no UTF-8 text"):
        connect(FakeServer(MLSERVER))[1].infer({"x": x}, ["y"], LONG_S)


def test_the_server_is_asked_for_its_extensions_once(connect: Connect) -> None:
    server, connection = connect(FakeServer(TRITON))
    for _ in range(3):
        connection.infer({"x": X}, ["y"], LONG_S)
    assert [asked.path for asked in server.asked].count("/v2") == 1


def test_after_a_server_was_away_it_is_asked_again(connect: Connect) -> None:
    fake = FakeServer(TRITON)
    server, connection = connect(fake)
    connection.infer({"x": X}, ["y"], LONG_S)
    fake.infer = lambda asked: None
    with pytest.raises(ServerAway):
        connection.infer({"x": X}, ["y"], LONG_S)
    fake.server, fake.infer = MLSERVER, echo
    connection.infer({"x": X}, ["y"], LONG_S)
    assert "inference-header-content-length" not in server.asked[-1].headers


@pytest.mark.parametrize(("version", "binary"), [("0.21.0", True), ("0.14.0rc1", True), ("0.13.1", False), ("", False)])
def test_kserve_takes_bytes_though_it_does_not_say_so(connect: Connect, version: str, binary: bool) -> None:
    server, connection = connect(FakeServer(KSERVE | {"version": version}))
    connection.infer({"x": X}, ["y"], LONG_S)
    assert ("inference-header-content-length" in server.asked[-1].headers) is binary


@pytest.mark.parametrize(
    "description",
    [reply(404, b"nope"), reply(501), reply(405), reply(200, b'{"name":null,"extensions":null}'), reply(200, b"{}")],
)
def test_a_server_that_does_not_describe_itself_gets_json(connect: Connect, description: bytes) -> None:
    server, connection = connect(FakeServer(None, paths={"/v2": description}))
    connection.infer({"x": X}, ["y"], LONG_S)
    assert server.asked[-1].headers["content-type"] == "application/json"


def test_every_request_has_an_id_of_its_own(connect: Connect) -> None:
    server, connection = connect(FakeServer(MLSERVER))
    for _ in range(3):
        connection.infer({"x": X}, ["y"], LONG_S)
    ids = [parts(asked)[0]["id"] for asked in server.asked if asked.method == "POST"]
    assert len(set(ids)) == 3
    assert all(ids)


@pytest.mark.parametrize("server_of", [TRITON, MLSERVER])
def test_the_outputs_that_are_wanted_are_asked_for(connect: Connect, server_of: Document) -> None:
    def infer(asked: Asked) -> bytes:
        question = parts(asked)[0]
        y = {"name": "y", "datatype": "FP32", "shape": [1], "data": [1.0]}
        return answered({"id": question["id"], "outputs": [y, y | {"name": "z"}, y | {"name": "debug"}]})

    server, connection = connect(FakeServer(server_of, infer))
    assert list(connection.infer({"x": X}, ["z", "y"], LONG_S).outputs) == ["z", "y"]
    assert [output["name"] for output in parts(server.asked[-1])[0]["outputs"]] == ["z", "y"]
    assert list(connection.infer({"x": X}, [], LONG_S).outputs) == ["y", "z", "debug"]


def test_triton_is_told_how_long_a_batch_may_wait(connect: Connect) -> None:
    server, connection = connect(FakeServer(TRITON))
    connection.infer({"x": X}, ["y"], 12.0)
    assert 0 < parts(server.asked[-1])[0]["parameters"]["timeout"] <= 12_000_000
    server, connection = connect(FakeServer(MLSERVER))
    connection.infer({"x": X}, ["y"], 12.0)
    assert "parameters" not in parts(server.asked[-1])[0]


def test_an_answer_may_mix_json_and_bytes(connect: Connect) -> None:
    def infer(asked: Asked) -> bytes:
        outputs = [
            {"name": "a", "datatype": "INT64", "shape": [2], "data": [1, 2]},
            {"name": "b", "datatype": "FP32", "shape": [2, 1], "parameters": {"binary_data_size": 8}},
            {"name": "c", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 10}},
        ]
        raw = np.array([1, 2], np.float32).tobytes() + pack(np.array([b"a", b"b"], object))
        return answered({"id": parts(asked)[0]["id"], "outputs": outputs}, raw)

    outputs = connect(FakeServer(TRITON, infer))[1].infer({"x": X}, ["a", "b", "c"], LONG_S).outputs
    assert outputs["a"].tolist() == [1, 2]
    assert outputs["b"].tolist() == [[1], [2]]
    assert outputs["c"].tolist() == [b"a", b"b"]
