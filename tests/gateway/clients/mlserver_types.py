"""MLServer's codecs and types, and its bulk client; run by MLServer's own environment.

Arguments: the gateway's address, HOST:PORT.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import numpy as np
from mlserver.codecs import NumpyCodec
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    MetadataServerResponse,
    RepositoryIndexResponse,
)

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def call(url: str, body: bytes | None = None) -> bytes:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        content: bytes = answer.read()
        return content


def run(address: str) -> None:
    url = f"http://{address}/v2"
    request = InferenceRequest(id="mine", inputs=[NumpyCodec.encode_input("x", X)])
    text = request.model_dump_json().encode()
    answer = InferenceResponse.model_validate_json(call(f"{url}/models/mirror/infer", text))
    assert answer.id == "mine"
    np.testing.assert_array_equal(NumpyCodec.decode_output(answer.outputs[0]), X)
    assert MetadataServerResponse.model_validate_json(call(url)).name == "headrace"
    assert MetadataModelResponse.model_validate_json(call(f"{url}/models/mirror")).name == "mirror"
    assert RepositoryIndexResponse.model_validate_json(call(f"{url}/repository/index", b"{}")).root
    run_in_bulk(address, text)


def run_in_bulk(address: str, line: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder, "in.jsonl"), Path(folder, "out.jsonl")
        given.write_bytes(b"\n".join([line] * 5))
        command = [str(Path(sys.executable).with_name("mlserver")), "infer", "-u", address, "-m", "mirror"]
        subprocess.run([*command, "-i", str(given), "-o", str(found)], check=True)
        lines = found.read_text().splitlines()
    answers = [InferenceResponse.model_validate_json(each) for each in lines]
    assert [answer.outputs[0].name for answer in answers] == ["y"] * 5


if __name__ == "__main__":
    run(sys.argv[1])
