"""gRPC connections cut or mute in the middle, answers that are late or large, workers that stop meanwhile."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tests.eventually import eventually
from tests.runtimes.remote.wrong_answers import message
from tests.workers.conftest import running_worker
from tests.workers.servers.hostile import grpc_peer
from tests.workers.servers.hostile.conftest import PATIENCE_S, Arena, doubled, outcomes
from tests.workers.servers.hostile.grpc_peer import GrpcPeer, x_of
from tests.workers.servers.hostile.pipe import Pipe

from headrace.contracts import DeadlineExceeded

PEER, SMALL = GrpcPeer(), GrpcPeer(**{"grpc.max_receive_message_length": 20_000})
PIPE = Pipe(PEER.port)
PACKAGES: dict[str, dict[str, Any]] = {
    "g-cut": {"endpoints": (f"grpc://127.0.0.1:{PIPE.port}",)},
    "g-mute": {"endpoints": (f"grpc://127.0.0.1:{PIPE.port}",)},
    "g-late": {},
    "g-never": {},
    "g-small": {"endpoints": (SMALL.address,), "max_rows": 10_000},
    "g-stopped": {},
}
ENVIRONMENT = {"HEADRACE_SERVER_TIMEOUT_S": "3"}


@pytest.fixture(scope="module", autouse=True)
def _peers() -> Iterator[None]:
    yield
    PIPE.close()
    PEER.close()
    SMALL.close()


def test_connections_that_are_cut_under_load_lose_nothing(arena: Arena) -> None:
    def slowly(request: Any, context: Any) -> Any:
        time.sleep(0.05)
        return grpc_peer.well(request, context)

    PEER.models["g-cut"].infer = slowly
    calls = PEER.models["g-cut"].calls
    handles = []
    for start in range(0, 120, 30):
        handles += arena.submit("g-cut", *range(start, start + 30))
        calls.clear()
        eventually(lambda: calls, PATIENCE_S, "a call")
        PIPE.cut()
    assert outcomes(handles) == doubled(range(120))
    assert arena.attempts(handles[::30]) == {1}
    arena.is_well("g-cut")


def test_a_connection_that_goes_mute_is_given_up_and_replaced(arena: Arena) -> None:
    arena.hears("g-mute", 1.0, 2.0)
    PIPE.silence()
    handles = arena.submit("g-mute", *range(40))
    ends = arena.ends("g-mute", 1.0, deadline_s=1.5)
    assert all(isinstance(each, DeadlineExceeded) for each in ends), ends
    arena.is_well()
    assert outcomes(handles, within_s=30.0) == doubled(range(40))
    arena.is_well("g-mute")


@pytest.mark.parametrize(("model", "after_s"), [("g-late", 1.5), ("g-never", 20.0)])
def test_an_answer_that_comes_too_late_is_given_to_nobody(arena: Arena, model: str, after_s: float) -> None:
    ended = threading.Event()

    def late(request: Any, context: Any) -> Any:
        ended.wait(after_s)
        return message(2 * x_of(request))

    arena.grpc.models[model].infer = late
    ends = arena.ends(model, *range(1, 9), deadline_s=0.8)
    assert all(isinstance(each, DeadlineExceeded) for each in ends), ends
    arena.is_well()
    arena.grpc.models[model].infer = grpc_peer.well
    ended.set()
    for start in range(100, 300, 10):
        arena.hears(model, *range(start, start + 10))
    arena.is_well(model)


def test_a_limit_of_the_servers_messages_is_learned_and_no_request_fails(arena: Arena) -> None:
    x = np.arange(20_000, dtype=np.float32)[:, None]
    y = arena.client.predict("g-small", {"x": x}, timeout_s=PATIENCE_S)["y"]
    assert np.array_equal(y, 2 * x)
    arena.hears("g-small", *range(500))
    arena.is_well("g-small")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_a_worker_leaves_at_a_mute_server_is_answered_by_the_next_one(arena: Arena, number: int) -> None:
    released = threading.Event()
    workers: set[str] = set()

    def mute(request: Any, context: Any) -> Any:
        # Each worker has one connection.
        workers.add(context.peer())
        released.wait(PATIENCE_S)
        return grpc_peer.well(request, context)

    arena.behave("g-stopped", mute)
    handles = arena.submit("g-stopped", *range(60))
    eventually(lambda: workers, PATIENCE_S, "a batch at the server")
    # Two workers; the second is stopped while the server has its batches.
    settings = arena.settings.model_copy(update={"grace_s": 2.0})
    with running_worker(settings, arena.log, name=f"next-{number}", **ENVIRONMENT) as second:
        eventually(lambda: len(workers) > 1, PATIENCE_S, "a batch of the second worker")
        second.send_signal(number)
        second.wait(30)
    arena.mend("g-stopped")
    released.set()
    assert outcomes(handles) == doubled(range(60))
    arena.is_well("g-stopped")
