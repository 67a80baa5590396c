"""A worker whose models are on servers that misbehave on command, one model for each misbehaviour.

All models of a module are on one worker and misbehave at the same time: what one of them does must not be felt by the
others, and waits pass together.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import redis
from onnx import helper
from tests.eventually import eventually
from tests.workers.conftest import running_worker, worker_settings
from tests.workers.conftest import write_package as write_file_package
from tests.workers.predictions import prediction_of
from tests.workers.servers.hostile import grpc_peer, http_peer
from tests.workers.servers.hostile.grpc_peer import GrpcPeer
from tests.workers.servers.hostile.http_peer import HttpPeer

from headrace.contracts import HeadraceError, Settings, TensorSpec
from headrace.contracts.package.manifest import BatchingAdvice, Manifest, write_manifest
from headrace.contracts.package.server import Server
from headrace.producers import Client, Handle
from headrace.queueing import queue_stats
from headrace.testing import TemporaryStack

#: Enough for any of these tests on a machine that does other things too.
PATIENCE_S = 60.0

#: How a model treats a batch: a `Behaviour` of the server that it is on.
Behaviour: TypeAlias = Callable[..., Any]

#: The answer to a request of one row, or the error that ended it.
End: TypeAlias = float | HeadraceError

#: What a model is asked once it behaves well again.
LATER = range(100, 110)


@dataclass(frozen=True)
class Ordeal:
    """What became of requests by model: of those made while it misbehaved, and of those made once it did no more."""

    ends: dict[str, list[End]]
    later: dict[str, list[End]]

    def is_over(self, model: str) -> bool:
        """Return whether the model answered everything that it was asked later."""
        return self.later[model] == doubled(LATER)


def doubled(values: Iterable[float]) -> list[float]:
    """Return the right answers."""
    return [2.0 * value for value in values]


@dataclass
class Arena:
    """A worker, its client and both servers. Models `h-…` are on the HTTP server, `g-…` on the gRPC server."""

    settings: Settings
    worker: subprocess.Popen[bytes]
    client: Client
    http: HttpPeer
    grpc: GrpcPeer
    log: Path

    def submit(self, model: str, *values: float, deadline_s: float | None = None) -> list[Handle]:
        """Submit a request of one row for each value."""
        return self.client.submit_many(model, {"x": np.array(values, np.float32)[:, None]}, deadline_s=deadline_s)

    def hears(self, model: str, *values: float) -> None:
        """Assert that the model answers these values, and nobody else's."""
        assert outcomes(self.submit(model, *values)) == doubled(values)

    def ends(self, model: str, *values: float, deadline_s: float = 8.0) -> list[End]:
        """Return each request's answer or error; none takes longer than its deadline and what a reply takes."""
        return outcomes(self.submit(model, *values, deadline_s=deadline_s))

    def is_well(self, *models: str) -> None:
        """Assert that the worker lives, serves its other models, and that nothing is left in the models' queues."""
        x = np.random.default_rng(1).random((2, 4), np.float32)
        assert np.array_equal(self.client.predict("double", {"x": x}, timeout_s=PATIENCE_S)["y"], 2 * x)
        self.hears("h-steady", 3.0, 4.0)
        self.hears("g-steady", 5.0, 6.0)
        for model in models:
            self.has_done_all_of(model)

    def has_done_all_of(self, model: str) -> None:
        """Assert that the worker lives, and that nothing is left in the model's queue."""
        assert self.worker.poll() is None, self.log.read_text()[-3000:]
        eventually(lambda: self._is_empty(model), PATIENCE_S, f"an empty queue of {model}")

    def _is_empty(self, model: str) -> bool:
        with redis.Redis.from_url(self.settings.require_broker_url()) as broker:
            stats = queue_stats(broker, [f"infer.{model}"])
        return all(each.waiting == each.in_flight == each.delayed == each.dead == 0 for each in stats)

    def calls(self, model: str) -> list[int]:
        """The rows of the batches that came to the model."""
        return self.http.models[model].calls if model.startswith("h-") else self.grpc.models[model].calls

    def is_called(self, model: str, times: int = 1) -> None:
        """Wait until as many batches have come to the model."""
        eventually(lambda: len(self.calls(model)) >= times, PATIENCE_S, f"{times} batches of {model}")

    def attempts(self, handles: Iterable[Handle]) -> set[int]:
        """Return how many attempts the requests took, each by its row."""
        return {prediction_of(self.client, handle.id).attempts for handle in handles}

    def behave(self, model: str, behaviour: Behaviour) -> None:
        """Have the model treat batches so from now on."""
        if model.startswith("h-"):
            self.http.models[model].infer = behaviour
        else:
            self.grpc.models[model].infer = behaviour

    def mend(self, *models: str) -> None:
        """Have the models answer well again."""
        for model in models:
            self.behave(model, http_peer.well if model.startswith("h-") else grpc_peer.well)

    def undergo(self, behaviours: Mapping[str, Behaviour], values: Iterable[float], deadline_s: float) -> Ordeal:
        """Have models misbehave together, ask each of them for these values, and for `LATER` once they are mended."""
        for model, behaviour in behaviours.items():
            self.behave(model, behaviour)
        handles = {model: self.submit(model, *values, deadline_s=deadline_s) for model in behaviours}
        self.is_well()
        ends = _outcomes_of(handles)
        self.mend(*behaviours)
        later = _outcomes_of({model: self.submit(model, *LATER) for model in behaviours})
        self.is_well()
        return Ordeal(ends, later)


def outcomes(handles: Iterable[Handle], within_s: float = PATIENCE_S) -> list[End]:
    """Return what became of requests of one row; those that have no end within that time have `ResultTimeout`."""
    ends_at = time.monotonic() + within_s
    return [_outcome(handle, ends_at) for handle in handles]


def _outcomes_of(handles: Mapping[str, list[Handle]]) -> dict[str, list[End]]:
    ends_at = time.monotonic() + PATIENCE_S
    return {model: [_outcome(handle, ends_at) for handle in each] for model, each in handles.items()}


def _outcome(handle: Handle, ends_at: float) -> End:
    try:
        return float(handle.result(timeout_s=max(ends_at - time.monotonic(), 0.01))["y"].item())
    except HeadraceError as error:
        return error


def write_model(models: Path, name: str, max_rows: int = 8, **server: Any) -> None:
    """Write the package of a model FP32 [rows, 1] → FP32 [rows, 1]. server: fields of its `Server`."""
    folder = models / name / "1"
    folder.mkdir(parents=True, exist_ok=True)
    x, y = (TensorSpec(name=tensor, datatype="FP32", shape=(1,)) for tensor in "xy")
    on = Server(model=name, **server)
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
        http, grpc = HttpPeer(), GrpcPeer()
        stack.callback(http.close)
        stack.callback(grpc.close)
        models = folder / "models"
        write_double(models)
        for name, options in {"h-steady": {}, "g-steady": {}, **request.module.PACKAGES}.items():
            own = http.address if name.startswith("h-") else grpc.address
            write_model(models, name, **{"endpoints": (own,), **options})
        settings = worker_settings(models, broker_url, database_url, folder / "home")
        log = folder / "worker.log"
        environment = {"HEADRACE_SERVER_TIMEOUT_S": "4", **getattr(request.module, "ENVIRONMENT", {})}
        worker = stack.enter_context(running_worker(settings, log, **environment))
        client = stack.enter_context(Client(settings))
        arena = Arena(settings, worker, client, http, grpc, log)
        arena.is_well()
        yield arena
