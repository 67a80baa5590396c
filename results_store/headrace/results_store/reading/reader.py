"""Reads predictions by id, by filter and by job; inserts the row of a cancel, removes that of a retried dead letter."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from headrace.contracts.errors import Cancelled, InvalidRequest
from headrace.contracts.ids import foreign_id, row_id, unix_seconds
from headrace.contracts.states import State
from headrace.results_store.database.address import create_engine
from headrace.results_store.database.bounded import ANSWER_S, LONG_WORK_S
from headrace.results_store.database.errors import driver_errors_translated
from headrace.results_store.reading.prediction import Prediction, prediction_of
from headrace.results_store.reading.statistics import StoreStats, read_stats
from headrace.results_store.reading.traffic import Traffic, traffic_in, traffic_of
from headrace.results_store.schema import predictions

_table = predictions.c

_BY_ID: Final = sa.select(predictions).where(_table.id == sa.bindparam("row"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """A filter of predictions; a field that is None matches all. since ≤ finished_at < until, both aware."""

    model: str | None = None
    state: str | None = None
    job_id: str | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None

    def __post_init__(self) -> None:
        """Raises InvalidRequest for a state that does not exist or a time without a zone."""
        if self.state is not None and self.state not in list(State):
            raise InvalidRequest(f"state {self.state!r} does not exist; use one of {', '.join(State)}")
        for name, time in (("since", self.since), ("until", self.until)):
            if time is not None and time.tzinfo is None:
                raise InvalidRequest(f"{name} has no time zone; use for example datetime.now(UTC)")

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        """Return the conditions on a row."""
        found: list[sa.ColumnElement[bool] | None] = [
            None if self.model is None else _table.model == self.model,
            None if self.state is None else _table.state == self.state,
            None if self.job_id is None else _table.job_id == self.job_id,
            None if self.since is None else _table.finished_at >= self.since,
            None if self.until is None else _table.finished_at < self.until,
        ]
        # Spelled out for the planner, which does not conclude it from a parameter: the partial index holds these.
        if self.state not in (None, State.SUCCEEDED):
            found.append(_table.state != sa.literal_column("'succeeded'"))
        return [condition for condition in found if condition is not None]

    @property
    def needs_every_model(self) -> bool:
        """Whether no index but that of (model, finished_at) can give the newest rows."""
        return self.model is None and self.job_id is None and self.state in (None, State.SUCCEEDED)


class StoreReader:
    """Reads the store over a small pool of connections, opened when needed; safe in threads and after a fork."""

    def __init__(self, database_url: str, *, pool_size: int = 5, timeout_s: float = ANSWER_S) -> None:
        """database_url: `postgresql://…`; nothing is connected yet. timeout_s: a silent server counts as lost then.

        Raises ConfigurationError when the URL can't be read.
        """
        # Not the URL itself, whose password `repr` and `vars` would show.
        self._engine_for_long_work: Callable[[], sa.Engine] = lambda: create_engine(
            database_url, pool_size=1, answer_s=LONG_WORK_S
        )
        self._engine = create_engine(database_url, pool_size=pool_size, answer_s=timeout_s)
        self._process = os.getpid()

    def get(self, request_id: str) -> Prediction | None:
        """Return the prediction of a request, or None when it has not ended (or never was). Raises StoreUnavailable."""
        with self._reading() as connection:
            row = connection.execute(_BY_ID, {"row": row_id(request_id)}).one_or_none()
        return None if row is None else prediction_of(row)

    def get_many(self, request_ids: Iterable[str]) -> dict[str, Prediction]:
        """Return the predictions of those requests that have ended, by id; one query. Raises StoreUnavailable."""
        wanted = {row_id(request_id): request_id for request_id in request_ids}
        keys = sa.bindparam("rows", list(wanted), pg.ARRAY(sa.Uuid))
        with self._reading() as connection:
            rows = connection.execute(sa.select(predictions).where(_table.id == sa.any_(keys))).all()
        return {wanted[row.id]: prediction_of(row) for row in rows}

    def find(
        self,
        *,
        model: str | None = None,
        state: str | None = None,
        job_id: str | None = None,
        since: dt.datetime | None = None,
        until: dt.datetime | None = None,
        limit: int = 100,
    ) -> list[Prediction]:
        """Find the newest predictions that fit, newest first by `finished_at`; since ≤ finished_at < until.

        Raises InvalidRequest for a state that does not exist or a time without a zone, StoreUnavailable.
        """
        wanted = Filter(model=model, state=state, job_id=job_id, since=since, until=until)
        query = _newest_of_every_model(wanted, limit) if wanted.needs_every_model else _newest(wanted, limit)
        return self._all(query)

    def read_job(self, job_id: str, *, after_row: int = -1, limit: int = 1_000) -> list[Prediction]:
        """Read the ended rows of a bulk job in the order of `row_index`, beginning behind `after_row`.

        To read all, pass the last `row_index` of each answer as the next `after_row`. Raises StoreUnavailable.
        """
        query = (
            sa.select(predictions)
            .where(_table.job_id == job_id, _table.row_index > after_row)
            .order_by(_table.row_index)
            .limit(limit)
        )
        return self._all(query)

    def cancel(self, request_id: str, model: str) -> bool:
        """Insert the row of a cancelled request; True unless the request had ended before. Raises StoreUnavailable."""
        with self._reading() as connection:
            return connection.execute(_cancelled(request_id, model)).first() is not None

    def remove_failed(self, request_id: str, *, until: dt.datetime) -> bool:
        """Remove the row of a request that failed until then (aware), so that it may run anew; True if there was one.

        Raises StoreUnavailable.
        """
        key = row_id(request_id)
        row = sa.delete(predictions).where(_table.id == key, _table.state == State.FAILED, _table.finished_at <= until)
        with self._reading() as connection:
            return connection.execute(row).rowcount > 0

    def stats(self) -> StoreStats:
        """Count what the store holds; scans the table, so it takes seconds on tens of millions of rows."""
        patient = self._engine_for_long_work()
        try:
            with driver_errors_translated(), patient.connect() as connection:
                return read_stats(connection)
        finally:
            patient.dispose()

    def traffic(self, models: Collection[str], since: dt.datetime, until: dt.datetime) -> list[Traffic]:
        """Count what became of the requests to some models; since < finished_at ≤ until. Raises StoreUnavailable."""
        with self._reading() as connection:
            return [traffic_in(row) for row in connection.execute(traffic_of(models, since, until)).all()]

    def close(self) -> None:
        """Close every connection; a later read opens others."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        """Return the reader itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every connection."""
        self.close()

    def _all(self, query: sa.Select[Any]) -> list[Prediction]:
        with self._reading() as connection:
            rows: Sequence[sa.Row[Any]] = connection.execute(query).all()
        return [prediction_of(row) for row in rows]

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        if self._process != os.getpid():
            # A forked child (a prefork server) must leave its parent's sockets alone.
            self._engine.dispose(close=False)
            self._process = os.getpid()
        with driver_errors_translated(), self._engine.connect() as connection:
            yield connection


def _newest(wanted: Filter, limit: int) -> sa.Select[Any]:
    return (
        sa.select(predictions)
        .where(*wanted.conditions())
        .order_by(_table.finished_at.desc(), _table.id.desc())
        .limit(limit)
    )


def _newest_of_every_model(wanted: Filter, limit: int) -> sa.Select[Any]:
    """Take the newest of each model, then of those the newest: reads `limit` rows a model, never the whole table.

    The models are found by hopping from one to the next in the index ("loose index scan").
    """
    first = sa.select(sa.func.min(_table.model).label("model")).cte("models", recursive=True)
    following = sa.select(sa.func.min(_table.model)).where(_table.model > first.c.model).scalar_subquery()
    models = first.union_all(sa.select(following).where(first.c.model.is_not(None)))
    newest = _newest(wanted, limit).where(_table.model == models.c.model).correlate(models).lateral("newest")
    return (
        sa.select(newest)
        .select_from(models.join(newest, sa.true()))
        .order_by(newest.c.finished_at.desc(), newest.c.id.desc())
        .limit(limit)
    )


def _cancelled(request_id: str, model: str) -> sa.Executable:
    key = row_id(request_id)
    seconds = unix_seconds(key)
    error = Cancelled()
    return (
        pg.insert(predictions)
        .values(
            id=key,
            foreign_id=foreign_id(request_id),
            model=model,
            version="",
            state=State.CANCELLED,
            error={"type": error.type, "message": error.message},
            submitted_at=None if seconds is None else dt.datetime.fromtimestamp(seconds, dt.UTC),
            finished_at=sa.func.now(),
            attempts=0,
            cached=False,
        )
        .on_conflict_do_nothing()
        .returning(_table.id)
    )
