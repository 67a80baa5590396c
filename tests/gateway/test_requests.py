"""Asynchronous requests: accepted at once, found by id, waited for, cancelled."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid
from urllib.parse import quote, unquote

import httpx
import numpy as np
import pytest
from pydantic import SecretStr
from tests.eventually import eventually
from tests.gateway.conftest import Running, Served, question, running_gateway
from tests.gateway.mirror_runtime import REFUSED

from headrace.contracts.message import Reply, encode_replies
from headrace.producers import Client
from headrace.queueing import ClaimingConsumer, connect, connect_to, keys
from headrace.testing import TemporaryStack

ASYNC = {"Prefer": "respond-async"}


def notes(served: Served) -> int:
    with connect_to(served.settings) as client:
        return sum(1 for _ in client.scan_iter("headrace:gateway:request:*"))


def test_a_request_is_accepted_at_once_and_answered_later(gateway: Running, served: Served) -> None:
    with served.held():
        accepted = gateway.infer("gate", question(1), headers=ASYNC)
        assert accepted.status_code == 202
        assert accepted.headers["Preference-Applied"] == "respond-async"
        found = accepted.json()
        location = accepted.headers["Location"]
        assert (found["state"], found["model"]) == ("pending", "gate")
        assert found["urls"] == {"self": location, "cancel": location}
        pending = gateway.client.get(location)
        assert (pending.status_code, pending.json()["state"]) == (200, "pending")
        assert pending.headers["Retry-After"] == "1"
        assert gateway.client.get(location, params={"wait": 1}).json()["state"] == "pending"
    ended = gateway.client.get(location, params={"wait": 60}).json()
    assert (ended["state"], ended["urls"]) == ("succeeded", {"self": location})
    assert ended["answer"]["outputs"][0]["data"] == [1]
    eventually(lambda: notes(served) == 0, 30, "no note on a request that has a row")


def test_who_waits_gets_the_answer_when_it_comes_in_time(gateway: Running) -> None:
    response = gateway.infer("mirror", question(7, id="mine"), headers={"Prefer": "respond-async, wait=60"})
    assert (response.status_code, response.json()["outputs"][0]["data"]) == (200, [7])
    assert response.json()["id"] == "mine"
    assert response.headers["Preference-Applied"] == "respond-async, wait=60"
    assert gateway.client.get(response.headers["Location"]).json()["state"] == "succeeded"


def test_who_waits_too_briefly_gets_the_place_of_the_answer(gateway: Running, served: Served) -> None:
    with served.held():
        response = gateway.infer(
            "gate", question(8), headers={"Prefer": "respond-async; foo, wait=1, handling=lenient"}
        )
        assert response.status_code == 202
    assert gateway.client.get(response.headers["Location"], params={"wait": 60}).json()["state"] == "succeeded"


def test_a_cancelled_request_never_runs(gateway: Running, served: Served) -> None:
    with served.held():
        running = gateway.infer("gate", question(21), headers=ASYNC)
        waiting = gateway.infer("gate", question(22), headers=ASYNC)
        cancelled = gateway.client.delete(waiting.json()["urls"]["cancel"])
        assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
        assert cancelled.json()["error"]["type"] == "urn:headrace:problem:cancelled"
    assert gateway.client.get(running.headers["Location"], params={"wait": 60}).json()["state"] == "succeeded"
    gateway.infer("gate", question(23))
    assert "22\n" not in served.runs()
    assert gateway.client.get(waiting.headers["Location"]).json()["state"] == "cancelled"


def test_what_has_ended_stays_as_it_ended(gateway: Running) -> None:
    location = gateway.infer("mirror", question(1)).headers["Location"]
    assert gateway.client.delete(location).json()["state"] == "succeeded"
    assert gateway.client.get(location).json()["state"] == "succeeded"


def test_a_failed_request_tells_why(gateway: Running) -> None:
    accepted = gateway.infer("gate", question(REFUSED), headers=ASYNC)
    found = gateway.client.get(accepted.headers["Location"], params={"wait": 60}).json()
    assert found["state"] == "failed"
    assert found["error"]["status"] in {422, 500}
    assert "answer" not in found


def test_a_request_may_be_cancelled_while_its_client_waits(gateway: Running, served: Served) -> None:
    with served.held():
        accepted = gateway.infer("gate", question(31), headers=ASYNC)
        gateway.client.delete(accepted.headers["Location"])
        response = gateway.client.get(accepted.headers["Location"], params={"wait": 60})
        assert response.json()["state"] == "cancelled"


def test_requests_of_other_clients_are_found_once_they_have_a_row(gateway: Running, served: Served) -> None:
    with Client(served.settings) as client:
        for request_id in (None, f"order/{uuid.uuid4()}/…"):
            handle = client.submit("mirror", {"x": np.ones((1, 2), np.float32)}, request_id=request_id)
            handle.result(60)
            found = gateway.client.get(f"/v2/requests/{quote(handle.id, safe='')}")
            assert found.json()["answer"]["outputs"][0]["data"] == [1, 1]


def test_a_request_that_ended_without_a_row_tells_why(gateway: Running, served: Served) -> None:
    """Postgres may refuse a row; the worker keeps the reply in the broker then."""
    reply = Reply(id="rowless", state="failed", error_type="OutputMismatch", error_message="what the row would say")
    with connect_to(served.settings) as client:
        client.set(keys.PLAIN.answer("rowless"), encode_replies([reply]), ex=60)
    found = gateway.client.get("/v2/requests/rowless").json()
    assert (found["state"], found["error"]["status"]) == ("failed", 500)
    assert found["error"]["detail"] == "what the row would say"


def test_a_request_that_the_broker_lost_is_known_as_lost(headrace_stack: TemporaryStack, served: Served) -> None:
    with headrace_stack.key_space() as broker_url:
        settings = served.settings.model_copy(update={"broker_url": SecretStr(broker_url), "lease_s": 2.0})
        with connect(broker_url) as broker:
            consumer = ClaimingConsumer(broker, lease_s=60)
            consumer.queues.add("infer.gate")
            with running_gateway(settings) as gateway:
                location = gateway.infer("gate", question(90), headers=ASYNC).headers["Location"]
                assert gateway.client.get(location).json()["state"] == "pending"
                broker.flushdb()
                consumer.queues.add("infer.gate")
                eventually(lambda: gateway.client.get(location).json().get("state") == "lost", 60, "a lost request")
                found = gateway.client.get(location, params={"wait": 60}).json()
    assert (found["error"]["type"], found["urls"]) == ("urn:headrace:problem:lost", {"self": location})


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_an_unknown_request_is_not_found(gateway: Running, method: str) -> None:
    response = gateway.client.request(method, f"/v2/requests/{uuid.uuid4()}")
    assert (response.status_code, response.json()["type"]) == (404, "urn:headrace:problem:unknown-request")


@pytest.mark.parametrize("request_id", ["a\r\nX-Injected: 1", "€", "a b", "\xff", "\x00", "x" * 300, "%", "../.."])
def test_an_id_of_any_characters_stays_within_its_header(gateway: Running, request_id: str) -> None:
    response = gateway.client.get(f"/v2/requests/{quote(request_id, safe='')}")
    assert response.status_code == 404
    assert response.json()["error"]
    assert "X-Injected" not in response.headers
    assert unquote(response.headers.get("Headrace-Request-Id", request_id)) == request_id


@pytest.mark.parametrize("query", ["wait=soon", "wait=-1", "nonfinite=maybe"])
def test_a_query_that_makes_no_sense_is_refused_by_name(gateway: Running, query: str) -> None:
    location = gateway.infer("mirror", question(1)).headers["Location"]
    response = gateway.client.get(f"{location}?{query}")
    assert (response.status_code, response.json()["field"]) == (400, f"?{query.partition('=')[0]}")


def test_requests_outlive_the_gateway_that_took_them(served: Served) -> None:
    with served.held(), running_gateway(served.settings) as first:
        accepted = [first.infer("gate", question(number), headers=ASYNC) for number in range(40, 60)]
        locations = [each.headers["Location"] for each in accepted]
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait()
        with running_gateway(served.settings) as second:
            assert {second.client.get(each).json()["state"] for each in locations} == {"pending"}
    with running_gateway(served.settings) as third:
        states = [third.client.get(each, params={"wait": 60}).json()["state"] for each in locations]
    assert states == ["succeeded"] * 20


def test_a_deadline_holds_for_asynchronous_requests_too(gateway: Running, served: Served) -> None:
    with served.held():
        blocking = gateway.infer("gate", question(61), headers=ASYNC)
        late = gateway.infer("gate", question(62, parameters={"timeout": 300_000}), headers=ASYNC)
        time.sleep(0.5)
    assert gateway.client.get(blocking.headers["Location"], params={"wait": 60}).json()["state"] == "succeeded"
    found = gateway.client.get(late.headers["Location"], params={"wait": 60}).json()
    assert (found["state"], found["error"]["status"]) == ("expired", 504)


def test_many_requests_at_once_share_the_connections_to_the_broker(gateway: Running, served: Served) -> None:
    """More at once than a pool of connections has; each is noted, found, and its note removed."""

    async def main() -> list[str]:
        limits = httpx.Limits(max_connections=300)
        async with httpx.AsyncClient(base_url=gateway.url, timeout=120, limits=limits) as client:
            sent = [
                client.post("/v2/models/mirror/infer", json=question(number), headers=ASYNC) for number in range(300)
            ]
            accepted = await asyncio.gather(*sent)
            assert {response.status_code for response in accepted} == {202}
            asked = [client.get(each.headers["Location"], params={"wait": 60}) for each in accepted]
            unknown = [client.get("/v2/models/nope") for _ in range(100)]
            found = await asyncio.gather(*asked, *unknown)
            assert {each.status_code for each in found[300:]} == {404}
            return [each.json()["state"] for each in found[:300]]

    before = notes(served)  # of gateways that other tests have killed
    assert asyncio.run(main()) == ["succeeded"] * 300
    eventually(lambda: notes(served) <= before, 60, "no note on a request that has a row")
