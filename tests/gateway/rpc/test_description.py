"""The calls that describe the server and its models, and those that headrace has nothing for."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from grpc import StatusCode
from tests.eventually import eventually
from tests.gateway.rpc.client import Client

from headrace.contracts.tensors.datatypes import DTYPES
from headrace.gateway.rpc.service import SERVICE
from headrace.runtimes.remote.messages import oip


def config_of(client: Client, model: str) -> oip.ModelConfig:
    received = client.send("ModelConfig", oip.ModelConfigRequest(name=model))
    return oip.ModelConfigResponse.FromString(received).config


def is_ready(client: Client, model: str, version: str = "") -> bool:
    received = client.send("ModelReady", oip.ModelReadyRequest(name=model, version=version))
    return oip.ModelReadyResponse.FromString(received).ready


def test_the_server_is_live_and_ready_and_has_a_name(client: Client) -> None:
    assert oip.ServerLiveResponse.FromString(client.send("ServerLive", b"")).live
    assert oip.ServerReadyResponse.FromString(client.send("ServerReady", b"")).ready
    metadata = oip.ServerMetadataResponse.FromString(client.send("ServerMetadata", b""))
    assert metadata.name == "headrace"
    assert "statistics" in metadata.extensions


def test_a_model_is_ready_and_one_that_there_is_not_is_not(client: Client) -> None:
    assert is_ready(client, "mirror")
    assert is_ready(client, "mirror", "1")
    assert not is_ready(client, "mirror", "9")
    assert not is_ready(client, "nope")


def test_a_model_has_metadata(client: Client) -> None:
    received = client.send("ModelMetadata", oip.ModelMetadataRequest(name="mirror", version="1"))
    metadata = oip.ModelMetadataResponse.FromString(received)
    assert (metadata.name, list(metadata.versions), metadata.platform) == ("mirror", ["1", "2"], "mirror")
    (given,) = metadata.inputs
    assert (given.name, given.datatype, list(given.shape)) == ("x", "FP32", [-1, -1])
    assert [output.name for output in metadata.outputs] == ["y"]


@pytest.mark.parametrize("call", ["ModelMetadata", "ModelConfig", "ModelStatistics"])
def test_a_model_that_there_is_not_is_not_found(client: Client, call: str) -> None:
    refused = client.refusal(call, oip.ModelMetadataRequest(name="nope"))
    assert refused.code is StatusCode.NOT_FOUND
    assert "there is no model 'nope'; there are: gate" in refused.text


def test_a_model_has_a_configuration(client: Client) -> None:
    config = config_of(client, "mirror")
    assert (config.name, config.backend, config.max_batch_size) == ("mirror", "headrace", 8)
    assert list(config.version_policy.specific.versions) == [1, 2]
    assert config.HasField("dynamic_batching")
    (given,) = config.input
    assert list(given.dims) == [-1]


def test_every_datatype_has_a_name_in_the_configuration(client: Client) -> None:
    numbers = {config_of(client, f"mirror-{datatype.lower()}").input[0].data_type for datatype in DTYPES}
    assert len(numbers) == len(DTYPES)
    assert 0 not in numbers


def test_statistics_count_requests(client: Client) -> None:
    def requests(name: str) -> int:
        received = client.send("ModelStatistics", oip.ModelStatisticsRequest(name=name))
        found = oip.ModelStatisticsResponse.FromString(received).model_stats
        return sum(each.inference_stats.success.count for each in found if each.name == "mirror")

    before = requests("mirror")
    client.infer("mirror", 1)
    eventually(lambda: requests("mirror") == before + 1, 30, "the request in the statistics")
    assert requests("") == before + 1


@pytest.mark.parametrize("only_ready", [False, True])
def test_the_index_lists_versions(client: Client, only_ready: bool) -> None:
    received = client.send("RepositoryIndex", oip.RepositoryIndexRequest(ready=only_ready))
    found = oip.RepositoryIndexResponse.FromString(received).models
    versions = {each.version: each.state for each in found if each.name == "mirror"}
    assert versions == ({"2": "READY"} if only_ready else {"1": "UNAVAILABLE", "2": "READY"})


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("RepositoryModelLoad", "headrace models add"),
        ("RepositoryModelUnload", "headrace models add"),
        ("SystemSharedMemoryStatus", "shared memory"),
        ("SystemSharedMemoryRegister", "shared memory"),
        ("SystemSharedMemoryUnregister", "shared memory"),
        ("CudaSharedMemoryStatus", "shared memory"),
        ("CudaSharedMemoryRegister", "shared memory"),
        ("CudaSharedMemoryUnregister", "shared memory"),
        ("TraceSetting", "tracing"),
        ("LogSettings", "logging"),
    ],
)
def test_what_headrace_lacks_is_named(client: Client, call: str, words: str) -> None:
    refused = client.refusal(call, b"")
    assert refused.code is StatusCode.UNIMPLEMENTED
    assert refused.text.startswith("headrace has no ")
    assert words in refused.text


def test_a_stream_is_refused_with_what_to_do(client: Client) -> None:
    stub: Any = client.channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
    call = stub(iter([b""]), timeout=60)
    with pytest.raises(grpc.RpcError) as raised:
        list(call)
    assert raised.value.code() is StatusCode.UNIMPLEMENTED
    assert "call ModelInfer for each" in str(raised.value.details())


def test_a_call_that_nobody_knows_is_not_implemented(client: Client) -> None:
    assert client.refusal("Nonsense", b"").code is StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("call", ["ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata"])
def test_garbage_is_refused_by_every_call(client: Client, call: str) -> None:
    refused = client.refusal(call, b"\xff" * 30)
    assert refused.code is StatusCode.INVALID_ARGUMENT
    assert f"the message is no {call}Request" in refused.text
