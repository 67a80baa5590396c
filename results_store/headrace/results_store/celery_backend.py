"""A Celery result backend over the store: `result_backend = "headrace+postgresql://user@host/name"`.

`AsyncResult(request_id)` in any Celery app then answers for predictions:

==========  =========  ===================================================================================
our state   Celery's   result
==========  =========  ===================================================================================
(no row)    PENDING    None
succeeded   SUCCESS    `{output name: nested lists}`
failed      FAILURE    the error of headrace as it was stored, such as `InferenceFailed`
expired     REVOKED    `TaskRevokedError("expired")`, as for any Celery task that expires
cancelled   REVOKED    `TaskRevokedError("cancelled")`, as for any Celery task that is revoked
==========  =========  ===================================================================================

Workers of headrace write the rows of predictions themselves, in batches, so the backend ignores what Celery asks it to
store for tasks named `infer.…`. Results, groups and chords of an app's other tasks are kept in a table of their own,
for Celery's `result_expires`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final
from urllib.parse import quote

import numpy as np
from celery import states
from celery.app.utils import sanitize_url  # type: ignore[attr-defined]  # missing from the stubs
from celery.backends.base import KeyValueStoreBackend
from celery.exceptions import TaskRevokedError, TimeoutError  # noqa: A004 - Celery's callers expect its own
from kombu.utils.encoding import ensure_bytes
from numpy.typing import NDArray
from psycopg.conninfo import conninfo_to_dict

from headrace.contracts.errors import ConfigurationError, StoreUnavailable
from headrace.contracts.message import TASK_PREFIX, queue_name
from headrace.contracts.states import State
from headrace.results_store.database.address import connection_info
from headrace.results_store.reading.prediction import Prediction
from headrace.results_store.reading.reader import StoreReader
from headrace.results_store.task_results import TaskResults

#: A waiting `get()` asks the store first after this time, and then after ever longer ones: a tenth of the time it has
#: waited so far, at most Celery's `interval` (0.5 s). It so adds at most 10 % to the latency, at 40 primary key
#: look-ups in the first second and two a second later on. NOTIFY would cost each commit of the writers instead.
FIRST_POLL_S: Final = 0.005
POLL_SHARE: Final = 0.1

#: One query for many ids names at most this many.
IDS_A_QUERY: Final = 1_000

#: What libpq takes in a URL that nobody may see, and what Celery writes in its place.
_SECRETS: Final = ("password", "sslpassword", "oauth_client_secret")
_MASK: Final = "********"

Meta = dict[str, Any]


def shown_url(database_url: str) -> str:
    """Write a database URL for people, as a `result_backend`: who, where and which database, and nothing secret.

    libpq reads it, since Celery's readers of URLs trip over several hosts and over what libpq takes unquoted.
    Raises ConfigurationError when it can't be read.
    """
    found = conninfo_to_dict(connection_info(database_url))
    hosts, ports = (str(found.get(name) or "").split(",") for name in ("host", "port"))
    # One port may stand for all hosts. A socket's folder has slashes, which have to be quoted here.
    places = [
        (f"[{host}]" if ":" in host else quote(host, safe="")) + (f":{port}" if port else "")
        for host, port in zip(hosts, ports if len(ports) == len(hosts) else ports[:1] * len(hosts), strict=True)
    ]
    who = quote(str(found.get("user") or ""), safe="") + (":**" if found.get("password") else "")
    name = quote(str(found.get("dbname") or ""), safe="")
    return f"headrace+postgresql://{who}{'@' if who else ''}{','.join(places)}/{name}"


def _check_masking(result_backend: str) -> None:
    """Refuse a setting that Celery would show with its password, in `inspect conf`, `report` and so in Flower."""
    shown = sanitize_url(result_backend, mask=_MASK).removeprefix("headrace+")
    found = conninfo_to_dict(connection_info(shown))
    if any(found.get(name, _MASK) != _MASK for name in _SECRETS):
        raise ConfigurationError(
            "Celery would show the password in this result_backend; write it as headrace+postgresql://user:PASSWORD@host/"
            "name with special characters percent-encoded (`#` is %23, `,` is %2C), or set PGPASSWORD instead"
        )


#: Its stubs know neither all methods nor their arguments.
_Backend: Any = KeyValueStoreBackend


class PredictionBackend(_Backend):  # type: ignore[misc]
    """Answers `AsyncResult` from predictions and from results of ordinary tasks; see the module for how states map."""

    supports_native_join = True
    url: str
    #: `headrace store prune` ends old rows, and what expired goes with later writes; Celery has nothing to clean up.
    supports_autoexpire = True
    implements_incr = True
    persistent = True

    def __init__(self, app: Any, url: str | None = None, **kwargs: Any) -> None:
        """url: `postgresql://…`, what follows `headrace+` in the setting.

        Raises ConfigurationError without one, and when Celery would show its password wherever it shows its settings.
        """
        if not url:
            raise ConfigurationError("result_backend must name the store: headrace+postgresql://user@host/name")
        super().__init__(app, url=url, **kwargs)
        if str(app.conf.result_backend).endswith(url):
            _check_masking(app.conf.result_backend)
        self._reader = StoreReader(url)
        self._tasks = TaskResults(url)
        self._shown = shown_url(url)
        # Lets one instance, with its pool of connections, serve all threads of an app.
        self.thread_safe = True

    def as_uri(self, include_password: bool = False) -> str:
        """Return the address for people, without the password unless told to."""
        return f"headrace+{self.url}" if include_password else self._shown

    def close(self) -> None:
        """Close the connections; they are opened again when needed."""
        self._reader.close()
        self._tasks.close()

    def store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Store the result of a task; not of predictions, whose rows their worker writes."""
        name = getattr(request, "task", None) or ""
        if name.startswith(TASK_PREFIX):
            return result
        return super().store_result(task_id, result, state, traceback=traceback, request=request, **kwargs)

    def get(self, key: bytes) -> bytes | None:
        """Return the value that an ordinary task stored under a key."""
        return self._tasks.get([key])[0]

    def mget(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values that ordinary tasks stored under some keys."""
        return self._tasks.get(keys)

    def set(self, key: bytes, value: str | bytes) -> None:
        """Store a value for an ordinary task."""
        self._tasks.set(key, ensure_bytes(value), self.expires)

    def delete(self, key: bytes) -> None:
        """Remove a value of an ordinary task."""
        self._tasks.delete(key)

    def incr(self, key: bytes) -> int:
        """Count one more part of a chord that has ended."""
        return self._tasks.increment(key)

    def expire(self, key: bytes, value: float) -> None:
        """Set a new time to live."""
        self._tasks.expire(key, value)

    def get_many(  # noqa: PLR0913, PLR0917
        self,
        task_ids: Iterable[str],
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,  # noqa: ARG002
        on_message: Callable[[Meta], None] | None = None,
        on_interval: Callable[[], None] | None = None,
        max_iterations: int | None = None,
    ) -> Iterator[tuple[str, Meta]]:
        """Yield each task's id and outcome as it ends, one query a poll; `GroupResult.get()` waits with it."""
        waiting = set(task_ids)
        polls = _Polls(timeout, interval)
        while waiting:
            for task_id, meta in self._ended(sorted(waiting)):
                waiting.discard(task_id)
                if on_message is not None:
                    on_message(meta)
                yield task_id, meta
            if not waiting or polls.count + 1 == max_iterations:
                return
            if on_interval is not None:
                on_interval()
            polls.wait()

    def wait_for(
        self,
        task_id: str,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,  # noqa: ARG002
        on_interval: Callable[[], None] | None = None,
    ) -> Meta:
        """Return the task's outcome once it has ended. Raises Celery's TimeoutError after `timeout` seconds."""
        polls = _Polls(timeout, interval)
        while True:
            meta: Meta = self.get_task_meta(task_id)
            if meta["status"] in states.READY_STATES:
                return meta
            if on_interval is not None:
                on_interval()
            polls.wait()

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        """Return which errors `result_backend_always_retry` may retry."""
        return isinstance(exc, StoreUnavailable)

    def _ended(self, task_ids: list[str]) -> Iterator[tuple[str, Meta]]:
        for start in range(0, len(task_ids), IDS_A_QUERY):
            asked = task_ids[start : start + IDS_A_QUERY]
            predictions = self._reader.get_many(asked)
            for task_id, found in predictions.items():
                yield task_id, _meta(found)
            others = [task_id for task_id in asked if task_id not in predictions]
            yield from self._mget_to_results(
                self.mget([self.get_key_for_task(each) for each in others]), others
            ).items()

    def _get_task_meta_for(self, task_id: str) -> Meta:
        found = self._reader.get(task_id)
        if found is not None:
            return _meta(found)
        meta: Meta = super()._get_task_meta_for(task_id)
        return {"task_id": task_id, "traceback": None, "children": []} | meta

    def _forget(self, task_id: str) -> None:
        """Forget the result of an ordinary task; a prediction's row is its record, and ends with its partition."""
        super()._forget(task_id)


class _Polls:
    """When to ask again: soon at first, ever more rarely later, and never past the deadline."""

    def __init__(self, timeout_s: float | None, longest_s: float) -> None:
        self._started = time.monotonic()
        self._timeout_s = timeout_s
        self._longest_s = longest_s
        self.count = 0

    def wait(self) -> None:
        """Sleep until the next poll. Raises Celery's TimeoutError when the time is over."""
        waited = time.monotonic() - self._started
        nap = min(self._longest_s, max(FIRST_POLL_S, waited * POLL_SHARE))
        if self._timeout_s is not None:
            if waited >= self._timeout_s:
                raise TimeoutError(f"no prediction within {self._timeout_s} s; the request goes on")
            nap = min(nap, self._timeout_s - waited)
        self.count += 1
        time.sleep(nap)


def _meta(found: Prediction) -> Meta:
    status, result = _outcome(found)
    name = queue_name(found.model)
    return {
        "task_id": found.id,
        "status": status,
        "result": result,
        "traceback": None,
        "children": [],
        "date_done": found.finished_at,
        "name": name,
        "queue": name,
        "worker": found.worker,
        "retries": max(found.attempts - 1, 0),
    }


def _outcome(found: Prediction) -> tuple[str, Any]:
    if found.state is State.SUCCEEDED:
        return states.SUCCESS, {name: _nested(array) for name, array in (found.outputs or {}).items()}
    if found.state is State.FAILED:
        return states.FAILURE, found.error
    return states.REVOKED, TaskRevokedError(found.state.value)


def _nested(array: NDArray[Any]) -> Any:
    if array.dtype.kind == "O":
        return np.vectorize(_text, otypes=[object])(array).tolist() if array.size else array.tolist()
    if array.dtype.kind == "V":
        return array.astype(np.float32).tolist()
    return array.tolist()


def _text(element: bytes) -> str:
    return element.decode("utf-8", "backslashreplace")
