from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable, Iterator

import ml_dtypes
import numpy as np
import psycopg
import pytest
from celery import Celery, states
from celery.exceptions import TaskRevokedError
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import GroupResult

from headrace.contracts.errors import ConfigurationError, InferenceFailed, StoreUnavailable
from headrace.contracts.ids import new_id, row_id
from headrace.contracts.tensors.codec import datatypes_line, encode_tensors, tensors_to_json
from headrace.results_store import BatchRows, Row, StoreReader, StoreWriter, error_json
from headrace.results_store.celery_backend import PredictionBackend

MakeRow = Callable[..., Row]
MakeBatch = Callable[..., BatchRows]


def celery_app(database_url: str) -> Celery:
    app = Celery("plain", broker="memory://", set_as_current=False)
    # What the entry point of the installed package does.
    app.loader.override_backends = {"headrace": "headrace.results_store.celery_backend:PredictionBackend"}
    app.conf.update(result_backend=f"headrace+{database_url}")
    return app


def backend_of(app: Celery) -> PredictionBackend:
    assert isinstance(app.backend, PredictionBackend)
    return app.backend


@pytest.fixture
def app(store_url: str) -> Iterator[Celery]:
    app = celery_app(store_url)
    yield app
    backend_of(app).close()
    app.close()


def test_the_url_selects_this_backend(app: Celery) -> None:
    assert isinstance(app.backend, PredictionBackend)


def test_all_threads_of_an_app_share_one_backend(app: Celery) -> None:
    seen: list[object] = [app.backend]
    thread = threading.Thread(target=lambda: seen.append(app.backend))
    thread.start()
    thread.join()
    assert seen[0] is seen[1]


def test_a_success_is_nested_lists_by_output_name(
    app: Celery, writer: StoreWriter, make_row: MakeRow, make_batch: MakeBatch
) -> None:
    row = make_row(attempts=2)
    writer.write([make_batch(rows=[row], finished_at=1_790_000_000.0)])
    result = app.AsyncResult(str(row.id))
    assert result.ready()
    assert result.successful()
    assert result.state == states.SUCCESS
    assert result.get() == {"label": [7], "scores": [[0.25, 0.75]]}
    assert (result.name, result.queue, result.worker, result.retries) == (
        "infer.digits",
        "infer.digits",
        "worker@host",
        1,
    )
    assert result.date_done == dt.datetime.fromtimestamp(1_790_000_000, dt.UTC)


def test_text_and_short_floats_become_what_json_knows(
    app: Celery, writer: StoreWriter, make_row: MakeRow, make_batch: MakeBatch
) -> None:
    names = np.empty((2,), object)
    names[:] = ["né".encode(), b"\xff"]
    tensors = {"name": names, "score": np.array([1.5], ml_dtypes.bfloat16), "none": np.empty((0, 2), object)}
    row = make_row(outputs=None, blob=encode_tensors(tensors), datatypes=datatypes_line(tensors))
    writer.write([make_batch(rows=[row])])
    assert app.AsyncResult(str(row.id)).get() == {"name": ["né", "\\xff"], "score": [1.5], "none": []}


def test_nan_and_infinity_are_floats_beside_labels_as_they_are(
    app: Celery, writer: StoreWriter, make_row: MakeRow, make_batch: MakeBatch
) -> None:
    tensors = {"scores": np.array([[np.nan, np.inf, -np.inf, 1.5]], np.float32), "label": np.array([2**53 + 1])}
    row = make_row(outputs=None, blob=encode_tensors(tensors), datatypes=datatypes_line(tensors))
    writer.write([make_batch(rows=[row])])
    found = app.AsyncResult(str(row.id)).get()
    assert repr(found) == "{'scores': [[nan, inf, -inf, 1.5]], 'label': [9007199254740993]}"


def test_outputs_are_in_the_order_of_the_model(
    app: Celery, writer: StoreWriter, make_row: MakeRow, make_batch: MakeBatch
) -> None:
    names = ["long name", "b", "aa", "a"]
    tensors = {name: np.ones((1, 1), np.float32) for name in names}
    kept, exact = make_row(outputs=tensors_to_json(tensors)), make_row(outputs=None, blob=encode_tensors(tensors))
    kept.datatypes = exact.datatypes = datatypes_line(tensors)
    writer.write([make_batch(rows=[kept, exact])])
    assert [list(app.AsyncResult(str(row.id)).get()) for row in (kept, exact)] == [names, names]


def test_a_failure_raises_the_error_of_headrace(
    app: Celery, writer: StoreWriter, make_row: MakeRow, make_batch: MakeBatch
) -> None:
    row = make_row(id=row_id("order-17"), foreign_id="order-17", state="failed", outputs=None)
    row.error = error_json(InferenceFailed("the runtime broke"))
    writer.write([make_batch(rows=[row])])
    result = app.AsyncResult("order-17")
    assert result.failed()
    assert isinstance(result.result, InferenceFailed)
    with pytest.raises(InferenceFailed, match="the runtime broke"):
        result.get()


