"""Requests that fail: a status that says whose fault it is, and a body that says what to do."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from tests.gateway.conftest import Running, Served, question, running_gateway, tensor
from tests.gateway.mirror_runtime import REFUSED

from headrace.contracts import Settings
from headrace.gateway.http.problem import KINDS
from headrace.testing import TemporaryStack

INFER = "/v2/models/mirror/infer"


def check(response: httpx.Response, kind: str, field: str = "") -> dict[str, Any]:
    body: dict[str, Any] = response.json()
    status, title = KINDS[kind]
    assert response.headers["Content-Type"] == "application/problem+json"
    assert (response.status_code, body["status"]) == (status, status), body
    assert (body["type"], body["title"]) == (f"urn:headrace:problem:{kind}", title)
    assert body["error"] == body["detail"] != ""
    assert body.get("field", "") == field, body
    return body


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, ""),
        ({"inputs": {}}, "inputs"),
        ({"inputs": [{}]}, "inputs[0]"),
        ({"inputs": [{"name": 1}]}, "inputs[0].name"),
        ({"inputs": [tensor([1]), tensor([1])]}, "inputs[1].name"),
        ({"inputs": [tensor([1], "FLOAT")]}, "inputs[0].datatype"),
        ({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32"}]}, "inputs[0].data"),
        (question(1, parameters=[]), "parameters"),
        (question(1, parameters={"timeout": -1}), "parameters.timeout"),
        (question(1, parameters={"timeout": "soon"}), "parameters.timeout"),
        (question(1, parameters={"priority": 1.5}), "parameters.priority"),
        (question(1, parameters={"binary_data_output": "yes"}), "parameters.binary_data_output"),
        (question(1, parameters={"nonfinite": "zero"}), "parameters.nonfinite"),
        (question(1, id=5), "id"),
        (question(1, outputs=[{"name": "z"}]), "outputs[0].name"),
        (question(1, outputs=[{"name": "y"}, {"name": "y"}]), "outputs[1].name"),
        (question(1, outputs=[{"name": "y", "parameters": {"binary_data": 1}}]), "outputs[0].parameters.binary_data"),
    ],
)
def test_a_malformed_body_is_400_with_the_field(gateway: Running, body: dict[str, Any], field: str) -> None:
    check(gateway.client.post(INFER, json=body), "invalid-request", field)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b'{"inputs": NaN}', b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_400(gateway: Running, content: bytes) -> None:
    response = gateway.client.post(INFER, content=content)
    assert response.status_code == 400
    assert response.json()["error"]


@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        ([], "inputs"),
        ([tensor([1]) | {"name": "z"}], "inputs[0]"),
        ([tensor([1, 2]) | {"shape": [1, 3]}], "inputs[0].data"),
        ([tensor([[1, 2]]) | {"shape": [2]}], "inputs[0].data"),
        ([tensor([1]) | {"shape": [-1]}], "inputs[0]"),
        ([tensor([1]) | {"shape": [2**62, 2**62]}], "inputs[0]"),
        ([tensor([1]) | {"shape": [1]}], "inputs[0]"),
        ([tensor([]) | {"shape": [1, 0]}], "inputs"),
        ([tensor(["a"])], "inputs[0].data"),
        ([tensor([None])], "inputs[0].data"),
        ([tensor([1e39])], "inputs[0].data"),
        ([tensor([1], "INT64")], "inputs[0]"),
    ],
)
def test_inputs_that_do_not_fit_are_422_with_the_field(gateway: Running, inputs: list[Any], field: str) -> None:
    check(gateway.client.post(INFER, json={"inputs": inputs}), "invalid-input", field)


@pytest.mark.parametrize("datatype", ["INT64", "UINT64"])
def test_whole_numbers_of_more_than_64_bits_are_refused(gateway: Running, datatype: str) -> None:
    content = f'{{"inputs": [{{"name": "x", "shape": [1, 1], "datatype": "{datatype}", "data": [{2**64}]}}]}}'
    response = gateway.client.post(f"/v2/models/mirror-{datatype.lower()}/infer", content=content)
    check(response, "invalid-input", "inputs[0].data")


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"parameters": {"sequence_id": 5}}, "parameters.sequence_id"),
        ({"outputs": [{"name": "y", "parameters": {"classification": 2}}]}, "outputs[0].parameters.classification"),
    ],
)
def test_what_headrace_has_not_is_501(gateway: Running, more: dict[str, Any], field: str) -> None:
    check(gateway.client.post(INFER, json=question(1, **more)), "not-supported", field)


@pytest.mark.parametrize("path", ["/v2/models/nope", "/v2/models/nope/infer", "/v2/models/mirror/versions/9/ready"])
def test_an_unknown_model_is_404_and_names_what_there_is(gateway: Running, path: str) -> None:
    method = "POST" if path.endswith("infer") else "GET"
    body = check(gateway.client.request(method, path, json=question(1)), "unknown-model")
    assert "mirror" in body["error"] or "1, 2" in body["error"]


@pytest.mark.parametrize("path", ["/", "/v2/nope", "/v2/models/mirror/nope", "/v2/models/a/b/c/d"])
def test_an_unknown_path_is_404(gateway: Running, path: str) -> None:
    check(gateway.client.get(path), "unknown-path")


def test_another_method_is_405_and_names_the_right_one(gateway: Running) -> None:
    response = gateway.client.put(INFER)
    assert "POST" in check(response, "wrong-method")["error"]
    assert "POST" in response.headers["Allow"]
    response = gateway.client.put("/v2/requests/some-id")
    assert {"GET", "DELETE"} <= set(response.headers["Allow"].split(", "))


def test_an_unknown_coding_is_415(gateway: Running) -> None:
    response = gateway.client.post(INFER, content=b"x", headers={"Content-Encoding": "br"})
    check(response, "unsupported-encoding")
    assert response.headers["Accept-Encoding"] == "gzip, deflate"


def test_a_model_that_fails_is_500_or_422_with_the_id_of_the_row(gateway: Running, served: Served) -> None:
    response = gateway.infer("gate", question(REFUSED))
    assert response.status_code in {422, 500}
    row = served.row(response.json()["request_id"])
    assert row is not None
    assert row.state == "failed"


def test_a_deadline_that_passes_is_504_and_the_request_never_runs(gateway: Running, served: Served) -> None:
    with served.held():
        held = gateway.infer("gate", question(71), headers={"Prefer": "respond-async"})
        response = gateway.infer("gate", question(72, parameters={"timeout": 200_000}))
        check(response, "deadline")
    gateway.client.get(held.headers["Location"], params={"wait": 60})
    assert gateway.infer("gate", question(73)).status_code == 200
    assert "72\n" not in served.runs()


def test_a_full_queue_is_429_and_says_when_to_come_back(served: Served) -> None:
    settings = served.settings.model_copy(update={"queue_limit": 1})
    with served.held(), running_gateway(settings) as gateway:
        answers = [gateway.infer("gate", question(80), headers={"Prefer": "respond-async"}) for _ in range(8)]
        assert answers[0].status_code == 202
        check(answers[-1], "queue-full")
        assert int(answers[-1].headers["Retry-After"]) >= 1
        for each in answers:
            if each.status_code == 202:
                gateway.client.delete(each.headers["Location"])


def test_without_any_worker_requests_are_503(headrace_stack: TemporaryStack, served: Served) -> None:
    """The model is on disk here, so that it is known; nobody serves it."""
    with headrace_stack.key_space() as broker_url:
        settings = served.settings.model_copy(update={"broker_url": SecretStr(broker_url)})
        with running_gateway(settings) as gateway:
            response = gateway.infer("mirror", question(1))
            check(response, "no-worker")
            assert int(response.headers["Retry-After"]) >= 1
            check(gateway.client.get("/v2/models/mirror/ready"), "no-worker")
            listed = {each["name"]: each for each in gateway.client.get("/v2/models").json()["models"]}
            assert not listed["mirror"]["ready"]
            assert "headrace worker" in listed["mirror"]["reason"]


def test_without_any_worker_and_any_model_nothing_is_queued(headrace_stack: TemporaryStack, served: Served) -> None:
    with headrace_stack.key_space() as broker_url:
        update = {"broker_url": SecretStr(broker_url), "models": served.folder / "nowhere"}
        with running_gateway(served.settings.model_copy(update=update)) as gateway:
            body = check(gateway.infer("mirror", question(1)), "no-worker")
            assert "request_id" not in body


def test_a_gateway_without_a_broker_does_not_start(served: Served) -> None:
    settings: Settings = served.settings.model_copy(update={"broker_url": SecretStr("redis://127.0.0.1:1/0")})
    with pytest.raises(AssertionError, match="HEADRACE_BROKER_URL"), running_gateway(settings):
        pass


@pytest.mark.parametrize(
    "path",
    [
        "/v2/trace/setting",
        "/v2/logging",
        "/v2/systemsharedmemory/status",
        "/v2/cudasharedmemory/region/a/status",
    ],
)
def test_extensions_that_headrace_has_not_are_501_with_the_reason(gateway: Running, path: str) -> None:
    assert "headrace has no" in check(gateway.client.get(path), "not-supported")["error"]


@pytest.mark.parametrize("what", ["load", "unload"])
def test_models_are_not_loaded_over_http(gateway: Running, what: str) -> None:
    body = check(gateway.client.post(f"/v2/repository/models/mirror/{what}"), "not-supported")
    assert "headrace models add" in body["error"]


@pytest.mark.parametrize("origin", ["https://evil.example", "http://127.0.0.1:1", "null"])
def test_a_page_of_another_address_is_refused(gateway: Running, origin: str) -> None:
    body = check(gateway.infer("mirror", question(1), headers={"Origin": origin}), "foreign-page")
    assert origin in body["detail"]
    assert gateway.client.get("/v2/models", headers={"Origin": origin}).status_code == 200


def test_a_page_of_the_gateways_own_address_is_served(gateway: Running) -> None:
    for origin in (gateway.url, gateway.url.replace("http:", "https:")):
        assert gateway.infer("mirror", question(1), headers={"Origin": origin}).status_code == 200
