"""A KServe 0.21 model server, as KServe runs it in a container."""

from __future__ import annotations

from pathlib import Path

from tests.servers.environments import ensure
from tests.servers.process import ModelServer, all_answer, free_port


def kserve(folder: Path) -> ModelServer:
    """Return a KServe server of the models."""
    http, grpc = free_port(), free_port()
    program = Path(__file__).with_name("served.py")
    return ModelServer(
        "kserve",
        folder,
        [str(ensure("kserve") / "bin/python"), str(program), str(http), str(grpc)],
        {"http": f"http://127.0.0.1:{http}", "grpc": f"grpc://127.0.0.1:{grpc}"},
        all_answer(f"http://127.0.0.1:{http}/v2/models/affine/ready"),
    )
