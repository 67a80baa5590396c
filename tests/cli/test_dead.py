"""`headrace dead`: listing, showing, trying again and dropping what no worker could serve."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import redis
from tests.cli.conftest import Outcome

from headrace.contracts import PoisonRequest, State
from headrace.contracts.ids import new_id, row_id
from headrace.contracts.message import Request, RequestHeader, encode_request
from headrace.queueing import ClaimingConsumer, dead_letters, keys
from headrace.results_store import BatchRows, Row, StoreReader, StoreWriter, error_json, migrate

Run = Callable[..., object]


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, broker_url: str, database_url: str) -> None:
    migrate(database_url)
    monkeypatch.setenv("HEADRACE_BROKER_URL", broker_url)
    monkeypatch.setenv("HEADRACE_DATABASE_URL", database_url)


@pytest.fixture
def broker(broker_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker_url) as client:
        yield client


def bury(broker: redis.Redis, model: str, message: bytes, reason: str = "poison: it ends workers") -> str:
    broker.lpush(f"infer.{model}", message)
    consumer = ClaimingConsumer(broker, lease_s=60)
    (found,) = consumer.claim({f"infer.{model}": 1})
    consumer.dead_letter(found.tag, reason, ["the first death"])
    return dead_letters(broker)[0].id


def request(model: str = "digits") -> tuple[str, bytes]:
    identity = new_id()
    return identity, encode_request(Request(id=identity, model=model, body=b"", header=RequestHeader(), note="hello"))


def fail(database_url: str, identity: str, finished_at: float) -> None:
    row = Row(id=row_id(identity), state=State.FAILED, error=error_json(PoisonRequest()))
    with StoreWriter(database_url) as writer:
        writer.write([BatchRows(model="digits", version="1", rows=[row], finished_at=finished_at)])


def test_letters_are_listed_and_shown(settings: None, headrace: Callable[..., Outcome], broker: redis.Redis) -> None:
    identity, message = request()
    letter = bury(broker, "digits", message)
    bury(broker, "other", b"garbage", "not a Celery message")
    assert {one["queue"] for one in headrace("dead", "list", "--json").json()} == {"infer.digits", "infer.other"}
    assert [one["id"] for one in headrace("dead", "list", "--model", "digits", "--json").json()] == [letter]
    assert headrace("dead", "list", "--older", "1h", "--json").json() == []
    assert len(headrace("dead", "list", "--newer", "1h", "--limit", "1", "--json").json()) == 1
    assert "it ends workers" in headrace("dead", "list", "--reason", "POISON").out
    shown = headrace("dead", "show", letter, "--json").json()
    assert (shown["headers"]["id"], shown["history"], shown["message_bytes"]) == (
        identity,
        ["the first death"],
        len(message),
    )
    assert identity in headrace("dead", "show", letter).out
    found = headrace("dead", "show", "nobody")
    assert (found.code, "there is no dead letter nobody" in found.line) == (1, True)
    (stats, _) = headrace("queue", "stats", "--json").json()
    assert stats["dead"] == 1
    assert 0 <= stats["dead_oldest_age_s"] < 60


def test_a_retried_letter_is_queued_and_its_failed_row_removed(
    settings: None, headrace: Callable[..., Outcome], broker: redis.Redis, database_url: str
) -> None:
    identity, message = request()
    fail(database_url, identity, time.time())
    letter = bury(broker, "digits", message)
    broker.set(keys.PLAIN.answer(identity), b"it failed without a row")
    assert headrace("dead", "retry", letter, "--json").json() == {"ids": [letter]}
    with StoreReader(database_url) as store:
        assert store.get(identity) is None
    assert not broker.exists(keys.PLAIN.answer(identity))
    assert broker.lrange("infer.digits", 0, -1) == [message]
    assert dead_letters(broker) == []


def test_a_row_of_a_later_run_stays(
    settings: None, headrace: Callable[..., Outcome], broker: redis.Redis, database_url: str
) -> None:
    identity, message = request()
    bury(broker, "digits", message)
    fail(database_url, identity, time.time() + 60)
    headrace("dead", "retry", "--model", "digits")
    with StoreReader(database_url) as store:
        assert store.get(identity) is not None


def test_letters_are_dropped_by_choice_only(
    settings: None, headrace: Callable[..., Outcome], broker: redis.Redis
) -> None:
    for model in ("digits", "digits", "other"):
        bury(broker, model, request(model)[1])
    assert headrace("dead", "drop").code == 2
    assert headrace("dead", "drop", "some-id", "--all").code == 2
    assert headrace("dead", "drop", "some-id").code == 1
    assert len(dead_letters(broker)) == 3
    assert "removed 2 dead letters" in headrace("dead", "drop", "--queue", "infer.digits").line
    assert "removed 1 dead letter" in headrace("dead", "drop", "--all").line
    assert broker.keys("headrace:dead:*") == []
    assert not broker.exists("infer.digits", keys.PLAIN.deliveries)


def test_an_age_that_is_none_is_misuse(settings: None, headrace: Callable[..., Outcome]) -> None:
    found = headrace("dead", "list", "--older", "soon")
    assert (found.code, "12h" in found.line) == (2, True)
