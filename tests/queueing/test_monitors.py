"""Flower beside an ordinary app on `headrace://`: by the plain URL of the same server it shows the queues too."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kombu
import pytest
from tests.queueing.functional.conftest import wait_for

from headrace.cli.flower import flower_command, flower_environment
from headrace.cli.ports import free_port
from headrace.queueing import headrace_url

APP = """
import os
from celery import Celery

app = Celery("demo", broker=os.environ["BROKER"])
app.conf.broker_transport_options = {"global_keyprefix": "shop:"}

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


def test_flower_shows_the_queues_of_an_app_on_headrace_by_the_plain_url(
    run: Callable[..., Any], broker_url: str, tmp_path: Path
) -> None:
    (tmp_path / "demo_app.py").write_text(APP)
    environment = {"BROKER": headrace_url(broker_url), "PYTHONPATH": str(tmp_path)}
    port = free_port(0)
    worker = run("-m", "celery", "-A", "demo_app", "worker", "-c", "1", "-P", "solo", "-E", "-l", "INFO", **environment)
    worker.wait_for("ready")
    run("-m", "celery", "-A", "demo_app", "-b", broker_url, "flower", f"--port={port}", **environment)
    wait_for(lambda: "celery" in page(f"http://127.0.0.1:{port}/workers"), "Flower to know the worker")
    worker.stop()
    run("-c", "from demo_app import add\nfor _ in range(3): add.delay(1, 2)\nprint('sent')", **environment).wait_for(
        "sent"
    )
    wait_for(lambda: counts(page(f"http://127.0.0.1:{port}/broker")).get("celery") == 3, "the queue's length")


@pytest.mark.parametrize("prefix", ["", "shop:"])
def test_headrace_flower_shows_the_queues_of_models(
    run: Callable[..., Any], broker_url: str, tmp_path: Path, prefix: str
) -> None:
    (tmp_path / "models").mkdir()
    port = free_port(0)
    own = {"HEADRACE_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "HEADRACE_KEY_PREFIX": prefix}
    environment = flower_environment(broker_url, port, own)
    options = {"global_keyprefix": prefix} if prefix else {}
    with kombu.Connection(broker_url, transport_options=options) as connection:
        connection.Producer().publish(1, routing_key="headrace", declare=[kombu.Queue("headrace")], priority=9)
    run(*flower_command()[1:], **environment, HEADRACE_MODELS=str(tmp_path / "models"))
    wait_for(lambda: counts(page(f"http://127.0.0.1:{port}/broker")) == {"headrace": 1}, "the queue's length")
