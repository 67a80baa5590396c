"""Flower and celery-exporter beside an ordinary app on `headrace://`: how many messages wait in its queues."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kombu
import pytest
from celery import Celery
from tests.eventually import eventually
from tests.sentinels import Watched

from headrace.cli.stack.flower import flower_command, flower_environment
from headrace.cli.stack.ports import free_port
from headrace.queueing import connect, headrace_url, queue_stats
from headrace.queueing.admin.flower_page import QueueReader

APP = """
import json
import os
from celery import Celery

app = Celery("demo", broker=os.environ["BROKER"])
app.conf.broker_transport_options = {"global_keyprefix": "shop:", **json.loads(os.environ.get("OPTIONS", "{}"))}

@app.task
def add(x, y):
    return x + y
"""


def page(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as exc:
        return f"HTTP {exc.code}"
    except (urllib.error.URLError, ConnectionError):
        return ""


def counts(html: str) -> dict[str, int]:
    """The queues of Flower's page of the broker, and how many messages wait in each."""
    rows = re.findall(r"<td>([\w.]+)</td>\s*<td[^>]*>(\d+)</td>", html)
    return {name: int(number) for name, number in rows}


def assert_flower_counts(run: Callable[..., Any], folder: Path, url: str, *broker: str, **environment: str) -> None:
    """A worker, three messages of different priorities when it has gone, and what Flower's page then shows."""
    (folder / "demo_app.py").write_text(APP)
    environment |= {"BROKER": url, "PYTHONPATH": str(folder)}
    port = free_port(0)
    worker = run("-m", "celery", "-A", "demo_app", "worker", "-c", "1", "-P", "solo", "-E", "-l", "INFO", **environment)
    worker.wait_for("ready")
    run("-m", "celery", "-A", "demo_app", *broker, "flower", f"--port={port}", **environment)
    eventually(lambda: "celery" in page(f"http://127.0.0.1:{port}/workers"), 30, "Flower to know the worker")
    worker.stop()
    send = "from demo_app import add\nfor each in (0, 4, 9): add.apply_async((1, 2), priority=each)\nprint('sent')"
    run("-c", send, **environment).wait_for("sent")
    eventually(lambda: counts(page(f"http://127.0.0.1:{port}/broker")).get("celery") == 3, 30, "the queue's length")


def test_flower_shows_the_queues_of_an_app_on_headrace(
    run: Callable[..., Any], broker_url: str, tmp_path: Path
) -> None:
    options = {"priority_steps": [0, 4, 8], "sep": ":", "priority_order": "highest_first"}
    assert_flower_counts(run, tmp_path, headrace_url(broker_url), OPTIONS=json.dumps(options))


def test_flower_shows_them_by_the_plain_url_too(run: Callable[..., Any], broker_url: str, tmp_path: Path) -> None:
    assert_flower_counts(run, tmp_path, headrace_url(broker_url), "-b", broker_url)


def test_flower_shows_them_through_sentinels(run: Callable[..., Any], watched: Watched, tmp_path: Path) -> None:
    url = f"{watched.url('headrace+sentinel')}?master_name={Watched.NAME}"
    assert_flower_counts(run, tmp_path, url)


def test_a_broker_that_is_away_is_an_empty_page_and_not_a_page_that_never_comes(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "demo_app.py").write_text(APP)
    port = free_port(0)
    environment = {"BROKER": "headrace://127.0.0.1:1/0", "PYTHONPATH": str(tmp_path)}
    run("-m", "celery", "-A", "demo_app", "flower", f"--port={port}", **environment)
    eventually(lambda: "<table" in page(f"http://127.0.0.1:{port}/broker"), 30, "the page")
    assert counts(page(f"http://127.0.0.1:{port}/broker")) == {}


@pytest.mark.parametrize("prefix", ["", "shop:"])
def test_the_calls_of_celery_exporter_find_a_queue_by_the_plain_url(broker_url: str, prefix: str) -> None:
    # celery-exporter 0.12 asks by these, and only where the URL's scheme is one that it knows.
    options = {"global_keyprefix": prefix} if prefix else {}
    with Celery(broker=headrace_url(broker_url)) as ours, Celery(broker=broker_url) as exporter:
        for app in (ours, exporter):
            app.conf.broker_transport_options = options
        ours.send_task("add", (1, 2))
        with exporter.connection() as connection:
            assert connection.info()["transport"] == "redis"
            channel: Any = connection.default_channel  # kombu's own for Redis
            assert channel.client.llen("celery") == 1


@pytest.mark.server
@pytest.mark.parametrize("prefix", ["", "shop:"])
@pytest.mark.parametrize("scheme", ["redis", "headrace", "sentinel"])
def test_headrace_flower_shows_the_queues_of_models(
    request: pytest.FixtureRequest, run: Callable[..., Any], tmp_path: Path, prefix: str, scheme: str
) -> None:
    if scheme == "sentinel":
        url = f"{request.getfixturevalue('watched').url('sentinel')}?master_name={Watched.NAME}"
    else:
        url = request.getfixturevalue("broker_url").replace("redis", scheme)
    (tmp_path / "models").mkdir()
    port = free_port(0)
    own = {"HEADRACE_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "HEADRACE_KEY_PREFIX": prefix}
    options = {"global_keyprefix": prefix} if prefix else {}
    with kombu.Connection(headrace_url(url), transport_options=options) as connection:
        for priority in (0, 9):
            connection.Producer().publish(1, routing_key="headrace", priority=priority)
    run(*flower_command()[1:], **flower_environment(url, port, own), HEADRACE_MODELS=str(tmp_path / "models"))
    eventually(lambda: counts(page(f"http://127.0.0.1:{port}/broker")) == {"headrace": 2}, 30, "the queue's length")


@pytest.mark.parametrize("prefix", ["", "shop:"])
def test_the_page_counts_as_queue_stats_does(broker_url: str, prefix: str) -> None:
    names = ["infer.digits", "infer.empty", "mail"]
    app = Celery(broker=headrace_url(broker_url))
    app.conf.broker_transport_options = {"global_keyprefix": prefix}
    with app.connection() as connection, connect(broker_url, prefix=prefix) as client:
        for number in range(10):
            connection.Producer().publish(1, routing_key=names[number % 2 * 2], priority=number)
        shown = asyncio.run(QueueReader(app).queues(names))
        assert {each["name"]: each["messages"] for each in shown} == {"infer.digits": 5, "infer.empty": 0, "mail": 5}
        assert shown == [{"name": one.queue, "messages": one.waiting} for one in queue_stats(client, names)]
