"""An ordinary Celery app with `headrace+postgresql://` for its results: its callers are answered."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery, chain, chord, group
from celery.exceptions import NotRegistered

from headrace.results_store.celery_backend import PredictionBackend

APP = """
import os
from celery import Celery

app = Celery("shop", broker=os.environ["BROKER"], backend="headrace+" + os.environ["RESULTS"])

@app.task(name="shop.add")
def add(x, y):
    return x + y

@app.task(name="shop.total")
def total(numbers):
    return sum(numbers)

@app.task(name="shop.fail")
def fail():
    raise ValueError("no such order")
"""


def backend_of(app: Celery) -> PredictionBackend:
    assert isinstance(app.backend, PredictionBackend)
    return app.backend


@pytest.fixture
def app(tmp_path: Path, store_url: str, broker_url: str) -> Iterator[Celery]:
    (tmp_path / "shop.py").write_text(APP)
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "shop", "worker", "-P", "solo", "-l", "WARNING"],
        env={**os.environ, "BROKER": broker_url, "RESULTS": store_url, "PYTHONPATH": str(tmp_path)},
    )
    app = Celery("client", broker=broker_url, backend=f"headrace+{store_url}", set_as_current=False)
    try:
        yield app
    finally:
        backend_of(app).close()
        app.close()
        worker.terminate()
        worker.wait(30)


def test_results_failures_groups_chains_and_chords_come_back(app: Celery) -> None:
    assert app.send_task("shop.add", (1, 2)).get(timeout=60) == 3
    with pytest.raises(ValueError, match="no such order"):
        app.send_task("shop.fail").get(timeout=60)
    with pytest.raises(NotRegistered):
        app.send_task("shop.nothing").get(timeout=60)
    add, total = app.signature("shop.add"), app.signature("shop.total")
    assert group([add.clone((n, n)) for n in range(5)], app=app)().get(timeout=60) == [0, 2, 4, 6, 8]
    assert chain(add.clone((1, 2)), add.clone((3,)), app=app)().get(timeout=60) == 6
    assert chord([add.clone((n, n)) for n in range(5)], app=app)(total).get(timeout=60) == 20
