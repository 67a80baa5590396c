"""The client of the Open Inference Protocol that workers use for model servers works with the gateway, too."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from tests.gateway.conftest import Running

from headrace.contracts.tensors.datatypes import DTYPES
from headrace.runtimes.remote.base import Access, Refused, parse_address
from headrace.runtimes.remote.oip.http import OipHttp
from headrace.runtimes.remote.transport.server_text import NotFound


@pytest.fixture
def connection(gateway: Running) -> Iterator[OipHttp]:
    connection = OipHttp(parse_address(gateway.url), "mirror", access=Access())
    yield connection
    connection.close()


def test_it_reads_the_signature(connection: OipHttp) -> None:
    found = connection.signature(30)
    assert ([spec.name for spec in found.inputs], [spec.name for spec in found.outputs]) == (["x"], ["y"])
    assert (found.platform, found.max_rows) == ("mirror", 8)


def test_it_runs_batches(connection: OipHttp) -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    answer = connection.infer({"x": x}, ["y"], 30)
    np.testing.assert_array_equal(answer.outputs["y"], x)
    assert answer.version == "2"


def test_it_checks_readiness(connection: OipHttp) -> None:
    connection.check_ready(30)


def test_it_sees_what_is_refused(connection: OipHttp) -> None:
    with pytest.raises(Refused, match="INT64"):
        connection.infer({"x": np.zeros((1, 2), np.int64)}, ["y"], 30)


def test_it_sees_that_there_is_no_such_model(gateway: Running) -> None:
    connection = OipHttp(parse_address(gateway.url), "nope", access=Access())
    with pytest.raises(NotFound, match="there is no model"):
        connection.infer({"x": np.zeros((1, 2), np.float32)}, ["y"], 30)
    connection.close()


@pytest.mark.parametrize("datatype", [name for name in DTYPES if name not in {"BYTES", "BOOL"}])
def test_it_gets_every_datatype_back(gateway: Running, datatype: str) -> None:
    connection = OipHttp(parse_address(gateway.url), f"mirror-{datatype.lower()}", access=Access())
    x = np.array([[0, 1, 2]]).astype(DTYPES[datatype])
    assert connection.infer({"x": x}, ["y"], 30).outputs["y"].tolist() == x.tolist()
    connection.close()
