"""Every call of tritonclient over HTTP, blocking and with asyncio; run by tritonclient's own environment.

Arguments: the gateway's address, HOST:PORT. It serves `mirror`, FP32 [rows, any], in the versions 1 and 2.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tritonclient.http as blocking
import tritonclient.http.aio as with_asyncio
from tritonclient.utils import InferenceServerException

CODINGS = (None, "gzip", "deflate")
X = np.arange(6000, dtype=np.float32).reshape(2, 3000)


def inputs(binary: bool) -> list[Any]:
    given = blocking.InferInput("x", X.shape, "FP32")
    given.set_data_from_numpy(X, binary_data=binary)
    return [given]


def outputs() -> list[Any]:
    return [None, *([blocking.InferRequestedOutput("y", binary_data=binary)] for binary in (True, False))]


def check_refusal(call: Callable[[], object], status: str, words: str) -> None:
    refusal = None
    try:
        call()
    except InferenceServerException as error:
        refusal = error
    assert refusal is not None, words
    assert refusal.status() == status, refusal
    assert words in refusal.message(), refusal


def call_blocking(address: str) -> None:
    client = blocking.InferenceServerClient(address, concurrency=4)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("mirror")
    assert client.is_model_ready("mirror", "1")
    assert not client.is_model_ready("nope")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    assert client.get_model_metadata("mirror", "1")["inputs"][0]["shape"] == [-1, -1]
    assert client.get_model_config("mirror")["input"][0]["data_type"] == "TYPE_FP32"
    assert {"mirror"} <= {each["name"] for each in client.get_model_repository_index()}
    for binary, wanted, coding, answer in itertools.product((True, False), outputs(), CODINGS, CODINGS):
        result = client.infer(
            "mirror",
            inputs(binary),
            outputs=wanted,
            request_id="mine",
            priority=1,
            timeout=30_000_000,
            request_compression_algorithm=coding,
            response_compression_algorithm=answer,
        )
        np.testing.assert_array_equal(result.as_numpy("y"), X)
        assert result.get_response()["id"] == "mine"
        assert result.get_response()["model_version"] == "2"
    pending = [client.async_infer("mirror", inputs(True), model_version="1") for _ in range(20)]
    for each in pending:
        np.testing.assert_array_equal(each.get_result().as_numpy("y"), X)
    assert client.get_inference_statistics("mirror")["model_stats"][0]["name"] == "mirror"
    assert client.get_inference_statistics()["model_stats"]
    check_refusal(lambda: client.infer("nope", inputs(True)), "404", "there is no model")
    check_refusal(lambda: client.infer("mirror", inputs(True), sequence_id=5), "501", "sequence_id")
    check_refusal(lambda: client.load_model("mirror"), "501", "headrace models add")
    check_refusal(lambda: client.unload_model("mirror"), "501", "headrace models add")
    check_refusal(client.get_trace_settings, "501", "headrace has no")
    check_refusal(client.get_log_settings, "501", "headrace has no")
    check_refusal(client.get_system_shared_memory_status, "501", "shared memory")
    check_refusal(client.get_cuda_shared_memory_status, "501", "shared memory")
    client.close()


async def call_with_asyncio(address: str) -> None:
    async with with_asyncio.InferenceServerClient(address) as client:
        assert await client.is_server_live()
        assert await client.is_model_ready("mirror")
        assert (await client.get_model_metadata("mirror"))["name"] == "mirror"
        for coding, answer in itertools.product(CODINGS, CODINGS):
            result = await client.infer(
                "mirror",
                inputs(True),
                request_compression_algorithm=coding,
                response_compression_algorithm=answer,
            )
            np.testing.assert_array_equal(result.as_numpy("y"), X)
        ids = [str(number) for number in range(50)]
        found = await asyncio.gather(*(client.infer("mirror", inputs(True), request_id=each) for each in ids))
        assert [each.get_response()["id"] for each in found] == ids


if __name__ == "__main__":
    call_blocking(sys.argv[1])
    asyncio.run(call_with_asyncio(sys.argv[1]))
