"""A worker in front of real model servers: every request ends as it should, whatever the server does."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.eventually import eventually
from tests.servers.conftest import Running
from tests.servers.connections import TENSORS
from tests.servers.process import ModelServer, post
from tests.servers.triton.start import write_model

from headrace.contracts.errors import HeadraceError, InputRefused, PackageError, SignatureMismatch
from headrace.contracts.settings import Settings
from headrace.producers import Client, Handle
from headrace.testing import BackgroundWorker

Serve = Callable[..., Client]

#: Generous: it ends a test that hangs.
ENDS_S = 90.0

#: Server → the runtime of its packages.
RUNTIMES = {"triton": "oip", "tfserving": "tfserving"}

both = pytest.mark.parametrize("name", list(RUNTIMES))


def write_package(models: Path, server: ModelServer, model: str, more: str = "") -> None:
    """Write a package whose batches the server computes by gRPC. more: lines of its table [server], and of others."""
    folder = models / model / "1"
    folder.mkdir(parents=True)
    datatype, shape = TENSORS[model]
    tensor = f'datatype = "{datatype}"\nshape = {list(shape)}\n'
    (folder / "model.toml").write_text(
        f'name = "{model}"\nversion = "1"\nruntime = "{RUNTIMES[server.name]}"\n'
        f'[[inputs]]\nname = "x"\n{tensor}[[outputs]]\nname = "y"\n{tensor}'
        f'[server]\nendpoints = ["{server.addresses["grpc"]}"]\nmodel = "{model}"\n{more}'
    )


@pytest.fixture
def serve(headrace_settings: Settings, headrace_models: Path) -> Iterator[Serve]:
    """Return a client of a worker that serves models of a server. models: name → more lines of its package."""
    ends: list[Callable[[], None]] = []

    def start(server: ModelServer, **models: str) -> Client:
        for model, more in models.items():
            write_package(headrace_models, server, model, more)
        worker = BackgroundWorker(headrace_settings, headrace_settings.home / "worker.log")
        ends.append(worker.stop)
        worker.start()
        client = Client(headrace_settings)
        ends.append(client.close)
        return client

    yield start
    for end in reversed(ends):
        end()


def numbers(count: int) -> np.ndarray:
    """Return rows that all differ."""
    return np.arange(count * 4, dtype=np.float32).reshape(count, 4)


def check(handles: list[Handle], x: np.ndarray) -> None:
    """Check that each request has the answer to its own row."""
    answers = np.concatenate([handle.result(timeout_s=ENDS_S)["y"] for handle in handles])
    np.testing.assert_array_equal(answers, x * np.float32(2) + np.float32(1))


@both
def test_requests_of_many_callers_share_batches_and_rows_name_the_version(
    running: Running, serve: Serve, name: str
) -> None:
    client = serve(running(name), affine="")
    x = numbers(500)
    handles = client.submit_many("affine", {"x": x})
    check(handles, x)
    rows = [client.get(handle.id) for handle in handles]
    assert {row.served_version for row in rows if row} == {"1" if name == "triton" else "2"}
    assert max(row.batch_rows or 0 for row in rows if row) > 1


def test_strings_and_whole_numbers_arrive_exactly(running: Running, serve: Serve) -> None:
    client = serve(running("triton"), text="", whole="")
    word = client.submit("text", {"x": [["wörter"]]})
    number = client.submit("whole", {"x": [[2**53 + 1, -1, 0]]})
    assert word.result(timeout_s=ENDS_S)["y"].tolist() == [["wörter".encode().upper()]]
    assert number.result(timeout_s=ENDS_S)["y"].tolist() == [[2**54 + 3, -1, 1]]


@both
def test_a_server_that_takes_smaller_batches_than_the_package_says_fails_no_request(
    running: Running, serve: Serve, name: str
) -> None:
    client = serve(running(name), limited="[batching]\nmax_rows = 128\n")
    x = numbers(400)
    handles = client.submit_many("limited", {"x": x})
    check(handles, x)
    rows = [client.get(handle.id) for handle in handles]
    assert max(row.batch_rows or 0 for row in rows if row) <= 128
    # And one request with more rows than that is cut into pieces.
    large = numbers(100)
    np.testing.assert_array_equal(client.submit("limited", {"x": large}).result(timeout_s=ENDS_S)["y"], large * 2 + 1)


@both
def test_a_server_that_is_killed_and_started_again_loses_and_fails_no_request(
    own_server: Running, serve: Serve, name: str
) -> None:
    server = own_server(name)
    client = serve(server, affine="")
    x = numbers(50)
    check(client.submit_many("affine", {"x": x}), x)
    server.kill()
    handles = client.submit_many("affine", {"x": x})
    late = client.submit("affine", {"x": x[:1]}, deadline_s=1.0)
    eventually(lambda: late.status() == "expired", ENDS_S, "the request with a deadline to expire")
    server.start()
    check(handles, x)


@both
def test_a_server_that_hangs_holds_up_requests_but_fails_none(own_server: Running, serve: Serve, name: str) -> None:
    server = own_server(name)
    client = serve(server, affine="")
    x = numbers(50)
    check(client.submit_many("affine", {"x": x}), x)
    server.signal(signal.SIGSTOP)
    try:
        handles = client.submit_many("affine", {"x": x})
        late = client.submit("affine", {"x": x[:1]}, deadline_s=1.0)
        eventually(lambda: late.status() == "expired", ENDS_S, "the request with a deadline to expire")
    finally:
        server.signal(signal.SIGCONT)
    check(handles, x)


def test_a_model_that_is_unloaded_and_loaded_again_fails_no_request(own_server: Running, serve: Serve) -> None:
    server = own_server("triton")
    client = serve(server, affine="")
    x = numbers(50)
    check(client.submit_many("affine", {"x": x}), x)
    post(f"{server.addresses['http']}/v2/repository/models/affine/unload")
    handles = client.submit_many("affine", {"x": x})
    late = client.submit("affine", {"x": x[:1]}, deadline_s=1.0)
    eventually(lambda: late.status() == "expired", ENDS_S, "the request with a deadline to expire")
    eventually(lambda: "affine at grpc://" in client.problem_of("affine"), ENDS_S, "the worker's report")
    post(f"{server.addresses['http']}/v2/repository/models/affine/load")
    check(handles, x)
    eventually(lambda: client.problem_of("affine") == "", ENDS_S, "a worker that reports nothing")


def test_a_model_with_other_tensors_after_a_reload_is_refused_by_name(own_server: Running, serve: Serve) -> None:
    server = own_server("triton")
    client = serve(server, affine="")
    x = numbers(4)
    check(client.submit_many("affine", {"x": x}), x)
    write_model(server.folder, "affine", size=5)
    post(f"{server.addresses['http']}/v2/repository/models/affine/load")
    # The worker looks at the tensors when the server refuses a batch, though not at every one.
    eventually(lambda: "isn't the one of the package any more: input x" in _refusal(client, x), ENDS_S, "the reason")
    write_model(server.folder, "affine")
    post(f"{server.addresses['http']}/v2/repository/models/affine/load")
    eventually(lambda: _succeeds(client, x), ENDS_S, "the worker to notice that the model fits again")


def _refusal(client: Client, x: np.ndarray) -> str:
    with pytest.raises((PackageError, InputRefused)) as caught:
        client.submit("affine", {"x": x}).result(timeout_s=ENDS_S)
    return str(caught.value)


def _succeeds(client: Client, x: np.ndarray) -> bool:
    handle = client.submit("affine", {"x": x})
    try:
        check([handle], x)
    except PackageError:
        return False
    return True


def test_a_reloaded_model_is_taken_as_it_is_where_the_package_allows_that(own_server: Running, serve: Serve) -> None:
    server = own_server("triton")
    client = serve(server, affine="allow_new_signature = true\n")
    x = numbers(4)
    check(client.submit_many("affine", {"x": x}), x)
    write_model(server.folder, "affine", size=5)
    post(f"{server.addresses['http']}/v2/repository/models/affine/load")
    # The worker sees the new tensors when the server refuses the old ones.
    with pytest.raises(HeadraceError):
        client.submit("affine", {"x": x}).result(timeout_s=ENDS_S)
    wider = np.ones((3, 5), np.float32)
    eventually(lambda: _answers(client, wider), ENDS_S, "the worker to take the new tensors")


def _answers(client: Client, x: np.ndarray) -> bool:
    try:
        answer = client.submit("affine", {"x": x}).result(timeout_s=ENDS_S)["y"]
    except (SignatureMismatch, PackageError):
        return False
    np.testing.assert_array_equal(answer, x * 2 + 1)
    return True


def test_a_full_queue_of_the_server_fails_no_request(running: Running, serve: Serve) -> None:
    """The peer's `slow` takes two batches of 4 rows and says UNAVAILABLE to a third."""
    client = serve(running("tfserving"), slow="max_in_flight = 16\n[batching]\nmax_rows = 1\n")
    x = numbers(12)
    check(client.submit_many("slow", {"x": x}), x)
