"""A model server that can be told what to do, killed and started again, and a package that names it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.eventually import eventually

from headrace.contracts import Settings, TensorSpec
from headrace.contracts.package.manifest import BatchingAdvice, Manifest, write_manifest
from headrace.contracts.package.server import Server

PEER = Path(__file__).with_name("peer.py")


class ModelServer:
    """The process of `peer.py`; it keeps its port."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def start(self) -> None:
        (self._folder / "port").unlink(missing_ok=True)
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(PEER), str(self.port), str(self._folder)], stdout=log, stderr=log
            )
        eventually((self._folder / "port").exists, 60, "a model server that listens")
        self.port = int((self._folder / "port").read_text())

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def does(self, **behaviour: Any) -> None:
        """Have it behave so from the next call on."""
        partial = self._folder / "behaviour.partial"
        partial.write_text(json.dumps(behaviour))
        partial.replace(self._folder / "behaviour.json")

    @property
    def calls(self) -> list[int]:
        """The rows of each batch that came."""
        return [rows for rows, _ in self._lines()]

    @property
    def in_flight(self) -> list[int]:
        """How many batches were there whenever one came."""
        return [count for _, count in self._lines()]

    def _lines(self) -> list[tuple[int, int]]:
        file = self._folder / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        return [(int(rows), int(count)) for rows, count in map(str.split, lines)]

    @property
    def address(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[[str], ModelServer]]:
    servers: list[ModelServer] = []

    def make(name: str) -> ModelServer:
        server = ModelServer(tmp_path / name)
        servers.append(server)
        server.start()
        return server

    yield make
    for server in servers:
        if server._process is not None:
            os.kill(server._process.pid, signal.SIGCONT)
        server.kill()


@pytest.fixture
def server(make_server: Callable[[str], ModelServer], settings: Settings) -> ModelServer:
    """A server whose model is the package `m`."""
    server = make_server("server")
    write_package(settings.models, server.address)
    return server


def write_package(models: Path, *endpoints: str, max_rows: int = 8, **server: Any) -> Path:
    """Write the package `m` of a model on these endpoints."""
    folder = models / "m" / "1"
    folder.mkdir(parents=True, exist_ok=True)
    tensor = TensorSpec(name="x", datatype="FP32", shape=(1,))
    manifest = Manifest(
        name="m",
        version="1",
        runtime="oip",
        server=Server(endpoints=endpoints, model="m", **server),
        inputs=(tensor,),
        outputs=(TensorSpec(name="y", datatype="FP32", shape=(1,)),),
        batching=BatchingAdvice(max_rows=max_rows),
    )
    write_manifest(folder, manifest)
    return folder
