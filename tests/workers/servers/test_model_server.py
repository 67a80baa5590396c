"""A worker whose batches a model server computes: what becomes of requests whatever the server does."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tests.eventually import eventually
from tests.workers.conftest import StartWorker
from tests.workers.predictions import prediction_of
from tests.workers.servers.conftest import ModelServer, write_package

from headrace.contracts import DeadlineExceeded, InputRefused, OutputMismatch, PackageError, Settings, State
from headrace.producers import Client, Handle


def submit(client: Client, *values: float, deadline_s: float | None = None) -> list[Handle]:
    return client.submit_many("m", {"x": np.array(values, np.float32)[:, None]}, deadline_s=deadline_s)


def called(server: ModelServer, times: int) -> bool:
    return len(server.calls) >= times


def answers(handles: list[Handle], timeout_s: float = 60) -> list[float]:
    return [handle.result(timeout_s=timeout_s)["y"].item() for handle in handles]


def test_a_batch_is_computed_by_the_server_and_the_row_names_its_version(
    settings: Settings, server: ModelServer, start_worker: StartWorker
) -> None:
    server.does(version="17")
    with start_worker(), Client(settings) as client:
        handles = submit(client, *range(100))
        assert answers(handles) == [2.0 * value for value in range(100)]
        row = prediction_of(client, handles[0].id)
        assert (row.version, row.served_version, row.attempts) == ("1", "17", 1)
    assert len(server.calls) < 100
    assert sum(server.calls) == 100


def test_many_batches_are_in_flight_and_the_next_are_there_when_they_end(
    settings: Settings, server: ModelServer, start_worker: StartWorker
) -> None:
    server.does(run_s=0.2)
    with start_worker(), Client(settings) as client:
        handles: list[Handle] = []
        for _ in range(40):
            # Not in one go: a queue that is filled once is claimed in large pieces.
            handles += submit(client, *range(20))
            time.sleep(0.01)
        assert answers(handles) == [2.0 * value for value in range(20)] * 40
        in_flight = sorted(server.in_flight)
        assert in_flight[-1] > 2, "it begins with two"
        assert in_flight[len(in_flight) // 2] >= 2, "most come while another is there"


def test_requests_wait_for_a_server_that_comes_later(
    settings: Settings, server: ModelServer, start_worker: StartWorker
) -> None:
    server.kill()
    with start_worker(), Client(settings) as client:
        handles = submit(client, *range(50))
        (late,) = submit(client, 1.0, deadline_s=2.0)
        with pytest.raises(DeadlineExceeded):
            late.result(timeout_s=60)
        assert not any(handle.done() for handle in handles)
        assert client.predict("double", {"x": np.ones((1, 4), np.float32)}, timeout_s=60)
        server.start()
        assert answers(handles) == [2.0 * value for value in range(50)]
        assert {prediction_of(client, handle.id).attempts for handle in handles} == {1}


def test_a_server_that_is_killed_and_restarted_twenty_times_loses_nothing(
    settings: Settings, server: ModelServer, start_worker: StartWorker
) -> None:
    handles: list[Handle] = []
    stop = threading.Event()
    with start_worker(), Client(settings) as client:

        def load() -> None:
            number = 0
            while not stop.is_set():
                handles.extend(submit(client, *range(number, number + 20)))
                number += 20
                time.sleep(0.1)

        thread = threading.Thread(target=load)
        thread.start()
        for _ in range(20):
            enough = len(server.calls) + 4
            eventually(partial(called, server, enough), 60, "batches that reach the server")
            server.kill()
            time.sleep(0.1)
            server.start()
        stop.set()
        thread.join()
        assert len(handles) > 500
        assert answers(handles) == [2.0 * value for value in range(len(handles))]
        assert {prediction_of(client, handle.id).attempts for handle in handles[::50]} == {1}


def test_while_one_of_two_servers_hangs_the_other_answers(
    settings: Settings,
    server: ModelServer,
    make_server: Callable[[str], ModelServer],
    start_worker: StartWorker,
) -> None:
    other = make_server("other")
    write_package(settings.models, server.address, other.address)
    with start_worker(HEADRACE_SERVER_TIMEOUT_S="2"), Client(settings) as client:
        assert answers(submit(client, *range(40))) == [2.0 * value for value in range(40)]
        assert server.calls
        assert other.calls
        server.signal(signal.SIGSTOP)
        assert answers(submit(client, *range(200))) == [2.0 * value for value in range(200)]


def test_a_busy_server_makes_requests_wait(settings: Settings, server: ModelServer, start_worker: StartWorker) -> None:
    server.does(busy=True)
    with start_worker(), Client(settings) as client:
        handles = submit(client, *range(30))
        eventually(lambda: server.calls, 30, "a batch that the server refuses")
        began = time.monotonic()
        time.sleep(1.0)
        calls = len(server.calls)
        # Each once, and then less and less often, up to a second apart. Without pauses there are a thousand a second.
        assert calls < 60 + 10 * (time.monotonic() - began)
        server.does()
        assert answers(handles) == [2.0 * value for value in range(30)]
        assert {prediction_of(client, handle.id).attempts for handle in handles} == {1}


def test_a_batch_too_large_is_cut_and_no_later_one_is_as_large(
    settings: Settings, server: ModelServer, start_worker: StartWorker
) -> None:
    write_package(settings.models, server.address, max_rows=64)
    server.does(most_rows=5)
    with start_worker(), Client(settings) as client:
        assert answers(submit(client, *range(200))) == [2.0 * value for value in range(200)]
        refused = sum(rows > 5 for rows in server.calls)
        assert refused >= 1
        assert answers(submit(client, *range(200))) == [2.0 * value for value in range(200)]
        assert sum(rows > 5 for rows in server.calls) == refused
    # The next worker begins with what this one learned.
    with start_worker(), Client(settings) as client:
        assert answers(submit(client, *range(60))) == [2.0 * value for value in range(60)]
        assert sum(rows > 5 for rows in server.calls) == refused


def test_a_request_with_many_rows_is_cut_too(
    settings: Settings, server: ModelServer, start_worker: StartWorker
) -> None:
    server.does(most_rows=3)
    with start_worker(), Client(settings) as client:
        x = np.arange(20, dtype=np.float32)[:, None]
        assert client.predict("m", {"x": x}, timeout_s=60)["y"].tolist() == (2 * x).tolist()


def test_a_value_that_the_server_refuses_fails_its_request_alone(
    settings: Settings, server: ModelServer, start_worker: StartWorker
) -> None:
    server.does(refuse=13.0)
    with start_worker(), Client(settings) as client:
        handles = submit(client, *range(40))
        with pytest.raises(InputRefused, match="the value 13 is out of range"):
            handles[13].result(timeout_s=60)
        rest = [number for number in range(40) if number != 13]
        assert answers([handles[number] for number in rest]) == [2.0 * number for number in rest]


def test_a_server_that_leaves_rows_out_fails_by_name_and_never_misroutes(
    settings: Settings, server: ModelServer, start_worker: StartWorker
) -> None:
    server.does(lie=True)
    with start_worker(), Client(settings) as client:
        for handle in submit(client, *range(20)):
            with pytest.raises(OutputMismatch, match="0 rows of 'y' for 1 rows"):
                handle.result(timeout_s=60)
        server.does()
        assert answers(submit(client, 4.0)) == [8.0]


def test_a_slow_server_keeps_a_deadline_and_others_wait_for_it(
    settings: Settings, server: ModelServer, start_worker: StartWorker
) -> None:
    write_package(settings.models, server.address, max_rows=1)
    server.does(run_s=1.0)
    with start_worker(), Client(settings) as client:
        (hasty,) = submit(client, 1.0, deadline_s=0.3)
        patient = submit(client, 2.0, 3.0)
        with pytest.raises(DeadlineExceeded):
            hasty.result(timeout_s=60)
        assert answers(patient) == [4.0, 6.0]


def test_a_model_that_is_loading_is_waited_for(
    settings: Settings, server: ModelServer, start_worker: StartWorker
) -> None:
    server.does(loading=True)
    with start_worker(), Client(settings) as client:
        handles = submit(client, *range(10))
        eventually(lambda: server.calls, 30, "a batch")
        time.sleep(0.5)
        assert not any(handle.done() for handle in handles)
        server.does()
        assert answers(handles) == [2.0 * value for value in range(10)]


def test_a_model_that_is_gone_makes_requests_wait_until_a_person_puts_it_back(
    settings: Settings, server: ModelServer, start_worker: StartWorker, tmp_path: Path
) -> None:
    server.does(unloaded=True, away=False)
    with start_worker(), Client(settings) as client:
        (waiting,) = submit(client, 5.0)
        log = tmp_path / "worker.log"
        eventually(lambda: "server.misconfigured" in log.read_text(), 60, "a line in the log")
        (expires,) = submit(client, 6.0, deadline_s=1.5)
        with pytest.raises(DeadlineExceeded):
            expires.result(timeout_s=60)
        assert not waiting.done()
        server.does()
        assert answers([waiting]) == [10.0]


def test_a_reloaded_model_with_other_tensors_is_refused_by_name(
    settings: Settings, server: ModelServer, start_worker: StartWorker
) -> None:
    with start_worker(), Client(settings) as client:
        assert answers(submit(client, 1.0)) == [2.0]
        time.sleep(2.1)  # the tensors are looked at every two seconds at most
        server.does(datatype="FP64", version="2")
        with pytest.raises(PackageError, match=r"input x FP64 \[rows, 1\], but model.toml says x FP32"):
            submit(client, 1.0)[0].result(timeout_s=60)
        assert client.predict("double", {"x": np.ones((1, 4), np.float32)}, timeout_s=60)
        server.does(version="3")
        time.sleep(11)
        assert answers(submit(client, 1.0)) == [2.0]


def test_a_package_may_go_by_the_tensors_of_a_reloaded_model(
    settings: Settings, server: ModelServer, start_worker: StartWorker
) -> None:
    write_package(settings.models, server.address, allow_new_signature=True)
    with start_worker(), Client(settings) as client:
        assert answers(submit(client, 1.0)) == [2.0]
        time.sleep(2.1)
        server.does(size=2, version="2")
        # This one was checked against the old tensors.
        first = submit(client, 1.0)[0]
        eventually(first.done, 60, "the end of a request of the old form")
        assert prediction_of(client, first.id).state is State.FAILED

        def takes_two() -> bool:
            handle = client.submit("m", {"x": [[1.0, 2.0]]})
            return bool(handle.result(timeout_s=60)["y"].tolist() == [[2.0, 4.0]])

        from headrace.contracts import SignatureMismatch

        def accepted() -> bool:
            try:
                return takes_two()
            except SignatureMismatch:
                return False

        eventually(accepted, 90, "a client that knows the new tensors")
