"""Inference over HTTP against a real worker: JSON and bytes, mixed and compressed, of every datatype."""

from __future__ import annotations

import gzip
import json
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from tests.gateway.conftest import Running, Served, question, tensor

from headrace.contracts.tensors.datatypes import DTYPES, all_finite
from headrace.contracts.tensors.oip_http import BINARY_ONLY, JSON_LENGTH
from headrace.contracts.tensors.raw import pack, unpack

VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False],
    "UINT8": [0, 255],
    "UINT16": [0, 65_535],
    "UINT32": [0, 2**32 - 1],
    "UINT64": [2**53 + 1, 2**64 - 1],
    "INT8": [-128, 127],
    "INT16": [-32_768, 32_767],
    "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**53 + 1, 2**63 - 1],
    "FP32": [0.1, -3.4e38],
    "FP64": [0.1, 5e-324, 1.7976931348623157e308],
    "BYTES": ["", "héad", "a\u0000b"],
}


def body_of(head: dict[str, Any], *parts: bytes) -> tuple[bytes, dict[str, str]]:
    text = orjson.dumps(head)
    return b"".join([text, *parts]), {JSON_LENGTH: str(len(text))}


def binary_input(raw: bytes, shape: list[int], datatype: str) -> dict[str, Any]:
    return {"name": "x", "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": len(raw)}}


def split(response: httpx.Response) -> tuple[dict[str, Any], bytes]:
    at = int(response.headers[JSON_LENGTH])
    document: dict[str, Any] = orjson.loads(response.content[:at])
    return document, response.content[at:]


@pytest.mark.parametrize("datatype", VALUES)
def test_values_of_each_datatype_come_back_exactly_as_json(gateway: Running, datatype: str) -> None:
    values = VALUES[datatype]
    response = gateway.infer(f"mirror-{datatype.lower()}", {"inputs": [tensor(values, datatype)]})
    assert response.status_code == 200, response.text
    # Python's reader keeps whole numbers whole.
    (output,) = json.loads(response.content)["outputs"]
    assert output == {"name": "y", "shape": [1, len(values)], "datatype": datatype, "data": output["data"]}
    if datatype == "FP32":
        assert np.array(output["data"], np.float32).tolist() == np.array(values, np.float32).tolist()
    else:
        assert output["data"] == values


@pytest.mark.parametrize("datatype", DTYPES)
def test_bytes_of_each_datatype_come_back_exactly(gateway: Running, datatype: str) -> None:
    if datatype == "BYTES":
        array = np.array([[b"", b"\xff\x00", "é".encode()]], dtype=object)
    elif datatype == "BOOL":
        array = np.array([[True, False, True]])
    else:
        raw_bytes = np.arange(1, 3 * DTYPES[datatype].itemsize + 1, dtype=np.uint8)
        array = raw_bytes.view(DTYPES[datatype]).reshape(1, 3)
        assert all_finite(array)
    raw = bytes(pack(array))
    head = {"inputs": [binary_input(raw, [1, 3], datatype)], "parameters": {"binary_data_output": True}}
    content, headers = body_of(head, raw)
    response = gateway.client.post(f"/v2/models/mirror-{datatype.lower()}/infer", content=content, headers=headers)
    assert response.status_code == 200, response.text
    document, rest = split(response)
    assert document["outputs"] == [
        {"name": "y", "shape": [1, 3], "datatype": datatype, "parameters": {"binary_data_size": len(raw)}}
    ]
    assert rest == raw
    assert unpack(rest, datatype, [1, 3]).tolist() == array.tolist()


def test_the_answer_names_the_model_its_version_and_the_callers_id(gateway: Running) -> None:
    answer = gateway.infer("mirror", question(1, id="mine")).json()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("mirror", "2", "mine")


def test_a_version_may_be_asked_for(gateway: Running, served: Served) -> None:
    response = gateway.client.post("/v2/models/mirror/versions/1/infer", json=question(1))
    assert response.json()["model_version"] == "1"
    row = served.row(response.headers["Headrace-Request-Id"])
    assert row is not None
    assert row.version == "1"


def test_every_answer_is_a_row_that_the_headers_name(gateway: Running, served: Served) -> None:
    response = gateway.infer("mirror", question(1.5, 2))
    request_id = response.headers["Headrace-Request-Id"]
    row = served.row(request_id)
    assert row is not None
    assert row.outputs is not None
    assert row.outputs["y"].tolist() == [[1.5, 2]]
    assert response.headers["Location"] == f"/v2/requests/{request_id}"
    assert response.json()["id"] == request_id
    assert gateway.client.get(response.headers["Location"]).json()["answer"]["outputs"][0]["data"] == [1.5, 2]


def test_the_same_id_twice_is_two_requests(gateway: Running) -> None:
    first, second = (gateway.infer("mirror", question(value, id="1")) for value in (1, 2))
    assert [each.json()["outputs"][0]["data"] for each in (first, second)] == [[1], [2]]
    assert first.headers["Location"] != second.headers["Location"]


