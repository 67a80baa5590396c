"""KServe's REST client; run by KServe's own environment. Arguments: the gateway's address, HOST:PORT."""

from __future__ import annotations

import asyncio
import sys

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

X = np.arange(6, dtype=np.float32).reshape(2, 3)


async def call(url: str) -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_live(url)
    assert await client.is_server_ready(url)
    assert await client.is_model_ready(url, "mirror")
    for binary in (True, False):
        given = InferInput("x", list(X.shape), "FP32")
        given.set_data_from_numpy(X, binary_data=binary)
        wanted = [RequestedOutput("y", {"binary_data": binary})]
        for outputs in (None, wanted):
            request = InferRequest("mirror", [given], request_id="mine", request_outputs=outputs)
            answer = await client.infer(url, request, model_name="mirror")
            assert answer.id == "mine"
            np.testing.assert_array_equal(answer.outputs[0].as_numpy(), X)
    await client.close()


if __name__ == "__main__":
    asyncio.run(call(f"http://{sys.argv[1]}"))
