"""Replies that nobody reads: an inbox stays within its bound, and whoever waits finds the row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import redis
from celery import Celery
from onnx import helper
from pydantic import SecretStr
from tests.workers.conftest import StartWorker, running_worker, write_package

from headrace.cli.stack.servers import Valkey
from headrace.contracts import Settings
from headrace.contracts.message import REPLIES_DROPPED, Reply, decode_replies
from headrace.producers import Client
from headrace.queueing import CommandLine, connect
from headrace.queueing.keys import PLAIN
from headrace.workers.outbox.replies import OutgoingReplies
from headrace.workers.outbox.reply_sender import ELEMENT_BYTES, ReplySender

INBOX = "somebody"


@pytest.fixture
def broker(broker_url: str) -> Iterator[redis.Redis]:
    with connect(broker_url) as client:
        yield client


def sender(broker: redis.Redis, inbox_bytes: int = 64 << 20) -> ReplySender:
    return ReplySender(CommandLine(broker), PLAIN, Settings(inbox_bytes=inbox_bytes))


def answers(*replies: Reply) -> OutgoingReplies:
    return OutgoingReplies({INBOX: list(replies)}, {})


def replies(count: int, size: int, first: int = 0) -> list[Reply]:
    return [Reply(id=str(number), state="succeeded", outputs=bytes(size)) for number in range(first, first + count)]


def arrived(broker: redis.Redis) -> list[list[Reply]]:
    elements: list[Any] = broker.lrange(PLAIN.inbox(INBOX), 0, -1)
    return [decode_replies(element) for element in elements]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Valkey]:
    """A server of its own, whose memory the test fills."""
    with Valkey(tmp_path / "valkey") as server:
        yield server


def test_replies_arrive_in_one_element_with_a_time_to_live(broker: redis.Redis) -> None:
    sent = replies(3, 10)
    sender(broker).send(answers(*sent), [("SET", "settled", "1")])
    assert arrived(broker) == [sent]
    assert 3500 < broker.ttl(PLAIN.inbox(INBOX)) <= 3600
    assert broker.get("settled") == b"1"


def test_many_bytes_are_split_into_elements(broker: redis.Redis) -> None:
    sent = replies(50, 100_000)
    sender(broker).send(answers(*sent), [])
    elements = broker.lrange(PLAIN.inbox(INBOX), 0, -1)
    assert max(map(len, elements)) <= ELEMENT_BYTES
    assert [reply for each in arrived(broker) for reply in each] == sent


def test_an_inbox_that_nobody_reads_gets_references_and_then_nothing_but_a_note(broker: redis.Redis) -> None:
    writes = sender(broker, inbox_bytes=100_000)
    for number in range(0, 10_000, 20):
        writes.send(answers(*replies(20, 1000, number)), [("INCR", "settled")])
    elements = arrived(broker)
    found = [reply for each in elements for reply in each]
    whole = [reply for reply in found if reply.outputs]
    referred = [reply for reply in found if not reply.outputs and reply.id]
    assert 20 <= len(whole) <= 50
    assert len(referred) > len(whole)
    assert all(reply.stored and reply.state == "succeeded" for reply in referred)
    assert len(found) < 10_000
    assert broker.memory_usage(PLAIN.inbox(INBOX), samples=0) <= 101_000  # type: ignore[operator]
    assert broker.lrange(PLAIN.inbox(INBOX), -1, -1) == [REPLIES_DROPPED]
    assert broker.lrange(PLAIN.inbox(INBOX), 0, -1).count(REPLIES_DROPPED) == 1
    assert broker.get("settled") == b"500"


def test_an_inbox_takes_replies_again_when_it_was_read(broker: redis.Redis) -> None:
    writes = sender(broker, inbox_bytes=100_000)
    for number in range(0, 2000, 20):
        writes.send(answers(*replies(20, 1000, number)), [])
    broker.delete(PLAIN.inbox(INBOX))
    sent = replies(3, 100)
    writes.send(answers(*sent), [])
    assert arrived(broker) == [sent]


def test_a_single_reply_that_is_larger_than_the_inbox_is_referred_to(broker: redis.Redis) -> None:
    sender(broker, inbox_bytes=100_000).send(answers(*replies(1, 200_000)), [])
    assert arrived(broker) == [[Reply(id="0", state="succeeded", stored=True)]]


def test_a_reply_without_outputs_is_not_changed_by_being_referred_to(broker: redis.Redis) -> None:
    failed = Reply(id="f", state="failed", error_type="InferenceFailed", error_message="no")
    sender(broker, inbox_bytes=100_000).send(answers(*replies(1, 200_000), failed), [])
    assert arrived(broker) == [[Reply(id="0", state="succeeded", stored=True), failed]]


def test_a_server_without_memory_gets_no_reply_but_settles_and_prolongs_nothing(small: Valkey) -> None:
    with connect(small.url) as broker:
        key = PLAIN.inbox(INBOX)
        broker.rpush(key, b"old")
        broker.expire(key, 100)
        broker.hset("held", "tag", "message")
        broker.config_set("maxmemory", 1)
        writes = sender(broker)
        for _ in range(3):
            writes.send(answers(*replies(5, 1000)), [("HDEL", "held", "tag")])
        broker.config_set("maxmemory", 0)
        assert broker.exists("held") == 0
        assert broker.lrange(key, 0, -1) == [b"old"]
        assert broker.ttl(key) <= 100


def test_a_result_for_a_celery_client_is_sent_when_there_is_memory_again(small: Valkey) -> None:
    with connect(small.url) as broker:
        broker.config_set("maxmemory", 1)
        writes = sender(broker)
        writes.send(OutgoingReplies({}, {"a": b"of a"}), [])
        broker.config_set("maxmemory", 0)
        assert broker.get("celery-task-meta-a") is None
        writes.send(OutgoingReplies({}, {"b": b"of b"}), [])
        assert broker.mget("celery-task-meta-a", "celery-task-meta-b") == [b"of a", b"of b"]


@pytest.fixture
def wide(models: Path) -> str:
    """A model whose outputs are 16 kB for an input of 4 bytes."""
    write_package(
        models,
        "wide",
        [helper.make_node("Mul", ["x", "ones"], ["y"])],
        {"x": ("FP32", (1,))},
        {"y": ("FP32", (4000,))},
        [("ones", np.ones((1, 4000), np.float32))],
    )
    return "wide"


def test_a_client_that_reads_nothing_holds_up_nobody(
    settings: Settings, wide: str, small: Valkey, tmp_path: Path
) -> None:
    """On a server with little memory it floods its inbox: others are served, and every row is there."""
    settings = settings.model_copy(update={"broker_url": SecretStr(small.url)})
    with (
        running_worker(settings, tmp_path / "small.log", HEADRACE_INBOX_BYTES=str(1 << 20)),
        connect(small.url) as broker,
        Client(settings) as silent,
        Client(settings) as other,
    ):
        other.predict("double", {"x": np.ones((1, 4), np.float32)}, timeout_s=60)
        used = int(broker.info("memory")["used_memory"])
        broker.config_set("maxmemory", used + (6 << 20))
        lots = silent.submit_many(wide, {"x": np.ones((1000, 1), np.float32)})
        other.predict("double", {"x": np.ones((1, 4), np.float32)}, timeout_s=60)
        last = lots[-1].result(timeout_s=60)["y"]
        np.testing.assert_array_equal(last, np.ones((1, 4000), np.float32))
        with psycopg.connect(settings.require_database_url()) as store:
            (count,) = store.execute("SELECT count(*) FROM predictions WHERE model = 'wide'").fetchone() or (0,)
    assert count == len(lots)
    log = (tmp_path / "small.log").read_text()
    assert "broker away" not in log
    assert "Traceback" not in log


def test_a_celery_client_is_not_among_those_who_wait_in_vain(
    settings: Settings, start_worker: StartWorker, broker_url: str
) -> None:
    app = Celery("plain", broker=broker_url, backend=broker_url, set_as_current=False)
    with start_worker():
        task = app.send_task("infer.double", kwargs={"inputs": {"x": [[1, 2, 3, 4]]}}, queue="infer.double")
        assert task.get(timeout=60) == {"y": [[2, 4, 6, 8]]}
    app.close()
