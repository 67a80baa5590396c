"""Dead letters: finding, trying again, dropping."""

from __future__ import annotations

import pytest
import redis
from tests.queueing.commands import run_command

from headrace.queueing import (
    ClaimingConsumer,
    LetterFilter,
    dead_letter,
    dead_message,
    drop_letter,
    find_letters,
    keys,
    queue_stats,
    retry_letter,
)

A, B = "infer.a", "infer.b"


@pytest.fixture
def consumer(client: redis.Redis) -> ClaimingConsumer:
    return ClaimingConsumer(client, lease_s=60)


def bury(client: redis.Redis, consumer: ClaimingConsumer, queue: str, message: str, reason: str, step: int = 0) -> str:
    client.lpush(keys.PLAIN.queue_list(queue, step), message)
    (found,) = consumer.claim({queue: 1})
    assert run_command(client, *consumer.dead_letter_command(found.tag, reason, ["once", "twice"])) == 1
    return next(find_letters(client)).id


def test_letters_are_found_by_queue_reason_and_age(client: redis.Redis, consumer: ClaimingConsumer) -> None:
    one, two, three = (
        bury(client, consumer, A, "1", "poison: it killed"),
        bury(client, consumer, B, "2", "not a Celery message"),
        bury(client, consumer, A, "3", "not a Celery message"),
    )
    for index in (keys.PLAIN.dead_index, keys.PLAIN.dead_queue(A)):
        client.zincrby(index, -1000, one)

    def ids(**wanted: object) -> list[str]:
        return sorted(letter.id for letter in find_letters(client, LetterFilter(**wanted)))  # type: ignore[arg-type]

    assert ids() == [one, two, three]
    assert ids(queue=A) == [one, three]
    assert ids(reason="CELERY") == [two, three]
    assert ids(queue=A, reason="poison") == [one]
    assert ids(older_s=500) == [one]
    assert ids(newer_s=500) == [two, three]
    assert ids(queue=A, newer_s=500) == [three]
    assert ids(queue="infer.c") == []


def test_a_retried_letter_is_a_fresh_message_of_its_queue(client: redis.Redis, consumer: ClaimingConsumer) -> None:
    identity = bury(client, consumer, A, "x", "poison", step=6)
    letter = dead_letter(client, identity)
    assert letter is not None
    assert (letter.queue, letter.step, letter.history) == (A, 6, ["once", "twice"])
    assert retry_letter(client, identity)
    assert not retry_letter(client, identity)
    (found,) = consumer.claim({A: 5})
    assert (found.raw, found.priority_step, found.deliveries, found.crashes) == (b"x", 6, 0, ())
    assert dead_letter(client, identity) is None
    assert dead_message(client, identity) is None
    assert client.keys("headrace:dead:*") == []


def test_the_answer_to_a_request_without_a_row_is_kept_in_the_same_step_whatever_memory_there_is(
    client: redis.Redis, consumer: ClaimingConsumer
) -> None:
    for identity in ("one", "two"):
        client.lpush(keys.PLAIN.queue_list(A, 0), identity)
    one, two = consumer.claim({A: 2})
    first, again = (
        consumer.dead_letter_command(tag, "no row", answer=("one", b"reply", 60)) for tag in (one.tag, one.tag)
    )
    second = consumer.dead_letter_command(two.tag, "no row", answer=("two", b"other", 60))
    assert run_command(client, *first) == 1
    assert client.get(keys.PLAIN.answer("one")) == b"reply"
    assert 0 < client.ttl(keys.PLAIN.answer("one")) <= 60
    client.delete(keys.PLAIN.answer("one"))
    assert run_command(client, *again) == 0, "nobody holds it any more, so it says nothing"
    assert not client.exists(keys.PLAIN.answer("one"))
    before = client.config_get("maxmemory")["maxmemory"]
    assert before is not None
    client.config_set("maxmemory", 1)
    try:
        assert run_command(client, *second) == 1
    finally:
        client.config_set("maxmemory", before)
    assert client.get(keys.PLAIN.answer("two")) == b"other"


def test_a_dropped_letter_is_gone(client: redis.Redis, consumer: ClaimingConsumer) -> None:
    identity = bury(client, consumer, A, "x", "poison")
    kept = bury(client, consumer, A, "y", "poison")
    assert drop_letter(client, identity)
    assert not drop_letter(client, identity)
    assert [letter.id for letter in find_letters(client)] == [kept]
    (stats,) = queue_stats(client)
    assert stats.dead == 1
    assert consumer.claim({A: 1}) == []


def test_the_statistics_tell_number_and_age_of_dead_letters(client: redis.Redis, consumer: ClaimingConsumer) -> None:
    first = bury(client, consumer, A, "x", "poison")
    bury(client, consumer, A, "y", "poison")
    client.zincrby(keys.PLAIN.dead_queue(A), -1000, first)
    (stats,) = queue_stats(client)
    assert stats.dead == 2
    assert stats.dead_oldest_age_s is not None
    assert 1000 <= stats.dead_oldest_age_s < 1100