@pytest.mark.parametrize("data", [[[1, 2], [3, 4]], [1, 2, 3, 4]])
def test_data_may_be_nested_or_flat(gateway: Running, data: list[Any]) -> None:
    given = {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": data}
    (output,) = gateway.infer("mirror", {"inputs": [given]}).json()["outputs"]
    assert (output["shape"], output["data"]) == ([2, 2], [1, 2, 3, 4])


def test_one_output_may_be_bytes_or_json_whatever_the_others_are(gateway: Running) -> None:
    wanted = {"name": "y", "parameters": {"binary_data": False}}
    body = question(1, outputs=[wanted], parameters={"binary_data_output": True})
    assert gateway.infer("mirror", body).json()["outputs"][0]["data"] == [1]
    wanted["parameters"] = {"binary_data": True}
    _, rest = split(gateway.infer("mirror", question(1, outputs=[wanted])))
    assert rest == np.float32(1).tobytes()


@pytest.mark.parametrize(("coding", "pack_body"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_bodies_may_be_compressed_both_ways(gateway: Running, coding: str, pack_body: Any) -> None:
    raw = np.zeros((1, 4000), np.float32).tobytes()
    head = {"inputs": [binary_input(raw, [1, 4000], "FP32")], "parameters": {"binary_data_output": True}}
    content, headers = body_of(head, raw)
    headers |= {"Content-Encoding": coding, "Accept-Encoding": coding}
    response = gateway.client.post("/v2/models/mirror/infer", content=pack_body(content), headers=headers)
    assert response.status_code == 200, response.text
    assert response.headers["Content-Encoding"] == coding
    # The length counts the JSON as it is without the coding.
    assert split(response)[1] == raw


def test_nan_and_infinity_are_refused_as_json_unless_the_request_says_how(gateway: Running) -> None:
    text = b'{"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [NaN, Infinity, -Infinity, 1]}]'
    path = "/v2/models/mirror/infer"
    refused = gateway.client.post(path, content=text + b"}")
    assert refused.status_code == 422
    assert refused.json()["type"] == "urn:headrace:problem:not-in-json"
    assert refused.json()["field"] == "y"
    assert "binary_data" in refused.json()["error"]
    # The model ran, and its row has the values.
    location = refused.headers["Location"]
    assert "nonfinite=null" in gateway.client.get(location).json()["error"]
    _, rest = split(gateway.client.get(location, params={"binary_data_output": "true"}))
    assert rest == np.array([np.nan, np.inf, -np.inf, 1], np.float32).tobytes()

    as_null = gateway.client.post(path, content=text + b', "parameters": {"nonfinite": "null"}}')
    assert as_null.json()["outputs"][0]["data"] == [None, None, None, 1]
    as_literal = gateway.client.post(path, content=text + b', "parameters": {"nonfinite": "literal"}}')
    assert b"[NaN,Infinity,-Infinity,1.0]" in as_literal.content
    as_bytes = gateway.client.post(path, content=text + b', "parameters": {"binary_data_output": true}}')
    assert split(as_bytes)[1] == rest


@pytest.mark.parametrize("datatype", sorted(BINARY_ONLY))
def test_sixteen_bit_floats_are_refused_as_json_before_the_model_runs(gateway: Running, datatype: str) -> None:
    raw = bytes(4)
    content, headers = body_of({"inputs": [binary_input(raw, [1, 2], datatype)]}, raw)
    response = gateway.client.post(f"/v2/models/mirror-{datatype.lower()}/infer", content=content, headers=headers)
    assert (response.status_code, response.json()["field"]) == (422, "y")
    assert "Location" not in response.headers
    response = gateway.infer(f"mirror-{datatype.lower()}", {"inputs": [tensor([1, 2], datatype)]})
    assert (response.status_code, response.json()["field"]) == (422, "inputs[0].data")


def test_bytes_that_are_no_text_are_refused_as_json(gateway: Running) -> None:
    raw = bytes(pack(np.array([[b"\xff"]], dtype=object)))
    content, headers = body_of({"inputs": [binary_input(raw, [1, 1], "BYTES")]}, raw)
    response = gateway.client.post("/v2/models/mirror-bytes/infer", content=content, headers=headers)
    assert response.status_code == 422
    assert "no UTF-8 text" in response.json()["error"]


def test_simultaneous_requests_each_get_their_own_answer(gateway: Running) -> None:
    def ask(number: int) -> tuple[str, list[float]]:
        answer = gateway.infer("mirror", question(number, -number, id=f"id-{number}")).json()
        return answer["id"], answer["outputs"][0]["data"]

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(ask, range(300)))
    assert answers == [(f"id-{number}", [number, -number]) for number in range(300)]
