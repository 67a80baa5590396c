"""ModelInfer against a real worker: every datatype raw and typed, names, parameters, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from grpc import StatusCode
from numpy.typing import NDArray
from tests.gateway.conftest import Served
from tests.gateway.rpc.client import Client, request, row

from headrace.contracts.tensors.datatypes import DTYPES
from headrace.contracts.tensors.oip_http import BINARY_ONLY
from headrace.runtimes.remote.messages import oip
from headrace.runtimes.remote.oip.messages import read_answer


def example(datatype: str) -> NDArray[Any]:
    """Return two rows at the ends of what a datatype holds."""
    dtype = DTYPES[datatype]
    if datatype == "BYTES":
        return np.array([[b"", b"\xff\0"], ["ä".encode(), b"x" * 300]], object)
    if datatype == "BOOL":
        return np.array([[True, False], [False, True]])
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.array([[limits.min, limits.max], [0, 1]], dtype)
    with np.errstate(over="ignore"):
        return np.array([[np.nan, -np.inf], [-0.0, 1.5]]).astype(dtype)


def same(found: NDArray[Any], given: NDArray[Any]) -> bool:
    return (
        found.dtype == given.dtype and found.shape == given.shape and found.tolist().__repr__() == repr(given.tolist())
    )


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("datatype", DTYPES)
def test_every_datatype_comes_back_in_the_form_in_which_it_was_sent(client: Client, datatype: str, raw: bool) -> None:
    x = example(datatype)
    asked = request(f"mirror-{datatype.lower()}", {"x": x}, raw=raw or datatype in BINARY_ONLY)
    if datatype in BINARY_ONLY and not raw:
        asked.inputs[0].contents.fp32_contents.extend([1.0] * x.size)
        del asked.raw_input_contents[:]
        refused = client.refusal("ModelInfer", asked)
        assert refused.code is StatusCode.INVALID_ARGUMENT
        assert "no typed contents; send raw_input_contents" in refused.text
        return
    received = client.send("ModelInfer", asked)
    assert same(read_answer(received, "mine").outputs["y"], x)
    answer = oip.ModelInferResponse.FromString(received)
    assert len(answer.raw_output_contents) == int(raw)
    assert bool(answer.outputs[0].contents.ListFields()) is not raw


def test_the_answer_has_the_names_the_version_and_the_row(client: Client, served: Served) -> None:
    call = client.start("ModelInfer", row("mirror", 1, 2))
    answer = oip.ModelInferResponse.FromString(call.result())
    assert (answer.model_name, answer.model_version, answer.id) == ("mirror", "2", "mine")
    (row_id,) = [value for key, value in call.trailing_metadata() if key == "headrace-request-id"]
    found = served.row(row_id)
    assert found is not None
    assert found.state == "succeeded"


def test_without_an_id_the_answer_has_that_of_the_row(client: Client, served: Served) -> None:
    asked = row("mirror", 1)
    asked.ClearField("id")
    answer = oip.ModelInferResponse.FromString(client.send("ModelInfer", asked))
    assert served.row(answer.id) is not None


def test_a_version_is_asked_for(client: Client) -> None:
    answer = read_answer(client.send("ModelInfer", row("mirror", 1, version="1")), "mine")
    assert answer.version == "1"


def test_an_output_is_asked_for(client: Client) -> None:
    answer = read_answer(client.send("ModelInfer", row("mirror", 7, outputs=["y"])), "mine")
    assert answer.outputs["y"].tolist() == [[7]]


def test_typed_contents_are_answered_raw_where_a_parameter_asks_for_it(client: Client) -> None:
    asked = row("mirror", 7, raw=False, parameters={"binary_data_output": True})
    answer = oip.ModelInferResponse.FromString(client.send("ModelInfer", asked))
    assert len(answer.raw_output_contents) == 1


def test_a_compressed_message_is_read(client: Client) -> None:
    from grpc import Compression

    x = np.zeros((1, 100_000), np.float32)
    received = client.send("ModelInfer", request("mirror", {"x": x}), compression=Compression.Gzip)
    assert read_answer(received, "mine").outputs["y"].shape == x.shape


@pytest.mark.parametrize(
    ("asked", "code", "words"),
    [
        (row("nope", 1), StatusCode.NOT_FOUND, "there is no model 'nope'; there are: gate"),
        (row("mirror", 1, outputs=["z"]), StatusCode.INVALID_ARGUMENT, "model 'mirror' has no output 'z'; it has y"),
        (row("mirror", 1, outputs=["y", "y"]), StatusCode.INVALID_ARGUMENT, "'y' is asked for twice"),
        (request("mirror", {"z": np.ones((1, 2), np.float32)}), StatusCode.INVALID_ARGUMENT, "'z'"),
        (request("mirror", {"x": np.ones((1, 2), np.int32)}), StatusCode.INVALID_ARGUMENT, "'x'"),
        (row("mirror", 1, parameters={"sequence_id": 5}), StatusCode.UNIMPLEMENTED, "sequence_id asks for sequences"),
        (row("mirror", 1, parameters={"timeout": -1}), StatusCode.INVALID_ARGUMENT, "timeout must be a whole number"),
        (row("mirror", 1, version="9"), StatusCode.NOT_FOUND, "9"),
    ],
)
def test_what_can_not_be_answered_is_refused(
    client: Client, asked: oip.ModelInferRequest, code: StatusCode, words: str
) -> None:
    refused = client.refusal("ModelInfer", asked)
    assert refused.code is code, refused
    assert words in refused.text


def test_a_model_that_fails_says_so_with_the_row(client: Client, served: Served) -> None:
    refused = client.refusal("ModelInfer", row("gate", 444))
    assert refused.code is StatusCode.INTERNAL, refused
    found = served.row(refused.metadata["headrace-request-id"])
    assert found is not None
    assert found.state == "failed"
    assert "grpc-retry-pushback-ms" not in refused.metadata


def test_a_message_of_garbage_is_refused_and_the_gateway_goes_on(client: Client) -> None:
    refused = client.refusal("ModelInfer", b"\xff" * 100)
    assert refused.code is StatusCode.INVALID_ARGUMENT
    assert "the message is no ModelInferRequest" in refused.text
    assert client.infer("mirror", 1).outputs["y"].tolist() == [[1]]
