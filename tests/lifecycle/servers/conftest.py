"""Model servers that stop with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.lifecycle.servers.served import Served, by_oip
from tests.runtimes.remote.grpc.scripted import Answerer, ScriptedServer

from headrace.contracts import ModelDirectory


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Start a server of a model, by the Open Inference Protocol unless told; return its address."""
    with ExitStack() as stack:

        def start(served: Served, calls: Callable[[Served], Mapping[str, Answerer]] = by_oip) -> str:
            server = ScriptedServer(calls(served))
            stack.callback(server.stop)
            return str(server.address)

        yield start


@pytest.fixture
def models(tmp_path: Path) -> ModelDirectory:
    return ModelDirectory(tmp_path / "models")
