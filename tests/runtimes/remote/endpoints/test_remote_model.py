"""A model on several endpoints: shared out, moved from one that fails to another, and watched."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import numpy as np
import pytest
from tests.eventually import eventually
from tests.runtimes.remote.endpoints.scripted import SIGNATURE, Scripted, remote_model, rows, works

from headrace.contracts import PackageError, Signature, TensorSpec
from headrace.runtimes.base import TransientFailure, Unavailable, is_concurrent, max_in_flight
from headrace.runtimes.remote.base import (
    BadAnswer,
    BatchTooLarge,
    Misconfigured,
    OtherSignature,
    Refused,
    RemoteSignature,
    ServerAway,
    ServerBusy,
)
from headrace.runtimes.remote.endpoints import endpoint
from headrace.runtimes.remote.endpoints.remote_model import RemoteModel


@contextmanager
def serving(
    *connections: Scripted, timeout_s: float = 30.0, max_in_flight: int = 0, allow_new_signature: bool = False
) -> Iterator[RemoteModel]:
    with closing(
        remote_model(
            *connections,
            timeout_s=timeout_s,
            max_in_flight=max_in_flight,
            allow_new_signature=allow_new_signature,
        )
    ) as model:
        yield model
    assert all(connection.closed for connection in connections)


def test_a_batch_comes_back_with_the_version_that_answered() -> None:
    with serving(Scripted()) as model:
        found = model.compute(rows(3), None)
        assert found.outputs["y"].tolist() == [[2.0]] * 3
        assert found.version == "7"
        assert is_concurrent(model)


def test_batches_are_shared_out_and_no_endpoint_has_more_than_its_share() -> None:
    servers = [Scripted(run_s=0.02), Scripted(run_s=0.02), Scripted(run_s=0.02)]
    with serving(*servers, max_in_flight=2) as model, ThreadPoolExecutor(12) as threads:
        assert max_in_flight(model) == 6
        found = list(threads.map(lambda _: model.infer(rows())["y"].item(), range(60)))
    assert found == [2.0] * 60
    assert [server.most for server in servers] == [2, 2, 2]
    assert all(server.calls >= 10 for server in servers)


def test_a_batch_whose_endpoint_fails_goes_to_another() -> None:
    broken, fine = Scripted(), Scripted()
    broken.error = ServerAway("connection refused")
    with serving(broken, fine) as model:
        assert [works(model) for _ in range(20)] == [True] * 20
    assert fine.calls == 20


def test_while_all_are_away_nothing_is_sent_and_the_time_to_wait_is_told() -> None:
    server = Scripted()
    server.error = ServerAway("connection refused")
    with serving(server) as model:
        for _ in range(50):
            with pytest.raises(Unavailable) as raised:
                model.infer(rows())
            assert raised.value.retry_after_s > 0
        # The look at its tensors fails, so no batch is sent at all.
        assert server.calls == 0
        assert server.looks < 10
        server.error = None
        eventually(lambda: works(model), 60, "an endpoint that is back")


def test_a_connection_that_went_mute_is_opened_anew_before_the_endpoint_is_asked() -> None:
    server = Scripted()
    with serving(server) as model:
        assert works(model)
        server.mute = True
        assert not works(model)
        eventually(lambda: works(model), 60, "an answer over a new connection")
    # One look before the first batch, one over the new connection: none went into the mute one.
    assert (server.reopenings, server.looks) == (1, 2)


def test_a_connection_that_was_refused_is_not_opened_anew() -> None:
    server = Scripted()
    with serving(server) as model:
        server.error = ServerAway("connection refused")
        assert not works(model)
        looks = server.looks
        # The second of these looks follows one that was refused as well.
        eventually(lambda: server.looks >= looks + 2, 60, "looks whether the endpoint is back")
        server.error = None
        eventually(lambda: works(model), 60, "an endpoint that is back")
    assert server.reopenings == 0


def test_a_server_that_dies_and_comes_back_twenty_times_loses_nothing() -> None:
    server = Scripted(run_s=0.001)
    done = []
    with serving(server) as model:

        def client() -> None:
            for _ in range(100):
                while not works(model):
                    time.sleep(0.01)
                done.append(1)

        threads = [threading.Thread(target=client) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            server.error = ServerAway("killed")
            time.sleep(0.03)
            server.error = None
            time.sleep(0.03)
        for thread in threads:
            thread.join(60)
    assert len(done) == 400


def test_a_busy_server_gets_less_and_its_batches_go_elsewhere() -> None:
    busy, fine = Scripted(), Scripted()
    busy.error = ServerBusy("all batch threads are busy")
    with serving(busy, fine) as model:
        assert [works(model) for _ in range(10)] == [True] * 10
        busy.error = None
        eventually(lambda: works(model) and busy.calls > 5, 60, "an endpoint that takes batches again")


def test_a_busy_server_alone_is_asked_again_when_it_said() -> None:
    server = Scripted()
    server.error = ServerBusy("full", retry_after_s=30.0)
    with serving(server) as model:
        with pytest.raises(ServerBusy) as raised:
            model.infer(rows())
        assert 15.0 < raised.value.retry_after_s <= 30.0
        with pytest.raises(Unavailable):
            model.infer(rows())
        assert server.calls == 1


@pytest.mark.parametrize("error", [Refused("no such class"), BatchTooLarge("at most 8", 8), BadAnswer("not JSON")])
def test_what_a_batch_is_to_blame_for_is_no_reason_to_leave_the_endpoint(error: Exception) -> None:
    server = Scripted()
    with serving(server) as model:
        assert works(model)
        server.error = error
        with pytest.raises(type(error)):
            model.infer(rows())
        server.error = None
        assert works(model)


def test_a_deadline_ends_a_call_and_the_endpoint_stays() -> None:
    server = Scripted(run_s=60.0)
    with serving(server) as model:
        with pytest.raises(ServerAway):
            model.compute(rows(), time.monotonic() + 0.5)
        server.run_s = 0.0
        assert works(model)


def test_an_endpoint_that_lets_every_deadline_pass_is_left_for_another() -> None:
    hung, fine = Scripted(run_s=60.0), Scripted()
    with serving(hung, fine) as model:
        ended = []
        for _ in range(12):
            try:
                ended.append(model.compute(rows(), time.monotonic() + 0.5).version)
            except Unavailable:
                ended.append("")
        assert ended[-3:] == ["7"] * 3


def test_a_batch_that_takes_too_long_while_others_are_answered_counts_as_tried() -> None:
    server = Scripted()
    answered = threading.Event()

    def answer(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if inputs["x"].shape[0] == 3:
            began = time.monotonic()
            answered.wait(60)
            time.sleep(max(0.0, began + 0.5 - time.monotonic()))
            raise ServerAway("no answer in time")
        return {"y": 2 * inputs["x"]}

    server.answer = answer
    with serving(server, timeout_s=0.5, max_in_flight=4) as model, ThreadPoolExecutor(1) as thread:
        late = thread.submit(model.infer, rows(3))
        eventually(lambda: server.calls == 1, 60, "the batch that takes long")
        assert works(model)
        answered.set()
        with pytest.raises(TransientFailure) as raised:
            late.result(60)
        assert not isinstance(raised.value, Unavailable)


def test_where_a_person_must_act_batches_wait() -> None:
    server = Scripted()
    server.error = Misconfigured("no such model: m")
    with serving(server) as model:
        with pytest.raises(Unavailable, match="no such model") as raised:
            model.infer(rows())
        assert raised.value.retry_after_s > 1
        assert server.calls == 1


def test_another_model_is_refused_by_name_and_nothing_is_sent_to_it() -> None:
    server = Scripted()
    server.tensors = RemoteSignature(inputs=(TensorSpec(name="z", datatype="FP32"),), outputs=SIGNATURE.outputs)
    with serving(server) as model:
        for _ in range(3):
            with pytest.raises(PackageError, match=r"input 'z'.*headrace models add --server"):
                model.infer(rows())
        assert server.calls == 0


def test_a_model_that_is_reloaded_with_other_tensors_is_noticed_by_the_batch_that_it_refuses() -> None:
    server = Scripted()
    with serving(server) as model:
        assert works(model)
        server.error = Refused("unexpected shape")
        server.tensors = RemoteSignature(
            inputs=(TensorSpec(name="x", datatype="FP64", shape=(1,)),), outputs=SIGNATURE.outputs
        )
        with pytest.raises(PackageError, match="input x FP64"):
            model.infer(rows())


@pytest.mark.parametrize(("look_again_s", "looks"), [(3600.0, 1), (0.0, 5)])
def test_batches_that_are_refused_have_the_tensors_looked_at_now_and_then(
    monkeypatch: pytest.MonkeyPatch, look_again_s: float, looks: int
) -> None:
    monkeypatch.setattr(endpoint, "LOOK_AGAIN_S", look_again_s)
    server = Scripted()
    with serving(server) as model:
        assert works(model)
        before = server.looks
        server.error = Refused("unexpected values")
        for _ in range(5):
            with pytest.raises(Refused):
                model.infer(rows())
        assert server.looks - before == looks


def test_the_other_endpoint_goes_on_while_one_has_another_model() -> None:
    changed, fine = Scripted(), Scripted()
    changed.tensors = RemoteSignature(inputs=SIGNATURE.inputs, outputs=())
    with serving(changed, fine) as model:
        assert [works(model) for _ in range(6)] == [True] * 6
    assert changed.calls == 0


def test_the_new_signature_is_taken_where_the_package_allows_it() -> None:
    server = Scripted()
    new = TensorSpec(name="x", datatype="FP64", shape=(2,))
    taken: list[Signature] = []
    with serving(server, allow_new_signature=True) as model:
        model.on_new_signature(taken.append)
        assert works(model)
        server.tensors = RemoteSignature(
            inputs=(new,), outputs=(TensorSpec(name="y", datatype="FP64", shape=(2,)),), version="8"
        )
        server.error = OtherSignature("x is DT_DOUBLE")
        with pytest.raises(Unavailable):
            model.infer(rows())
        server.error = None
        (signature,) = taken
        assert signature.inputs == (new,)

        def answers() -> bool:
            try:
                return bool(model.infer({"x": np.ones((1, 2))})["y"].tolist() == [[2.0, 2.0]])
            except Unavailable:
                return False

        eventually(answers, 60, "answers of the new model")


def test_of_several_servers_the_one_that_lies_about_its_rows_fails_by_name() -> None:
    fine, liar = Scripted(), Scripted()
    liar.answer = lambda inputs: {"y": np.ones((1, 1), np.float32)}
    with serving(fine, liar) as model:
        assert model.infer(rows(5))["y"].shape == (5, 1)
        with pytest.raises(BadAnswer, match=r"^server-1: the server answered 1 rows of 'y' for 5 rows$"):
            model.infer(rows(5))
