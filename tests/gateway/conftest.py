"""A gateway in front of a real worker, real servers behind both; one set for the tests of a module."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from tests.eventually import eventually
from tests.gateway.mirror_runtime import MirrorRuntime, write_mirror
from tests.plugin import write_plugin

from headrace.contracts import Settings
from headrace.contracts.settings import variables_of
from headrace.contracts.tensors.datatypes import DTYPES
from headrace.results_store import Prediction, StoreReader
from headrace.testing import BackgroundWorker, TemporaryStack


@dataclass
class Served:
    """What stands behind a gateway. folder: of the gate and of the runs of `gate`."""

    settings: Settings
    folder: Path

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep batches of `gate` from beginning."""
        (self.folder / "hold").touch()
        try:
            yield
        finally:
            (self.folder / "hold").unlink()

    def runs(self) -> str:
        path = self.folder / "runs"
        return path.read_text() if path.exists() else ""

    def row(self, request_id: str) -> Prediction | None:
        with StoreReader(self.settings.require_database_url()) as reader:
            return reader.get(request_id)

    def are_cancelled(self, found: list[Prediction]) -> bool:
        """Return whether requests are cancelled and the worker has heard of it, which is a moment after the row."""
        log = (self.folder / "worker.log").read_text()
        return all(row.state == "cancelled" and f"revoked: {row.id}" in log for row in found)


@dataclass
class Running:
    """A gateway that runs as a process. grpc: its address for gRPC, HOST:PORT, "" without."""

    process: subprocess.Popen[str]
    url: str
    grpc: str
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def infer(self, model: str, body: Mapping[str, Any], **options: Any) -> httpx.Response:
        return self.client.post(f"/v2/models/{model}/infer", json=body, **options)


def tensor(values: list[Any], datatype: str = "FP32", **more: Any) -> dict[str, Any]:
    """Return the input `x` of one row."""
    return {"name": "x", "shape": [1, len(values)], "datatype": datatype, "data": values, **more}


def question(*values: float, **more: Any) -> dict[str, Any]:
    """Return a request of one row of FP32."""
    return {"inputs": [tensor(list(values))], **more}


@pytest.fixture(scope="module")
def served(headrace_stack: TemporaryStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A worker that serves `gate`, `mirror` (FP32, versions 1 and 2) and `mirror-…` of each datatype."""
    folder = tmp_path_factory.mktemp("gateway")
    models = folder / "models"
    write_mirror(models, "gate", "FP32", max_rows=1)
    write_mirror(models, "mirror", "FP32")
    write_mirror(models, "mirror", "FP32", version="2")
    for datatype in DTYPES:
        write_mirror(models, f"mirror-{datatype.lower()}", datatype)
    with headrace_stack.key_space() as broker_url, headrace_stack.results_store() as database_url:
        settings = Settings(
            broker_url=SecretStr(broker_url),
            database_url=SecretStr(database_url),
            home=folder / "home",
            models=models,
            gateway_port=0,
            gateway_grpc_port=0,
        )
        settings.home.mkdir()
        environment = {
            "MIRROR_FOLDER": str(folder),
            "PYTHONPATH": _path(write_plugin(folder / "plugin", MirrorRuntime)),
        }
        with _environment(environment), BackgroundWorker(settings, folder / "worker.log"):
            yield Served(settings, folder)


def _path(folder: Path) -> str:
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        yield


@contextmanager
def running_gateway(settings: Settings, *words: str, **variables: str) -> Iterator[Running]:
    """Run `headrace gateway` on free ports."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "headrace.cli", "gateway", "--port", "0", *words],
        env=inherited | variables_of(settings) | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        running = Running(process, *_addresses(process))
        with running.client:
            eventually(lambda: _is_ready(running), 60, "a gateway that is ready")
            yield running
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def _addresses(process: subprocess.Popen[str]) -> tuple[str, str]:
    assert process.stdout
    printed = ""
    for line in process.stdout:
        printed += line
        if found := re.search(r"gateway: (http\S+);.*?(?: gRPC: (\S+);|$)", line):
            return found[1], found[2] or ""
    raise AssertionError(printed)


def _is_ready(running: Running) -> bool:
    try:
        return running.client.get("/v2/health/ready").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def gateway(served: Served) -> Iterator[Running]:
    with running_gateway(served.settings) as running:
        yield running
