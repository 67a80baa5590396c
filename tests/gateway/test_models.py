"""Health, and what the gateway tells of the server and its models."""

from __future__ import annotations

import re
import shlex
import subprocess
from typing import Any

import orjson
import pytest
from tests.eventually import eventually
from tests.gateway.conftest import Running, question

from headrace.contracts.tensors.datatypes import DTYPES


def test_health_bodies_are_those_that_every_client_understands(gateway: Running) -> None:
    """tritonclient looks at the status; KServe's client at `live` and `ready`."""
    assert gateway.client.get("/v2/health/live").json() == {"live": True}
    assert gateway.client.get("/v2/health/ready").json() == {"ready": True, "live": True}
    assert gateway.client.get("/v2/models/mirror/ready").json() == {"name": "mirror", "ready": True}
    assert gateway.client.get("/v2/models/mirror/versions/1/ready").json() == {"name": "mirror", "ready": True}


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
def test_the_server_lists_its_extensions(gateway: Running, path: str) -> None:
    found = gateway.client.get(path).json()
    assert found["name"] == "headrace"
    assert "binary_tensor_data" in found["extensions"]


def test_models_are_listed_with_a_call_that_works(gateway: Running) -> None:
    models = {each["name"]: each for each in gateway.client.get("/v2/models").json()["models"]}
    assert set(models) == {"gate", "mirror", *(f"mirror-{name.lower()}" for name in DTYPES)}
    mirror = models["mirror"]
    assert (mirror["versions"], mirror["version"], mirror["ready"]) == (["1", "2"], "2", True)
    assert mirror["url"] == f"{gateway.url}/v2/models/mirror/infer"
    done = subprocess.run([*shlex.split(mirror["example"]), "-s"], capture_output=True, check=True)
    assert orjson.loads(done.stdout)["outputs"][0]["data"] == [0, 0]
    assert "example" not in models["mirror-bf16"]  # it has no JSON form


def test_a_model_is_described_with_its_rows(gateway: Running) -> None:
    described = gateway.client.get("/v2/models/mirror").json()
    assert described == {
        "name": "mirror",
        "versions": ["1", "2"],
        "platform": "mirror",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, -1]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, -1]}],
    }


def test_the_configuration_is_that_of_triton(gateway: Running) -> None:
    found = gateway.client.get("/v2/models/mirror-bytes/config").json()
    assert found["max_batch_size"] == 8
    assert found["input"] == [{"name": "x", "data_type": "TYPE_STRING", "dims": [-1], "optional": False}]
    assert "dynamic_batching" in found


def test_the_repository_lists_every_version_and_its_state(gateway: Running) -> None:
    entries = gateway.client.post("/v2/repository/index").json()
    states = {(each["name"], each["version"]): each["state"] for each in entries}
    assert (states["mirror", "2"], states["mirror", "1"]) == ("READY", "UNAVAILABLE")
    ready = gateway.client.post("/v2/repository/index", json={"ready": True}).json()
    assert {(each["name"], each["version"]) for each in ready} == {
        key for key, state in states.items() if state == "READY"
    }


def test_statistics_count_requests_batches_and_their_time(gateway: Running) -> None:
    path = "/v2/models/mirror-int8/stats"
    before = gateway.client.get(path).json()["model_stats"][0]
    assert (before["name"], before["version"], before["inference_count"]) == ("mirror-int8", "1", 0)
    rows = {"name": "x", "shape": [3, 1], "datatype": "INT8", "data": [1, 2, 3]}
    for _ in range(4):
        assert gateway.infer("mirror-int8", {"inputs": [rows]}).status_code == 200

    def stats() -> dict[str, Any] | None:
        found: dict[str, Any] = gateway.client.get(path).json()["model_stats"][0]
        return found if found["inference_stats"]["success"]["count"] >= 4 else None

    after = eventually(stats, 30, "the requests among the statistics")
    assert after is not None
    assert (after["inference_count"], after["execution_count"]) == (12, 4)
    assert after["inference_stats"]["queue"]["ns"] > 0
    assert [(each["batch_size"], each["compute_infer"]["count"]) for each in after["batch_stats"]] == [(3, 4)]
    assert after["last_inference"] > 0
    assert gateway.client.get("/v2/models/mirror-int8/versions/1/stats").json()["model_stats"] == [after]
    everything = gateway.client.get("/v2/models/stats").json()["model_stats"]
    assert after in everything
    assert {(each["name"], each["version"]) for each in everything} >= {("mirror", "1"), ("mirror", "2")}


@pytest.mark.parametrize("content", [b"[]", b"{", b'{"ready": 1}'])
def test_a_malformed_question_for_the_repository_is_refused(gateway: Running, content: bytes) -> None:
    assert gateway.client.post("/v2/repository/index", content=content).status_code == 400


def test_the_openapi_document_has_every_path(gateway: Running) -> None:
    document = gateway.client.get("/openapi.json").json()
    assert {"/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer", "/v2/models"} <= set(
        document["paths"]
    )
    infer = document["paths"]["/v2/models/{model}/infer"]["post"]
    assert {"200", "202", "429", "503", "504"} <= set(infer["responses"])
    for path, operations in document["paths"].items():
        for operation in operations.values():
            in_path = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
            assert in_path == set(re.findall(r"{(\w+)}", path))
            assert operation["summary"]


def test_a_path_in_front_of_v2_may_be_stripped_by_a_proxy(gateway: Running) -> None:
    """`url` and `example` follow the Host header, so that they work from where they were asked for."""
    models = gateway.client.get("/v2/models", headers={"Host": "models.example"}).json()["models"]
    assert models[0]["url"].startswith("http://models.example/v2/models/")
    assert gateway.infer("mirror", question(1)).status_code == 200