def test_expired_and_cancelled_requests_are_revoked_tasks(
    app: Celery, writer: StoreWriter, reader: StoreReader, make_row: MakeRow, make_batch: MakeBatch
) -> None:
    expired, cancelled = make_row(state="expired", outputs=None), new_id()
    writer.write([make_batch(rows=[expired])])
    reader.cancel(cancelled, "digits")
    for request_id, reason in ((str(expired.id), "expired"), (cancelled, "cancelled")):
        result = app.AsyncResult(request_id)
        state: str = result.state
        assert state == states.REVOKED
        with pytest.raises(TaskRevokedError, match=reason):
            result.get()


def test_a_request_without_a_row_is_pending_and_times_out(app: Celery) -> None:
    result = app.AsyncResult(new_id())
    assert result.state == states.PENDING
    assert not result.ready()
    with pytest.raises(CeleryTimeoutError):
        result.get(timeout=0)
    with pytest.raises(CeleryTimeoutError):
        result.get(timeout=0.01)


def test_a_waiting_get_sees_the_row_that_comes(
    app: Celery, writer: StoreWriter, make_row: MakeRow, make_batch: MakeBatch
) -> None:
    row = make_row()
    waiting = threading.Event()
    found: list[object] = []
    waiter = threading.Thread(
        target=lambda: found.append(app.AsyncResult(str(row.id)).get(timeout=60, on_interval=waiting.set))
    )
    waiter.start()
    waiting.wait()
    writer.write([make_batch(rows=[row])])
    waiter.join()
    assert found == [{"label": [7], "scores": [[0.25, 0.75]]}]


def test_a_group_of_requests_is_read_together(app: Celery, writer: StoreWriter, make_batch: MakeBatch) -> None:
    batch = make_batch(3)
    group = GroupResult(new_id(), [app.AsyncResult(str(row.id)) for row in batch.rows], app=app)
    with pytest.raises(CeleryTimeoutError):
        group.get(timeout=0)
    writer.write([batch])
    assert group.get(timeout=60) == [{"label": [7], "scores": [[0.25, 0.75]]}] * 3
    assert group.completed_count() == 3


def test_results_of_ordinary_tasks_are_stored_and_found_beside_predictions(
    app: Celery, writer: StoreWriter, make_batch: MakeBatch
) -> None:
    class Request:
        task = "shop.bill"

    bill, refund, pending = (new_id() for _ in range(3))
    assert app.AsyncResult(bill).state == states.PENDING
    app.backend.store_result(bill, {"sum": 7}, states.SUCCESS, request=Request())
    app.backend.store_result(refund, KeyError("no such bill"), states.FAILURE, request=Request())
    app.backend.store_result(bill, "late", states.STARTED, request=Request())  # what has ended stays as it is
    assert (app.AsyncResult(bill).state, app.AsyncResult(bill).get(timeout=10)) == (states.SUCCESS, {"sum": 7})
    with pytest.raises(KeyError, match="no such bill"):
        app.AsyncResult(refund).get(timeout=10)
    batch = make_batch()
    writer.write([batch])
    group = GroupResult(new_id(), [app.AsyncResult(each) for each in (bill, str(batch.rows[0].id))], app=app)
    assert group.get(timeout=10) == [{"sum": 7}, {"label": [7], "scores": [[0.25, 0.75]]}]
    group.save()
    assert group.id is not None
    assert [each.id for each in GroupResult.restore(group.id, app=app)] == [each.id for each in group]
    app.AsyncResult(bill).forget()
    assert app.AsyncResult(bill).state == app.AsyncResult(pending).state == states.PENDING


def test_what_ordinary_tasks_leave_expires_and_is_removed_by_later_writes(
    app: Celery, store: psycopg.Connection
) -> None:
    backend = backend_of(app)
    for number in range(10):
        backend.set(f"old-{number}".encode(), b"x")
        backend.expire(f"old-{number}".encode(), 0.001)
    backend.expire(b"nobody has it", 5)
    time.sleep(0.05)
    assert backend.mget([f"old-{number}".encode() for number in range(10)]) == [None] * 10
    for number in range(10):
        backend.set(f"new-{number}".encode(), b"x")
    assert store.execute("SELECT count(*) FROM headrace_task_results WHERE key LIKE 'old%'").fetchone() == (0,)
    assert [backend.incr(b"count") for _ in range(3)] == [1, 2, 3]


def test_predictions_are_never_stored_by_celery_itself(app: Celery, reader: StoreReader) -> None:
    class Request:
        task = "infer.digits"

    request_id = new_id()
    app.backend.store_result(request_id, TaskRevokedError("revoked"), states.REVOKED, request=Request())
    assert reader.get(request_id) is None


def test_forgetting_a_result_keeps_the_row(
    app: Celery, writer: StoreWriter, reader: StoreReader, make_batch: MakeBatch
) -> None:
    batch = make_batch()
    writer.write([batch])
    app.AsyncResult(str(batch.rows[0].id)).forget()
    assert reader.get(str(batch.rows[0].id)) is not None


def test_a_store_that_is_away_is_an_error_not_a_pending_result() -> None:
    app = celery_app("postgresql://ann:hunter2@127.0.0.1:1/x")
    with pytest.raises(StoreUnavailable):
        app.AsyncResult(new_id()).get(timeout=1)
    assert "hunter2" not in app.backend.as_uri()
    backend_of(app).close()
    app.close()


def test_a_backend_without_an_address_is_refused() -> None:
    app = Celery("plain", set_as_current=False)
    with pytest.raises(ConfigurationError, match=r"headrace\+postgresql"):
        PredictionBackend(app)
    app.close()
