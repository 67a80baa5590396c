"""Every call of tritonclient over gRPC, blocking and with asyncio; run by tritonclient's own environment.

Arguments: the gateway's address, HOST:PORT. It serves `mirror`, FP32 [rows, any], in the versions 1 and 2, and
`mirror-bytes`.
"""

from __future__ import annotations

import asyncio
import queue
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tritonclient.grpc as blocking
import tritonclient.grpc.aio as with_asyncio
from tritonclient.utils import InferenceServerException

CODINGS = (None, "gzip", "deflate")
X = np.arange(6000, dtype=np.float32).reshape(2, 3000)
TEXTS = np.array([[b"one", b"\xff\0"]], object)


def inputs(x: Any = X, datatype: str = "FP32") -> list[Any]:
    given = blocking.InferInput("x", list(x.shape), datatype)
    given.set_data_from_numpy(x)
    return [given]


def check_refusal(call: Callable[[], object], status: str, words: str) -> None:
    refusal = None
    try:
        call()
    except InferenceServerException as error:
        refusal = error
    assert refusal is not None, words
    assert refusal.status() == f"StatusCode.{status}", refusal
    assert words in refusal.message(), refusal


def call_blocking(address: str) -> None:
    client = blocking.InferenceServerClient(address)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("mirror")
    assert client.is_model_ready("mirror", "1")
    assert not client.is_model_ready("nope")
    assert "statistics" in client.get_server_metadata().extensions
    assert list(client.get_model_metadata("mirror", "1").inputs[0].shape) == [-1, -1]
    assert client.get_model_config("mirror", as_json=True)["config"]["input"][0]["data_type"] == "TYPE_FP32"
    assert {"mirror"} <= {each.name for each in client.get_model_repository_index().models}
    infer(client)
    assert client.get_inference_statistics("mirror").model_stats[0].name == "mirror"
    assert len(client.get_inference_statistics().model_stats) > 1
    refuse(client)
    client.close()


def infer(client: Any) -> None:
    for coding in CODINGS:
        for outputs in (None, [blocking.InferRequestedOutput("y")]):
            result = client.infer(
                "mirror",
                inputs(),
                outputs=outputs,
                request_id="mine",
                priority=1,
                timeout=30_000_000,
                client_timeout=30,
                compression_algorithm=coding,
            )
            np.testing.assert_array_equal(result.as_numpy("y"), X)
            assert result.get_response().id == "mine"
            assert result.get_response().model_version == "2"
    np.testing.assert_array_equal(client.infer("mirror-bytes", inputs(TEXTS, "BYTES")).as_numpy("y"), TEXTS)
    found: queue.Queue[Any] = queue.Queue()
    for _ in range(20):
        client.async_infer("mirror", inputs(), lambda result, error: found.put((result, error)), model_version="1")
    for _ in range(20):
        result, error = found.get(timeout=60)
        assert error is None, error
        np.testing.assert_array_equal(result.as_numpy("y"), X)


def refuse(client: Any) -> None:
    check_refusal(lambda: client.infer("nope", inputs()), "NOT_FOUND", "there is no model")
    check_refusal(lambda: client.infer("mirror", inputs(), sequence_id=5), "UNIMPLEMENTED", "sequence_id")
    check_refusal(lambda: client.load_model("mirror"), "UNIMPLEMENTED", "headrace models add")
    check_refusal(lambda: client.unload_model("mirror"), "UNIMPLEMENTED", "headrace models add")
    check_refusal(client.get_trace_settings, "UNIMPLEMENTED", "headrace has no")
    check_refusal(client.get_log_settings, "UNIMPLEMENTED", "headrace has no")
    check_refusal(client.get_system_shared_memory_status, "UNIMPLEMENTED", "shared memory")
    check_refusal(client.get_cuda_shared_memory_status, "UNIMPLEMENTED", "shared memory")
    found: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: found.put(error))
    assert "call ModelInfer for each" in found.get(timeout=60).message()
    client.stop_stream()


async def call_with_asyncio(address: str) -> None:
    async with with_asyncio.InferenceServerClient(address) as client:
        assert await client.is_server_live()
        assert await client.is_model_ready("mirror")
        assert (await client.get_model_metadata("mirror")).name == "mirror"
        for coding in CODINGS:
            result = await client.infer("mirror", inputs(), compression_algorithm=coding)
            np.testing.assert_array_equal(result.as_numpy("y"), X)
        ids = [str(number) for number in range(50)]
        found = await asyncio.gather(*(client.infer("mirror", inputs(), request_id=each) for each in ids))
        assert [each.get_response().id for each in found] == ids


if __name__ == "__main__":
    call_blocking(sys.argv[1])
    asyncio.run(call_with_asyncio(sys.argv[1]))
