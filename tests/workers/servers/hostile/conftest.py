"""A worker whose models are on servers that misbehave on command, one model for each misbehaviour.

All models of a module are on one worker: what one server's model does must not be felt by the others.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import redis
from onnx import helper
from pydantic import SecretStr
from tests.eventually import eventually
from tests.workers.conftest import running_worker
from tests.workers.conftest import write_package as write_file_package
from tests.workers.servers.hostile import grpc_peer, http_peer
from tests.workers.servers.hostile.grpc_peer import GrpcPeer
from tests.workers.servers.hostile.http_peer import HttpPeer

from headrace.contracts import HeadraceError, Settings, TensorSpec
from headrace.contracts.package.manifest import BatchingAdvice, Manifest, write_manifest
from headrace.contracts.package.server import Server
from headrace.producers import Client, Handle
from headrace.queueing import queue_stats
from headrace.results_store import migrate
from headrace.testing import TemporaryStack

#: Enough for any of these tests on a machine that does other things too.
PATIENCE_S = 60.0


@dataclass
class Arena:
    """A worker, its client and both servers. Models `h-…` are on the HTTP server, `g-…` on the gRPC server."""

    settings: Settings
    worker: subprocess.Popen[bytes]
    client: Client
    http: HttpPeer
    grpc: GrpcPeer
    log: Path

    def submit(self, model: str, *values: float, **options: Any) -> list[Handle]:
        """Submit a request of one row for each value."""
        return self.client.submit_many(model, {"x": np.array(values, np.float32)[:, None]}, **options)

    def hears(self, model: str, *values: float) -> None:
        """Assert that the model answers these values, and nobody else's."""
        handles = self.submit(model, *values)
        assert [handle.result(timeout_s=PATIENCE_S)["y"].item() for handle in handles] == [2 * x for x in values]

    def ends(self, model: str, *values: float, deadline_s: float = 8.0) -> list[float | HeadraceError]:
        """Return each request's answer or error; none takes longer than its deadline and what a reply takes."""
        return [outcome(handle) for handle in self.submit(model, *values, deadline_s=deadline_s)]

    def is_well(self, *models: str) -> None:
        """Assert that the worker lives, serves its other models, and that nothing is left in the models' queues."""
        assert self.worker.poll() is None, self.log.read_text()[-3000:]
        x = np.random.default_rng(1).random((2, 4), np.float32)
        assert np.array_equal(self.client.predict("double", {"x": x}, timeout_s=PATIENCE_S)["y"], 2 * x)
        self.hears("h-steady", 3.0, 4.0)
        self.hears("g-steady", 5.0, 6.0)
        for model in models:
            eventually(lambda model=model: self._is_empty(model), PATIENCE_S, f"an empty queue of {model}")

    def _is_empty(self, model: str) -> bool:
        with redis.Redis.from_url(self.settings.require_broker_url()) as broker:
            stats = queue_stats(broker, [f"infer.{model}"])
        return all(each.waiting == each.in_flight == each.delayed == each.dead == 0 for each in stats)

    def mend(self, model: str) -> None:
        """Have the model answer well again, and see it do so."""
        if model.startswith("h-"):
            self.http.models[model] = http_peer.Model()
        else:
            self.grpc.models[model] = grpc_peer.Model()
        self.hears(model, *range(20))


def outcome(handle: Handle) -> float | HeadraceError:
    """Return the answer to a request of one row, or the error that ended it."""
    try:
        return float(handle.result(timeout_s=PATIENCE_S)["y"].item())
    except HeadraceError as error:
        return error


def write_model(models: Path, name: str, *endpoints: str, max_rows: int = 8, **server: Any) -> None:
    """Write the package of a model FP32 [rows, 1] → FP32 [rows, 1] that is on these endpoints."""
    folder = models / name / "1"
    folder.mkdir(parents=True, exist_ok=True)
    x, y = (TensorSpec(name=tensor, datatype="FP32", shape=(1,)) for tensor in "xy")
    on = Server(endpoints=endpoints, model=server.pop("model", name), **server)
    batching = BatchingAdvice(max_rows=max_rows)
    write_manifest(
        folder,
        Manifest(name=name, version="1", runtime="oip", server=on, inputs=(x,), outputs=(y,), batching=batching),
    )


def write_double(models: Path) -> None:
    """Write the package of a model file that doubles `x`, FP32 [rows, 4]."""
    node = helper.make_node("Mul", ["x", "two"], ["y"])
    tensor = ("FP32", (4,))
    write_file_package(models, "double", [node], {"x": tensor}, {"y": tensor}, [("two", np.float32(2))])


@pytest.fixture(scope="module")
def arena(
    request: pytest.FixtureRequest, headrace_stack: TemporaryStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Arena]:
    """The models of a module are in its `PACKAGES`: name → options of `write_model`."""
    folder = tmp_path_factory.mktemp("arena")
    with ExitStack() as stack:
        broker_url = stack.enter_context(headrace_stack.key_space())
        database_url = stack.enter_context(headrace_stack.database())
        migrate(database_url)
        http, grpc = HttpPeer(), GrpcPeer()
        stack.callback(http.close)
        stack.callback(grpc.close)
        models = folder / "models"
        write_double(models)
        for name, options in {"h-steady": {}, "g-steady": {}, **request.module.PACKAGES}.items():
            own = {"h": http.address, "g": grpc.address}.get(name.partition("-")[0], "")
            write_model(
                models, name, *options.get("endpoints", [own]), **{k: v for k, v in options.items() if k != "endpoints"}
            )
        settings = Settings(
            broker_url=SecretStr(broker_url),
            database_url=SecretStr(database_url),
            models=models,
            home=folder / "home",
            lease_s=4.0,
            grace_s=10.0,
        )
        log = folder / "worker.log"
        environment = {"HEADRACE_SERVER_TIMEOUT_S": "4", **getattr(request.module, "ENVIRONMENT", {})}
        worker = stack.enter_context(running_worker(settings, log, **environment))
        client = stack.enter_context(Client(settings))
        arena = Arena(settings, worker, client, http, grpc, log)
        arena.is_well()
        yield arena


def port_of(address: str) -> int:
    return int(urlsplit(address).port or 0)
