"""KServe's gRPC client; run by KServe's own environment. Arguments: the gateway's address for gRPC, HOST:PORT."""

from __future__ import annotations

import asyncio
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest
from kserve.protocol.infer_type import RequestedOutput

X = np.arange(6, dtype=np.float32).reshape(2, 3)


async def call(address: str) -> None:
    async with InferenceGRPCClient(address) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("mirror")
        for binary in (True, False):
            for x, datatype, model in ((X, "FP32", "mirror"), (X.astype(np.int64), "INT64", "mirror-int64")):
                given = InferInput("x", list(x.shape), datatype)
                given.set_data_from_numpy(x, binary_data=binary)
                for outputs in (None, [RequestedOutput("y")]):
                    request = InferRequest(model, [given], request_id="mine", request_outputs=outputs)
                    answer = await client.infer(request)
                    assert answer.id == "mine"
                    np.testing.assert_array_equal(answer.outputs[0].as_numpy(), x)


if __name__ == "__main__":
    asyncio.run(call(sys.argv[1]))
