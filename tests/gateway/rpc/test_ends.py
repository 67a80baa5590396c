"""How calls end before their answer: deadlines, cancellation, limits, a full queue, a gateway that stops."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from grpc import Compression, StatusCode
from tests.eventually import eventually
from tests.gateway.conftest import Running, Served, running_gateway
from tests.gateway.rpc.client import Client, connected, refusal_of, request, row

from headrace.queueing import connect_to, queue_stats
from headrace.results_store import Prediction, StoreReader
from headrace.runtimes.remote.messages import oip
from headrace.runtimes.remote.oip.messages import read_answer


def on_queue(served: Served) -> int:
    with connect_to(served.settings) as client:
        (stats,) = queue_stats(client, ["infer.gate"])
    return stats.waiting + stats.in_flight


def rows(served: Served) -> list[Prediction]:
    """Return the rows of `gate`, the oldest first."""
    with StoreReader(served.settings.require_database_url()) as reader:
        return list(reversed(reader.find(model="gate")))


def states(served: Served) -> list[str]:
    return [row.state for row in rows(served)]


def test_a_deadline_of_the_request_ends_it(client: Client, served: Served) -> None:
    with served.held():
        first = client.start("ModelInfer", row("gate", 11))
        eventually(lambda: on_queue(served) == 1, 30, "a request on the queue")
        refused = client.refusal("ModelInfer", row("gate", 12, parameters={"timeout": 300_000}))
    assert refused.code is StatusCode.DEADLINE_EXCEEDED
    assert read_answer(first.result(), "mine").outputs["y"].tolist() == [[11]]
    request_id = refused.metadata["headrace-request-id"]
    eventually(lambda: served.row(request_id), 30, "a row")
    assert "12" not in served.runs().split()


def test_a_deadline_of_the_call_is_that_of_the_request(client: Client, served: Served) -> None:
    before = len(states(served))
    with served.held():
        first = client.start("ModelInfer", row("gate", 21))
        eventually(lambda: on_queue(served) == 1, 30, "a request on the queue")
        refused = client.refusal("ModelInfer", row("gate", 22), timeout=0.5)
        assert refused.code is StatusCode.DEADLINE_EXCEEDED
    first.result()
    eventually(lambda: len(states(served)) == before + 2, 30, "two rows")
    assert sorted(states(served)[before:]) == ["expired", "succeeded"]
    assert "22" not in served.runs().split()


def test_a_call_that_is_cancelled_cancels_its_request(client: Client, served: Served) -> None:
    before = len(states(served))
    with served.held():
        first = client.start("ModelInfer", row("gate", 31))
        eventually(lambda: on_queue(served) == 1, 30, "a request on the queue")
        second = client.start("ModelInfer", row("gate", 32))
        eventually(lambda: on_queue(served) == 2, 30, "another one")
        second.cancel()
        (found,) = eventually(lambda: rows(served)[before:], 30, "its row")
        eventually(lambda: served.are_cancelled([found]), 30, "a worker that has heard of it")
    first.result()
    assert client.infer("gate", 33).outputs["y"].tolist() == [[33]]
    assert "32" not in served.runs().split()


def test_a_client_that_goes_away_cancels_its_request(gateway: Running, served: Served) -> None:
    before = len(states(served))
    with served.held():
        with connected(gateway.grpc) as leaving:
            calls = [leaving.start("ModelInfer", row("gate", 41))]  # a future that nobody holds is cancelled
            eventually(lambda: on_queue(served) == 1, 30, "a request on the queue")
            calls.append(leaving.start("ModelInfer", row("gate", 42)))
            eventually(lambda: on_queue(served) == 2, 30, "another one")
        eventually(lambda: len(states(served)) == before + 2, 30, "rows")
        eventually(lambda: served.are_cancelled(rows(served)[before:]), 30, "a worker that has heard of it")
    with connected(gateway.grpc) as client:
        client.infer("gate", 43)
    assert "42" not in served.runs().split()


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip, Compression.Deflate])
def test_a_message_above_the_limit_is_refused(served: Served, compression: Compression) -> None:
    settings = served.settings.model_copy(update={"gateway_body_bytes": 100_000})
    with running_gateway(settings) as gateway, connected(gateway.grpc) as client:
        small, large = (request("mirror", {"x": np.zeros((1, size), np.float32)}) for size in (20_000, 10_000_000))
        client.send("ModelInfer", small, compression=compression)
        refused = client.refusal("ModelInfer", large, compression=compression)
        assert refused.code is StatusCode.RESOURCE_EXHAUSTED
        assert "larger than max" in refused.text
        client.send("ModelInfer", small, compression=compression)


def test_a_compression_bomb_takes_no_memory(gateway: Running, client: Client) -> None:
    def peak_mib() -> int:
        status = Path(f"/proc/{gateway.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) >> 10

    client.infer("mirror", 1)
    before = peak_mib()
    refused = client.refusal("ModelInfer", bytes(400 << 20), compression=Compression.Gzip)
    assert refused.code is StatusCode.RESOURCE_EXHAUSTED
    assert peak_mib() < before + 200  # the limit is 64 MiB, of which it may hold a copy


def test_a_full_queue_says_when_to_try_again(served: Served) -> None:
    settings = served.settings.model_copy(update={"queue_limit": 1})
    with served.held(), running_gateway(settings) as gateway, connected(gateway.grpc) as client:
        # A worker may hold some of them already.
        waiting = [client.start("ModelInfer", row("gate", 50 + number)) for number in range(6)]
        eventually(lambda: any(call.done() for call in waiting), 30, "a refusal")
        refused = refusal_of(next(call for call in waiting if call.done()))
        assert refused.code is StatusCode.RESOURCE_EXHAUSTED
        assert refused.metadata["grpc-retry-pushback-ms"] == "1000"
        for call in waiting:
            call.cancel()


def test_many_calls_each_get_their_own_answer(client: Client) -> None:
    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(lambda number: client.infer("mirror", number).outputs["y"].item(), range(200)))
    assert found == list(range(200))


def test_who_waits_gets_the_answer_and_new_calls_are_refused(served: Served) -> None:
    settings = served.settings.model_copy(update={"gateway_grace_s": 60.0})
    with running_gateway(settings) as gateway, connected(gateway.grpc) as client:
        with served.held():
            waiting = [client.start("ModelInfer", row("gate", number)) for number in (61, 62)]
            eventually(lambda: on_queue(served) == 2, 30, "requests on the queue")
            gateway.process.send_signal(signal.SIGTERM)
            eventually(lambda: not is_ready(client), 30, "a gateway that drains")
            refused = client.refusal("ModelInfer", row("mirror", 63))
            assert refused.code is StatusCode.UNAVAILABLE
            assert "the gateway is shutting down" in refused.text
            assert refused.metadata["grpc-retry-pushback-ms"] == "1000"
            assert oip.ServerLiveResponse.FromString(client.send("ServerLive", b"")).live
        assert [read_answer(call.result(), "mine").outputs["y"].item() for call in waiting] == [61, 62]
        assert gateway.process.wait(30) == 0


def test_when_its_time_is_up_who_waits_learns_the_id_and_the_request_goes_on(served: Served) -> None:
    settings = served.settings.model_copy(update={"gateway_grace_s": 0.5})
    with running_gateway(settings) as gateway, connected(gateway.grpc) as client:
        with served.held():
            waiting = client.start("ModelInfer", row("gate", 71))
            eventually(lambda: on_queue(served) == 1, 30, "a request on the queue")
            gateway.process.send_signal(signal.SIGTERM)
            refused = refusal_of(waiting)
            assert gateway.process.wait(30) == 0
        assert refused.code is StatusCode.UNAVAILABLE
        request_id = refused.metadata["headrace-request-id"]
        assert request_id in refused.text
        assert eventually(lambda: [row.state for row in rows(served) if row.id == request_id], 30, "a row") == [
            "succeeded"
        ]


def is_ready(client: Client) -> bool:
    return oip.ServerReadyResponse.FromString(client.send("ServerReady", b"")).ready
