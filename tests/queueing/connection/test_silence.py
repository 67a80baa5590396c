"""Connections that freeze without being closed, for ordinary Celery workers; and the parts that notice it."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from celery import Celery
from kombu import Connection
from tests.eventually import eventually
from tests.queueing.wire import BOTH_WAYS, Wire

from headrace.contracts import ConfigurationError, Settings
from headrace.queueing import connect, headrace_url
from headrace.queueing.connection.patience import (
    ALLOWANCE_S,
    LEAST_S,
    REFILL_S,
    SILENCE_S,
    Patience,
    closing,
    is_hurried,
)

APP = """
import json, os, time
from celery import Celery

app = Celery("frozen", broker=os.environ["BROKER"], backend=os.environ["RESULTS"])
app.conf.broker_transport_options = json.loads(os.environ["OPTIONS"])
app.conf.task_acks_late = True

@app.task(name="add")
def add(x, y):
    return x + y
"""

#: A worker that is told to stop is gone within 4 s on an idle machine, or the bound of 8 s later if a call waits just
#: then. If it did not hurry, each of some five connections would wait for the bound. Under prefork a process of
#: billiard's pool sometimes waits 30 s, its own limit, for its parent to count the last result, with any transport.
GONE_S = {"solo": 30.0, "prefork": 60.0}

#: A shorter bound than the default, to save time.
BOUND_S = 3.0

#: Workers serve again some 5 s after the bound on an idle machine. Without a bound they would take many minutes.
SERVED_S = 90

WORKERS = pytest.mark.parametrize(
    ("pool", "ways"),
    [("solo", BOTH_WAYS), ("solo", ("commands",)), ("solo", ("answers",)), ("prefork", BOTH_WAYS)],
    ids=["solo", "solo-commands", "solo-answers", "prefork"],
)


@pytest.fixture
def start(run: Callable[..., Any], tmp_path: Path, wired_url: str, broker_url: str) -> Callable[..., Any]:
    """Start a worker behind the wire."""
    (tmp_path / "frozen_app.py").write_text(APP)

    def start_worker(pool: str, *words: str, **options: object) -> Any:
        arguments = ["-m", "celery", "-A", "frozen_app", "worker", "-l", "INFO", "-c", "1", "-P", pool, *words]
        environment = {"BROKER": headrace_url(wired_url), "RESULTS": broker_url, "OPTIONS": json.dumps(options)}
        worker = run(*arguments, PYTHONPATH=str(tmp_path), **environment)
        worker.wait_for("ready")
        return worker

    return start_worker


@pytest.fixture
def app(broker_url: str) -> Celery:
    """A client that reaches the broker past the wire."""
    return Celery("client", broker=broker_url, backend=broker_url, set_as_current=False)


def add(app: Celery) -> None:
    assert app.send_task("add", (1, 2)).get(timeout=SERVED_S) == 3


@WORKERS
def test_a_worker_whose_connections_freeze_serves_and_answers_again(
    pool: str, ways: tuple[str, ...], start: Callable[..., Any], app: Celery, wire: Wire
) -> None:
    start(pool, socket_timeout=BOUND_S)
    add(app)
    assert wire.freeze(ways) > 0
    add(app)
    eventually(lambda: app.control.inspect(timeout=0.5).ping(), SERVED_S, "an answer to a remote control command")


def test_the_url_alone_is_enough(start: Callable[..., Any], app: Celery, wire: Wire) -> None:
    start("solo")
    add(app)
    wire.freeze()
    add(app)


@WORKERS
@pytest.mark.parametrize("new_ones", [False, True], ids=["new-connections-work", "nothing-works"])
def test_a_worker_whose_connections_are_frozen_ends_when_it_is_told_to(
    pool: str, new_ones: bool, ways: tuple[str, ...], start: Callable[..., Any], app: Celery, wire: Wire
) -> None:
    worker = start(pool, **({"socket_timeout": BOUND_S} if new_ones else {}))
    add(app)
    wire.freeze(ways, new_ones=new_ones)
    # Also while it is about to connect again, and long after.
    time.sleep(4 * BOUND_S if new_ones else 0.5)
    worker.process.send_signal(signal.SIGTERM)
    try:
        assert worker.process.wait(GONE_S[pool]) == 0
    except subprocess.TimeoutExpired:
        pytest.fail(f"the worker has not ended:\n{worker.output}")


def test_a_broadcast_connection_alone_that_freezes_is_replaced(
    start: Callable[..., Any], app: Celery, wire: Wire
) -> None:
    worker = start("solo", socket_timeout=BOUND_S)
    add(app)
    frozen = [link for link in wire.links if link.has_sent(b"PSUBSCRIBE")]
    assert frozen
    for link in frozen:
        link.freeze(BOTH_WAYS)
    eventually(lambda: app.control.inspect(timeout=0.5).ping(), SERVED_S, "an answer to a remote control command")
    assert "waits_for=broadcasts" in worker.output
    assert "Connection to broker lost" not in worker.output


def test_a_worker_that_idles_for_long_keeps_its_connections(start: Callable[..., Any], app: Celery) -> None:
    worker = start("solo", socket_timeout=4.0)
    time.sleep(14)
    add(app)
    assert "silent" not in worker.output
    assert "lost" not in worker.output


def test_a_call_on_a_frozen_connection_fails_after_the_bound(wired_url: str, wire: Wire) -> None:
    with connect(wired_url, silence_s=2.0) as client, connect(wired_url, silence_s=60.0) as other:
        assert client.ping()
        assert other.ping()
        wire.freeze()
        began = time.monotonic()
        with pytest.raises(redis.exceptions.TimeoutError):
            client.ping()
        assert time.monotonic() - began > 1.5
        # The first that is found silent makes all others of the process be replaced before they are used.
        assert other.ping()
        assert client.ping()
        assert time.monotonic() - began < 30, "half of what the other connection would wait"


def test_patience_is_used_up_by_silence_and_grows_again() -> None:
    patience = Patience()
    assert patience.left_s(100.0) == ALLOWANCE_S
    patience.waited(ALLOWANCE_S / 2, 100.0)
    assert patience.left_s(100.0) == pytest.approx(ALLOWANCE_S / 2)
    patience.waited(10 * ALLOWANCE_S, 100.1)
    assert patience.left_s(100.1) == 0
    assert patience.left_s(100.1 + LEAST_S / 2) == 0, "too little for any server"
    assert patience.left_s(100.1 + REFILL_S / 2) == pytest.approx(ALLOWANCE_S / 2)
    assert patience.left_s(100.1 + 9 * REFILL_S) == ALLOWANCE_S


def test_only_who_closes_a_channel_is_hurried() -> None:
    assert not is_hurried()
    with closing(), closing():
        assert is_hurried()
    assert not is_hurried()


def test_the_setting_and_the_transport_agree_by_default() -> None:
    assert Settings.model_fields["broker_timeout_s"].default == SILENCE_S


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"socket_timeout": 0}, "socket_timeout"),
        ({"socket_timeout": "soon"}, "socket_timeout"),
        ({"socket_connect_timeout": -1}, "socket_connect_timeout"),
        ({"health_check_interval": -5}, "health_check_interval"),
        ({"socket_timeout": 2, "polling_interval": 3}, "polling_interval"),
        ({"socket_keepalive": False, "socket_keepalive_options": {4: 5}}, "socket_keepalive"),
    ],
)
def test_options_that_contradict_each_other_are_refused_in_one_line(
    options: dict[str, object], word: str, broker_url: str
) -> None:
    with (
        Connection(headrace_url(broker_url), transport_options=options) as connection,
        pytest.raises(ConfigurationError, match=word) as refused,
    ):
        connection.ensure_connection(max_retries=1)
    assert "\n" not in str(refused.value)


def test_options_change_the_bounds(wired_url: str) -> None:
    options = {"socket_timeout": None, "socket_keepalive": False}
    with Connection(headrace_url(wired_url), transport_options=options) as connection:
        made: Any = connection.default_channel
        assert made.socket_timeout is None
        assert made.pool.connection_kwargs["socket_keepalive"] is False
    port = urlsplit(wired_url).port
    with Connection(headrace_url(wired_url)) as connection:
        usual: Any = connection.default_channel
        assert usual.pool.connection_kwargs["socket_timeout"] == SILENCE_S
        assert usual.pool.connection_kwargs["port"] == port
