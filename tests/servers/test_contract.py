"""One contract for a connection to a model server, over every server and every protocol that it speaks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.servers.conftest import Connect
from tests.servers.connections import TENSORS, WAYS, Way

from headrace.contracts.errors import PackageError
from headrace.contracts.tensors.datatypes import dtype_of
from headrace.runtimes.remote.base import BatchTooLarge, Misconfigured, Refused, ServerAway

#: Generous: it ends a call that hangs.
TIMEOUT_S = 30.0

#: Rows of the batches that are sent.
ROWS = (1, 2, 64)


def rows_of(model: str, rows: int) -> NDArray[Any]:
    """Return an input whose every value differs from its neighbours."""
    datatype, shape = TENSORS[model]
    count = rows * shape[0]
    if datatype == "BYTES":
        return np.array([f"word {number}".encode() for number in range(count)], dtype=object).reshape(rows, *shape)
    if datatype == "INT64":
        # No float holds these.
        return (np.arange(count, dtype=np.int64) + 2**53 + 1).reshape(rows, *shape)
    return (np.arange(count) % 100 / 4).astype(dtype_of(datatype)).reshape(rows, *shape)


def answer_to(model: str, x: NDArray[Any]) -> NDArray[Any]:
    if model == "text":
        return np.array([value.upper() for value in x.ravel()], dtype=object).reshape(x.shape)
    y: NDArray[Any] = x * x.dtype.type(2) + x.dtype.type(1)
    return y


every_way = pytest.mark.parametrize("way", WAYS, ids=str)


@pytest.mark.parametrize(
    ("way", "model"), [pytest.param(way, model, id=f"{way}-{model}") for way in WAYS for model in way.models]
)
def test_a_batch_of_any_size_is_computed_exactly(connect: Connect, way: Way, model: str) -> None:
    connection = connect(way, model)
    for rows in ROWS if model != "limited" else (1, 2, 32):
        x = rows_of(model, rows)
        answer = connection.infer({"x": x}, ["y"], TIMEOUT_S)
        assert list(answer.outputs) == ["y"]
        y = answer.outputs["y"]
        assert y.dtype == dtype_of(TENSORS[model][0])
        assert y.shape == x.shape
        np.testing.assert_array_equal(y, answer_to(model, x))


@pytest.mark.parametrize("way", [way for way in WAYS if way.knows_signature], ids=str)
def test_the_signature_is_that_of_the_model(connect: Connect, way: Way) -> None:
    for model in ("affine", "whole", "text"):
        connection = connect(way, model)
        signature = connection.signature(TIMEOUT_S)
        for found, name in zip((signature.inputs, signature.outputs), "xy", strict=True):
            assert [(each.name, each.datatype, each.shape) for each in found] == [(name, *TENSORS[model])]


@every_way
def test_answers_name_the_version_where_the_server_tells_it(connect: Connect, way: Way) -> None:
    connection = connect(way, "affine")
    assert connection.infer({"x": rows_of("affine", 1)}, [], TIMEOUT_S).version == way.version


@every_way
def test_a_model_that_is_there_is_ready(connect: Connect, way: Way) -> None:
    connection = connect(way, "affine")
    connection.check_ready(TIMEOUT_S)


@every_way
def test_an_unknown_model_waits_for_a_person_or_for_the_server(connect: Connect, way: Way) -> None:
    """A server that loads a model often says the same as one that has never heard of it."""
    connection = connect(way, "absent")
    for call in (
        lambda: connection.infer({"x": rows_of("affine", 1)}, ["y"], TIMEOUT_S),
        lambda: connection.check_ready(TIMEOUT_S),
    ):
        with pytest.raises((Misconfigured, ServerAway), match="absent"):
            call()


@every_way
def test_rows_of_another_size_are_refused_as_such(connect: Connect, way: Way) -> None:
    connection = connect(way, "affine")
    with pytest.raises(Refused):
        connection.infer({"x": np.ones((2, 5), np.float32)}, ["y"], TIMEOUT_S)
    # And the connection goes on.
    x = rows_of("affine", 3)
    np.testing.assert_array_equal(connection.infer({"x": x}, ["y"], TIMEOUT_S).outputs["y"], answer_to("affine", x))


@pytest.mark.parametrize("way", [way for way in WAYS if "limited" in way.models], ids=str)
def test_a_batch_above_the_servers_limit_tells_the_limit(connect: Connect, way: Way) -> None:
    connection = connect(way, "limited")
    with pytest.raises(BatchTooLarge) as caught:
        connection.infer({"x": rows_of("limited", 33)}, ["y"], TIMEOUT_S)
    assert caught.value.most_rows == 32


@pytest.mark.parametrize("server", ["kserve", "mlserver"])
def test_a_message_above_the_servers_limit_is_a_batch_too_large(connect: Connect, server: str) -> None:
    """KServe takes 8 MiB over gRPC, MLServer 4 MiB."""
    way = next(way for way in WAYS if (way.server, way.protocol) == (server, "grpc"))
    connection = connect(way, "whole")
    with pytest.raises(BatchTooLarge, match="larger than max"):
        connection.infer({"x": np.ones((400_000, 3), np.int64)}, ["y"], TIMEOUT_S)
    # 2 MiB are no trouble, nor are answers of that size.
    x = rows_of("whole", 100_000)
    np.testing.assert_array_equal(connection.infer({"x": x}, ["y"], TIMEOUT_S).outputs["y"], answer_to("whole", x))


@every_way
def test_a_call_that_takes_too_long_ends_at_its_deadline(connect: Connect, way: Way) -> None:
    connection = connect(way, "slow")
    with pytest.raises(ServerAway):
        connection.infer({"x": rows_of("slow", 1)}, ["y"], 0.2)


@pytest.mark.parametrize("way", [way for way in WAYS if way.server.startswith("tfserving")], ids=str)
def test_tensorflow_serving_answers_by_version_and_by_label(connect: Connect, way: Way) -> None:
    for chosen, version in (({"version": "1"}, "1"), ({"label": "stable"}, "1"), ({"label": "canary"}, "2")):
        connection = connect(way, "affine", **chosen)
        # Over REST an answer names no version: one by a label stays unknown.
        known = version if way.protocol == "grpc" or "version" in chosen else ""
        assert connection.infer({"x": rows_of("affine", 2)}, ["y"], TIMEOUT_S).version == known


@pytest.mark.parametrize("way", [way for way in WAYS if way.server.startswith("tfserving")], ids=str)
def test_several_inputs_and_the_outputs_that_are_wanted(connect: Connect, way: Way) -> None:
    connection = connect(way, "pair")
    a, b = np.ones((3, 2), np.float32), np.array([1, 2, 2**60], np.int64)
    both = connection.infer({"a": a, "b": b}, ["sum", "twice"], TIMEOUT_S).outputs
    np.testing.assert_array_equal(both["sum"], a + b[:, None].astype(np.float32))
    np.testing.assert_array_equal(both["twice"], b * 2)
    assert list(connection.infer({"a": a, "b": b}, ["twice"], TIMEOUT_S).outputs) == ["twice"]


@pytest.mark.parametrize("way", [way for way in WAYS if way.server.startswith("tfserving")], ids=str)
def test_a_model_without_rows_is_refused_before_anything_is_sent(connect: Connect, way: Way) -> None:
    connection = connect(way, "scalar")
    with pytest.raises(PackageError):
        connection.signature(TIMEOUT_S)


@pytest.mark.parametrize("way", [way for way in WAYS if way.server in ("triton", "tfserving")], ids=str)
def test_nan_and_infinity_come_back_as_they_went(connect: Connect, way: Way) -> None:
    connection = connect(way, "affine")
    x = np.array([[np.nan, np.inf, -np.inf, 0.1]], np.float32)
    np.testing.assert_array_equal(connection.infer({"x": x}, ["y"], TIMEOUT_S).outputs["y"], answer_to("affine", x))
