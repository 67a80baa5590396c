"""Claiming, putting back, acknowledging and burying, on Valkey and on Redis 6.2."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import pytest
import redis
from tests.queueing.commands import run_command, score_of

from headrace.queueing import ClaimingConsumer, connect, dead_letters, dead_message
from headrace.queueing.consumer.delivery import Delivery
from headrace.queueing.keys import PLAIN
from headrace.queueing.lists import queue_list

QUEUE = "infer.digits"

NewConsumer = Callable[..., ClaimingConsumer]


class Wire(Protocol):
    def cut(self) -> None: ...
    def mend(self) -> None: ...


@pytest.fixture
def new_consumer(client: redis.Redis) -> NewConsumer:
    def make(lease_s: float = 60.0, max_message_bytes: int = 0) -> ClaimingConsumer:
        return ClaimingConsumer(client, lease_s=lease_s, max_message_bytes=max_message_bytes)

    return make


@pytest.fixture
def consumer(new_consumer: NewConsumer) -> ClaimingConsumer:
    return new_consumer()


def send(client: redis.Redis, *messages: str, queue: str = QUEUE, step: int = 0) -> None:
    for message in messages:
        client.lpush(queue_list(queue, step), message)


def waiting(client: redis.Redis, queue: str = QUEUE, step: int = 0) -> list[str]:
    """The messages of a list, the next to be taken first."""
    raws: list[Any] = client.lrange(queue_list(queue, step), 0, -1)
    return [raw.decode() for raw in reversed(raws)]


def texts(deliveries: Sequence[Delivery]) -> list[str]:
    return [delivery.raw.decode() for delivery in deliveries]


def rings(client: redis.Redis, queue: str = QUEUE) -> int:
    return client.llen(PLAIN.doorbell(queue))


@pytest.fixture
def full_memory(client: redis.Redis) -> Iterator[Callable[[], object]]:
    yield lambda: client.config_set("maxmemory", 1)
    client.config_set("maxmemory", 0)


def test_messages_come_in_the_order_in_which_they_were_sent(client: redis.Redis, consumer: ClaimingConsumer) -> None:
    send(client, "a", "b", "c", "d")
    assert texts(consumer.claim({QUEUE: 3})) == ["a", "b", "c"]
    assert texts(consumer.claim({QUEUE: 3})) == ["d"]
    assert consumer.claim({QUEUE: 3}) == []


def test_the_most_urgent_come_first(client: redis.Redis, consumer: ClaimingConsumer) -> None:
    for step in (0, 6, 9, 3):
        send(client, f"{step}a", f"{step}b", step=step)
    found = consumer.claim({QUEUE: 7})
    assert texts(found) == ["9a", "9b", "6a", "6b", "3a", "3b", "0a"]
    assert [delivery.priority_step for delivery in found] == [9, 9, 6, 6, 3, 3, 0]


def test_what_is_claimed_is_in_flight_under_a_lease(client: redis.Redis, consumer: ClaimingConsumer) -> None:
    send(client, "a", "b")
    first, second = consumer.claim({QUEUE: 2})
    held = client.hgetall(PLAIN.in_flight(consumer.id))
    assert held == {first.tag.encode(): b"a", second.tag.encode(): b"b"}
    assert first.tag.endswith(":" + QUEUE)
    seconds, _ = client.time()
    assert 0 < score_of(client, PLAIN.leases, consumer.id) / 1000 - seconds <= 61
    assert consumer.held == 2


def test_an_acknowledged_message_is_gone(client: redis.Redis, consumer: ClaimingConsumer) -> None:
    send(client, "a", "b")
    first, second = consumer.claim({QUEUE: 2})
    consumer.ack([first.tag, "77:never"])
    assert consumer.held == 1
    commands = consumer.ack_commands([second.tag])
    assert (consumer.held, client.hlen(PLAIN.in_flight(consumer.id))) == (0, 1)
    for command in commands:
        run_command(client, *command)
    assert not client.exists(PLAIN.in_flight(consumer.id))


def test_put_back_messages_are_the_next_ones_and_in_order(client: redis.Redis, consumer: ClaimingConsumer) -> None:
    send(client, "u", "v", step=9)
    send(client, "a", "b", "c", "d")
    found = consumer.claim({QUEUE: 5})
    consumer.release([found[4].tag, found[1].tag, found[3].tag])
    assert waiting(client, step=9) == ["v"]
    assert waiting(client) == ["b", "c", "d"]
    assert rings(client) == 1
    consumer.release()
    assert waiting(client, step=9) == ["u", "v"]
    assert waiting(client) == ["a", "b", "c", "d"]
    assert consumer.held == 0
    assert texts(consumer.claim({QUEUE: 9})) == ["u", "v", "a", "b", "c", "d"]


def test_more_than_one_call_can_move_is_put_back_in_order(client: redis.Redis, consumer: ClaimingConsumer) -> None:
    names = [f"m{number}" for number in range(1700)]
    send(client, *names)
    claimed = 0
    while found := consumer.claim({QUEUE: 600}):
        claimed += len(found)
    assert claimed == len(names)
    consumer.close()
    assert waiting(client) == names
    assert not client.exists(PLAIN.leases)


def test_the_messages_of_a_consumer_whose_lease_ended_come_back_and_are_counted(
    client: redis.Redis, new_consumer: NewConsumer
) -> None:
    names = [f"m{number}" for number in range(1100)]
    send(client, *names)
    dead, alive = new_consumer(lease_s=0.001), new_consumer()
    assert len(dead.claim({QUEUE: 900})) == 900
    assert len(alive.claim({QUEUE: 100})) == 100
    client.delete(PLAIN.doorbell(QUEUE))
    _let_lease_end(client, dead)
    assert alive.reap() == 900
    assert rings(client) == 1
    assert waiting(client) == names[:900] + names[1000:]
    again = alive.claim({QUEUE: 901})
    assert [delivery.deliveries for delivery in again] == [1] * 900 + [0]
    alive.ack(delivery.tag for delivery in again)
    assert not client.exists(PLAIN.deliveries)
    assert client.zrange(PLAIN.leases, 0, -1) == [alive.id.encode()]


def _let_lease_end(client: redis.Redis, consumer: ClaimingConsumer) -> None:
    client.zadd(PLAIN.leases, {consumer.id: 1}, xx=True)


def test_a_consumer_that_was_reaped_while_it_slept_just_goes_on_and_its_acknowledgement_counts(
    client: redis.Redis, new_consumer: NewConsumer
) -> None:
    send(client, "a", "b")
    sleeper, other = new_consumer(), new_consumer()
    lost = sleeper.claim({QUEUE: 1})
    _let_lease_end(client, sleeper)
    assert other.reap() == 1
    sleeper.renew()
    sleeper.ack(delivery.tag for delivery in lost)
    assert texts(sleeper.claim({QUEUE: 2})) == ["b"]
    assert not client.exists(PLAIN.deliveries)
    assert other.reap() == 0
    sleeper.close()


def test_a_lease_that_is_renewed_is_not_reaped(client: redis.Redis, new_consumer: NewConsumer) -> None:
    send(client, "a")
    holder, other = new_consumer(), new_consumer()
    holder.claim({QUEUE: 1})
    _let_lease_end(client, holder)
    holder.renew()
    assert other.reap() == 0
    assert client.hlen(PLAIN.in_flight(holder.id)) == 1


def test_several_that_reap_at_once_put_back_each_message_once(client: redis.Redis, new_consumer: NewConsumer) -> None:
    names = [f"m{number}" for number in range(3000)]
    send(client, *names)
    dead = new_consumer()
    while dead.claim({QUEUE: 1000}):
        pass
    _let_lease_end(client, dead)
    counts: list[int] = []
    threads = [threading.Thread(target=lambda: counts.append(new_consumer().reap())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 3000
    assert waiting(client) == names


def test_a_broken_queue_keeps_no_others_from_being_reaped(client: redis.Redis, new_consumer: NewConsumer) -> None:
    send(client, "a", queue="broken")
    send(client, "b")
    one, two = new_consumer(), new_consumer()
    one.claim({"broken": 1})
    two.claim({QUEUE: 1})
    client.set("broken", "no list any more")
    _let_lease_end(client, one)
    _let_lease_end(client, two)
    assert new_consumer().reap() == 1
    assert waiting(client) == ["b"]
    assert client.hlen(PLAIN.in_flight(one.id)) == 1


def test_a_list_of_the_wrong_type_is_an_error_that_loses_nothing(
    client: redis.Redis, consumer: ClaimingConsumer
) -> None:
    send(client, "a")
    client.set(queue_list(QUEUE, 9), "no list")
    assert texts(consumer.claim({QUEUE: 5})) == ["a"]
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        consumer.claim({QUEUE: 5})


def test_competing_consumers_get_every_message_exactly_once(client: redis.Redis, new_consumer: NewConsumer) -> None:
    names = {f"m{number}" for number in range(2000)}
    client.lpush(QUEUE, *names)
    found: list[str] = []

    def consume() -> None:
        consumer = new_consumer()
        while taken := consumer.claim({QUEUE: 17}):
            found.extend(texts(taken))
            consumer.ack(delivery.tag for delivery in taken)

    threads = [threading.Thread(target=consume) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2000
    assert set(found) == names


def test_threads_may_share_a_consumer(client: redis.Redis, consumer: ClaimingConsumer) -> None:
    client.lpush(QUEUE, *range(2000))
    tags: list[str] = []

    def consume() -> None:
        while taken := consumer.claim({QUEUE: 13}):
            tags.extend(delivery.tag for delivery in taken)
            consumer.ack(delivery.tag for delivery in taken)

    threads = [threading.Thread(target=consume) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(tags)) == 2000
    assert consumer.held == 0
    assert not client.exists(PLAIN.in_flight(consumer.id))


def test_queues_take_turns_when_there_is_not_room_for_all(client: redis.Redis, consumer: ClaimingConsumer) -> None:
    queues = ["a", "b", "c"]
    for queue in queues:
        send(client, *[queue] * 10, queue=queue)
    served = [texts(consumer.claim(dict.fromkeys(queues, 2), limit=2)) for _ in range(6)]
    assert sorted(queue for pair in served for queue in set(pair)) == ["a", "a", "b", "b", "c", "c"]


def test_a_claim_that_leaves_messages_behind_rings_once(client: redis.Redis, consumer: ClaimingConsumer) -> None:
    send(client, "a", "b", "c")
    consumer.claim({QUEUE: 1})
    consumer.claim({QUEUE: 1})
    assert rings(client) == 1


def test_a_claim_that_empties_the_queue_silences_the_bell(client: redis.Redis, consumer: ClaimingConsumer) -> None:
    send(client, "a")
    client.lpush(PLAIN.doorbell(QUEUE), 1)
    consumer.claim({QUEUE: 1})
    assert rings(client) == 0


def test_a_queue_that_the_limit_left_out_rings_too(client: redis.Redis, consumer: ClaimingConsumer) -> None:
    send(client, "a", queue="a")
    send(client, "b", queue="b")
    (found,) = consumer.claim({"a": 5, "b": 5}, limit=1)
    assert rings(client, "a" if found.queue == "b" else "b") == 1


def test_of_a_queue_without_acknowledgement_one_message_is_taken_and_none_held(
    client: redis.Redis, consumer: ClaimingConsumer
) -> None:
    send(client, "a", "b", queue="replies")
    send(client, "x", "y")
    found = consumer.claim({"replies": 5, QUEUE: 5}, no_ack={"replies"})
    assert sorted(texts(found)) == ["a", "x", "y"]
    assert {delivery.tag for delivery in found if delivery.queue == "replies"} == {""}
    assert consumer.held == client.hlen(PLAIN.in_flight(consumer.id)) == 2


def test_a_message_too_long_is_held_whole_and_only_its_end_is_read(
    client: redis.Redis, new_consumer: NewConsumer
) -> None:
    consumer = new_consumer(max_message_bytes=10_000)
    long = "x" * 20_000 + "end"
    send(client, "short", long, "z" * 10_000)
    short, found, longest = consumer.claim({QUEUE: 3})
    assert (short.oversize, found.oversize, longest.oversize) == (False, True, False)
    assert found.raw == long[-8192:].encode()
    assert found.message_bytes == 20_003
    consumer.release([found.tag])
    assert waiting(client) == [long]


def test_a_claim_of_large_messages_takes_fewer_and_rings(client: redis.Redis, consumer: ClaimingConsumer) -> None:
    for _ in range(12):
        client.lpush(QUEUE, bytes(5 << 20))
    found = consumer.claim({QUEUE: 12})
    assert 4 <= len(found) <= 8
    assert rings(client) == 1
    assert client.llen(QUEUE) == 12 - len(found)


def test_a_claim_keeps_to_its_bytes_though_large_messages_follow_small_ones(
    client: redis.Redis, consumer: ClaimingConsumer
) -> None:
    small, large = [f"small {number}" for number in range(10)], [f"{number}" * 1_000_000 for number in range(5)]
    send(client, *small, *large)
    send(client, "urgent", step=9)
    ticket = consumer.prepare({QUEUE: 100}, most_bytes=2_500_000)
    assert ticket is not None
    assert texts(consumer.run(ticket)) == ["urgent", *small, *large[:2]]
    assert waiting(client) == large[2:]
    assert rings(client) == 1
    assert client.hlen(PLAIN.in_flight(consumer.id)) == consumer.held == 13


def test_a_message_that_is_larger_than_a_claim_may_take_is_claimed_alone(
    client: redis.Redis, consumer: ClaimingConsumer
) -> None:
    send(client, "a" * 1000, "b", "c" * 1000, queue="infer.first")
    send(client, "d", queue="infer.second")
    claims = []
    while (ticket := consumer.prepare({"infer.first": 9, "infer.second": 9}, most_bytes=10)) is not None:
        found = texts(consumer.run(ticket))
        if not found:
            break
        claims.append(found)
    assert all(len(claim) == 1 or sum(map(len, claim)) <= 10 for claim in claims)
    assert sorted(text for claim in claims for text in claim) == ["a" * 1000, "b", "c" * 1000, "d"]


def test_a_buried_message_is_kept_with_its_reason(client: redis.Redis, consumer: ClaimingConsumer) -> None:
    send(client, "poison", "good")
    poison, good = consumer.claim({QUEUE: 2})
    consumer.dead_letter(poison.tag, "killed three workers", ["first", "second"])
    consumer.dead_letter("5:unknown", "was never held", [])
    (letter,) = dead_letters(client)
    assert (letter.queue, letter.step, letter.reason) == (QUEUE, 0, "killed three workers")
    assert letter.history == ["first", "second"]
    assert dead_message(client, letter.id) == b"poison"
    assert client.hkeys(PLAIN.in_flight(consumer.id)) == [good.tag.encode()]
    assert consumer.held == 1


def test_full_memory_stops_neither_claims_nor_leases_nor_putting_back(
    client: redis.Redis, consumer: ClaimingConsumer, full_memory: Callable[[], object]
) -> None:
    send(client, "a", "b", "c")
    full_memory()
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        client.lpush(QUEUE, "d")
    one, two, three = consumer.claim({QUEUE: 3})
    consumer.renew()
    consumer.ack([one.tag])
    consumer.dead_letter(two.tag, "for a test", [])
    consumer.release([three.tag])
    assert waiting(client) == ["c"]


def test_messages_whose_claim_was_never_answered_go_back(client: redis.Redis, consumer: ClaimingConsumer) -> None:
    send(client, "kept")
    consumer.claim({QUEUE: 1})
    client.hset(PLAIN.in_flight(consumer.id), "900:" + QUEUE, "lost")
    consumer.renew()
    assert waiting(client) == []  # it might be an acknowledgement on its way
    consumer.renew()
    assert waiting(client) == ["lost"]
    assert consumer.held == 1


def test_acknowledgements_that_fail_can_be_tried_again(broker_url: str, wired_url: str, wire: Wire) -> None:
    with redis.Redis.from_url(broker_url) as client, connect(wired_url) as own:
        send(client, "a")
        consumer = ClaimingConsumer(own, lease_s=60)
        (found,) = consumer.claim({QUEUE: 1})
        wire.cut()
        with pytest.raises(redis.ConnectionError):
            consumer.ack([found.tag])
        assert consumer.holds(found.tag)
        wire.mend()
        consumer.ack([found.tag])
        assert not client.exists(PLAIN.in_flight(consumer.id))
        assert consumer.held == 0


def test_closing_puts_all_back_and_ends_the_lease(client: redis.Redis, consumer: ClaimingConsumer) -> None:
    send(client, "a", "b")
    consumer.claim({QUEUE: 2})
    consumer.close()
    assert waiting(client) == ["a", "b"]
    assert not client.exists(PLAIN.leases)
    assert client.hvals(PLAIN.deliveries) == [b"0", b"0"]


def test_nothing_is_asked_of_the_server_when_nothing_is_wanted(consumer: ClaimingConsumer) -> None:
    assert consumer.claim({}) == consumer.claim({QUEUE: 0}) == consumer.claim({QUEUE: 5}, limit=0) == []
