"""From which queue a consumer takes first, how much it takes ahead, and options that make no sense."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kombu
import pytest
import redis
from kombu.utils.scheduling import priority_cycle
from tests.eventually import eventually
from tests.queueing.kombu_parts import channel_of

from headrace.contracts.errors import ConfigurationError
from headrace.queueing import headrace_url
from headrace.queueing.keys import PLAIN

APP = """
import os
from celery import Celery

app = Celery("demo", broker=os.environ["BROKER"], backend=os.environ["RESULTS"])
app.conf.task_acks_late = os.environ["LATE"] == "1"
app.conf.worker_prefetch_multiplier = 4

@app.task
def hang():
    app.backend.client.lpush("running", 1)
    app.backend.client.blpop("go", timeout=60)
"""


@pytest.fixture
def client(broker_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker_url) as client:
        yield client


if TYPE_CHECKING:
    Cycle = priority_cycle[str]  # of kombu's stubs only
else:
    Cycle = priority_cycle


class Backwards(Cycle):
    """The queues in the opposite of alphabetical order."""

    # kombu uses what its stubs call an iterator as a list.
    def consume(self, n: int) -> list[str]:  # type: ignore[override]
        items: list[str] = self.items or []
        return sorted(items[:n], reverse=True)


def served(broker_url: str, count: int = 1, **options: Any) -> list[str]:
    """The queues from which messages come, one after the other, when each of three holds four."""
    names = ["b", "c", "a"]
    with kombu.Connection(headrace_url(broker_url), transport_options=options) as connection:
        for name in names * 4:
            connection.Producer().publish(name, routing_key=name, declare=[kombu.Queue(name)])
        found: list[str] = []

        def receive(message: Any) -> None:
            found.append(str(message.payload))
            message.ack()

        channel = channel_of(connection)
        channel.basic_qos(0, count, False)
        with kombu.Consumer(channel, [kombu.Queue(name) for name in names], on_message=receive, accept=["text/plain"]):
            while len(found) < 12:
                connection.drain_events(timeout=10)
    return found


@pytest.mark.parametrize("prefetch", [1, 3])
@pytest.mark.parametrize(
    ("strategy", "order"),
    [
        ("priority", "bbbbccccaaaa"),
        ("sorted", "aaaabbbbcccc"),
        (Backwards, "ccccbbbbaaaa"),
        ("kombu.utils.scheduling:sorted_cycle", "aaaabbbbcccc"),
    ],
)
def test_queues_are_served_in_the_order_that_the_app_chose(
    broker_url: str, strategy: Any, order: str, prefetch: int
) -> None:
    assert "".join(served(broker_url, prefetch, queue_order_strategy=strategy)) == order


@pytest.mark.parametrize("options", [{}, {"queue_order_strategy": "round_robin"}])
def test_each_queue_comes_first_in_turn_otherwise(broker_url: str, options: dict[str, Any]) -> None:
    found = served(broker_url, **options)
    assert [set(found[at : at + 3]) for at in (0, 3, 6, 9)] == [{"a", "b", "c"}] * 4


@pytest.mark.parametrize("late", ["0", "1"])
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_without_prefetch_takes_what_its_processes_can_begin(
    run: Callable[..., Any], broker_url: str, client: redis.Redis, tmp_path: Path, pool: str, late: str
) -> None:
    (tmp_path / "demo_app.py").write_text(APP)
    environment = {"BROKER": headrace_url(broker_url), "RESULTS": broker_url, "LATE": late, "PYTHONPATH": str(tmp_path)}
    send = "from demo_app import hang\nfor _ in range(7): hang.delay()\nprint('sent')"
    run("-c", send, **environment).wait_for("sent")
    options = ("-c", "2", "--pool", pool, "--disable-prefetch", "-l", "INFO")
    worker = run("-m", "celery", "-A", "demo_app", "worker", *options, **environment)
    worker.wait_for("ready")
    for round_ in range(3):
        eventually(lambda: client.llen("running") == 2, 30, "two tasks to run")
        assert client.llen("celery") == 7 - 2 * (round_ + 1)
        client.delete("running")
        client.rpush("go", 1, 1)
    eventually(lambda: client.llen("running") == 1, 30, "the last task to run")
    client.rpush("go", 1)
    eventually(
        lambda: not any(client.hlen(key) for key in client.scan_iter(PLAIN.in_flight("*"))), 30, "the last to end"
    )


@pytest.mark.parametrize(
    "options",
    [
        {"lease_s": 0},
        {"lease_s": -1},
        {"lease_s": float("nan")},
        {"lease_s": float("inf")},
        {"lease_s": 86_401},
        {"lease_s": "60"},
        {"lease_s": True},
        {"lease_s": None},
        {"queue_order_strategy": "fair"},
        {"queue_order_strategy": "no.such.module:cycle"},
        {"queue_order_strategy": "json:loads"},
        {"queue_order_strategy": None},
    ],
)
def test_options_that_make_no_sense_are_refused_in_one_line(broker_url: str, options: dict[str, Any]) -> None:
    (name,) = options
    with kombu.Connection(headrace_url(broker_url), transport_options=options) as connection:
        with pytest.raises(ConfigurationError, match=f"the transport option {name} is .*; it must be ") as caught:
            connection.connect()
        assert "\n" not in caught.value.message
