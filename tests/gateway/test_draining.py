"""SIGTERM: who waits gets an answer or learns where it will be; nobody new is taken on."""

from __future__ import annotations

import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import httpx
from tests.eventually import eventually
from tests.gateway.conftest import Running, Served, question, running_gateway

ASYNC = {"Prefer": "respond-async"}


def stop(gateway: Running) -> None:
    gateway.process.send_signal(signal.SIGTERM)


def is_draining(gateway: Running) -> bool:
    response = httpx.get(f"{gateway.url}/v2/health/ready")
    return response.status_code == 503 and response.json()["type"].endswith(":draining")


def test_who_waits_gets_the_answer_and_new_requests_are_refused(served: Served) -> None:
    settings = served.settings.model_copy(update={"gateway_grace_s": 60.0})
    with running_gateway(settings) as gateway, ThreadPoolExecutor(4) as pool:
        with served.held():
            waiting = [pool.submit(gateway.infer, "gate", question(number)) for number in (1, 2)]
            eventually(lambda: _on_queue(served) == 2, 30, "requests on the queue")
            stop(gateway)
            eventually(lambda: is_draining(gateway), 30, "a gateway that drains")
            refused = gateway.infer("mirror", question(3))
            assert (refused.status_code, refused.json()["type"]) == (503, "urn:headrace:problem:draining")
            assert int(refused.headers["Retry-After"]) >= 1
            assert httpx.get(f"{gateway.url}/v2/health/live").status_code == 200
        assert [each.result(60).json()["outputs"][0]["data"] for each in waiting] == [[1], [2]]
        assert gateway.process.wait(30) == 0


def test_when_its_time_is_up_who_waits_learns_where_the_answer_will_be(served: Served) -> None:
    settings = served.settings.model_copy(update={"gateway_grace_s": 0.5})
    with served.held(), running_gateway(settings) as gateway, ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(gateway.infer, "gate", question(number)) for number in (1, 2)]
        waiting.append(
            pool.submit(gateway.infer, "gate", question(3), headers=ASYNC | {"Prefer": "respond-async, wait=60"})
        )
        eventually(lambda: _on_queue(served) == 3, 30, "requests on the queue")
        stop(gateway)
        *told, accepted = [each.result(60) for each in waiting]
        assert gateway.process.wait(30) == 0
    assert [(each.status_code, each.json()["type"]) for each in told] == [(503, "urn:headrace:problem:draining")] * 2
    assert accepted.status_code == 202
    with running_gateway(served.settings) as other:
        for each in [*told, accepted]:
            found = other.client.get(each.headers["Location"], params={"wait": 60})
            assert found.json()["state"] == "succeeded"


def _on_queue(served: Served) -> int:
    from headrace.queueing import connect_to, queue_stats

    with connect_to(served.settings) as client:
        (stats,) = queue_stats(client, ["infer.gate"])
    return stats.waiting + stats.in_flight


def test_an_idle_gateway_stops_at_once(served: Served) -> None:
    settings = served.settings.model_copy(update={"gateway_grace_s": 600.0})
    with running_gateway(settings) as gateway:
        gateway.infer("mirror", question(1))
        stop(gateway)
        assert gateway.process.wait(60) == 0


def test_several_processes_share_a_port_and_one_that_dies_is_replaced(served: Served) -> None:
    with running_gateway(served.settings, "--processes", "2") as gateway:
        before = children(gateway)
        assert len(before) == 2
        subprocess.run(["kill", "-9", str(before[0])], check=True)
        eventually(lambda: len(set(children(gateway)) - {before[0]}) == 2, 60, "another process")
        with ThreadPoolExecutor(16) as pool:
            asked = pool.map(
                lambda number: httpx.post(f"{gateway.url}/v2/models/mirror/infer", json=question(number), timeout=60),
                range(50),
            )
            assert {response.status_code for response in asked} == {200}
        stop(gateway)
        assert gateway.process.wait(60) == 0
    assert children(gateway) == []


def children(gateway: Running) -> list[int]:
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(gateway.process.pid)], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in listed.stdout.split()]
