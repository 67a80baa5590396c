"""A request as part of an application's own transaction, through each kind of connection, and what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
from psycopg.rows import dict_row
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from tests.producers.peer import MODEL, Peer

from headrace.contracts import Settings
from headrace.producers import (
    AsyncClient,
    Client,
    ConfigurationError,
    DeadlineExceeded,
    HeadraceError,
    InvalidRequest,
    PartlyKept,
    ResultTimeout,
    StoreUnavailable,
)
from headrace.queueing import connect
from headrace.queueing.submission import Submitter
from headrace.results_store import migrate
from headrace.results_store.durable.relay_store import RelayStore

X = {"x": np.arange(3, dtype=np.float32).reshape(1, 3)}


@pytest.fixture
def url(stored_settings: Settings) -> str:
    return stored_settings.require_database_url()


@pytest.fixture
def sqlalchemy_url(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://", 1)


@pytest.fixture
def relayed(stored_settings: Settings, url: str) -> Iterator[Callable[[], int]]:
    """Send what is due, as the relay of a worker does; give how many messages wait in the queue then."""
    store = RelayStore(url, "", "test")
    with connect(stored_settings.require_broker_url()) as broker:

        def relay() -> int:
            store.send_due(lambda queue, priority, messages: Submitter(broker).submit(queue, priority, messages))
            return int(broker.llen(f"infer.{MODEL}"))

        yield relay
    store.close()


def rows(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT coalesce(sum(cardinality(keys)), 0) FROM headrace_requests").fetchone()
        assert row is not None
        return int(row[0])


@pytest.fixture(params=["psycopg", "psycopg with dict rows", "connection", "session", "scoped session"])
def application(request: pytest.FixtureRequest, url: str, sqlalchemy_url: str) -> Iterator[Any]:
    """A connection of the application, of each kind."""
    with contextlib.ExitStack() as stack:
        if request.param.startswith("psycopg"):
            factory: dict[str, Any] = {"row_factory": dict_row} if "dict" in request.param else {}
            yield stack.enter_context(psycopg.connect(url, **factory))
            return
        engine = sa.create_engine(sqlalchemy_url)
        stack.callback(engine.dispose)
        if request.param == "connection":
            yield stack.enter_context(engine.connect())
        elif request.param == "session":
            yield stack.enter_context(Session(engine))
        else:
            sessions = scoped_session(sessionmaker(engine))
            stack.callback(sessions.remove)
            yield sessions


def test_what_is_committed_is_sent_and_answered(
    stored_client: Client, application: Any, relayed: Callable[[], int], peer: Peer
) -> None:
    handle = stored_client.submit(MODEL, X, connection=application)
    many = stored_client.submit_many(MODEL, {"x": np.repeat(X["x"], 5, axis=0)}, connection=application)
    assert relayed() == 0
    assert handle.status() == "pending"
    application.commit()
    assert relayed() == 6
    assert relayed() == 6
    taken = peer.take(6)
    peer.reply(taken[0].inbox, *(each.doubled() for each in taken))
    for each in (handle, *many):
        np.testing.assert_array_equal(each.result(30)["y"], X["x"] * 2)


def test_what_is_rolled_back_is_never_sent(
    stored_client: Client, application: Any, relayed: Callable[[], int], url: str
) -> None:
    handle = stored_client.submit(MODEL, X, connection=application)
    application.rollback()
    assert relayed() == 0
    assert rows(url) == 0
    with pytest.raises(ResultTimeout, match="that it is part of is not committed, or was rolled back") as caught:
        handle.result(timeout_s=0.1)
    assert caught.value.request_id == handle.id
    # The connection is of further use.
    stored_client.submit(MODEL, X, connection=application)
    application.commit()
    assert relayed() == 1


def test_a_savepoint_that_is_rolled_back_takes_its_request_along(
    stored_client: Client, sqlalchemy_url: str, relayed: Callable[[], int]
) -> None:
    engine = sa.create_engine(sqlalchemy_url)
    with Session(engine) as session:
        stored_client.submit(MODEL, X, connection=session)
        with session.begin_nested() as inner:
            stored_client.submit(MODEL, X, connection=session)
            inner.rollback()
        session.commit()
    engine.dispose()
    assert relayed() == 1


def test_waiting_for_what_is_not_committed_says_so(stored_client: Client, application: Any) -> None:
    handle = stored_client.submit(MODEL, X, connection=application)
    with pytest.raises(ResultTimeout, match="not committed"):
        handle.result(timeout_s=0.1)
    application.commit()
    with pytest.raises(ResultTimeout, match="committed and not sent yet, which is done by workers"):
        handle.result(timeout_s=0.1)


def test_a_deadline_ends_the_wait_for_what_was_never_committed(stored_client: Client, application: Any) -> None:
    handle = stored_client.submit(MODEL, X, connection=application, deadline_s=0.5)
    application.rollback()
    with pytest.raises(DeadlineExceeded):
        handle.result(timeout_s=60)


def test_what_was_cancelled_before_it_was_sent_is_not_sent(
    stored_client: Client, application: Any, relayed: Callable[[], int]
) -> None:
    cancelled = stored_client.submit(MODEL, X, connection=application)
    first, second, third = stored_client.submit_many(MODEL, {"x": np.repeat(X["x"], 3, axis=0)}, connection=application)
    assert cancelled.cancel()
    assert second.cancel()
    application.commit()
    assert relayed() == 2
    assert [each.status() for each in (cancelled, first, second, third)] == [
        "cancelled",
        "pending",
        "cancelled",
        "pending",
    ]


def run(settings: Settings, work: Callable[[AsyncClient], Any]) -> Any:
    async def main() -> Any:
        async with AsyncClient(settings) as client:
            return await work(client)

    return asyncio.run(main())


@pytest.mark.parametrize("kind", ["psycopg", "connection", "session", "scoped session"])
def test_asynchronous_connections(
    stored_settings: Settings, url: str, sqlalchemy_url: str, kind: str, relayed: Callable[[], int]
) -> None:
    async def work(client: AsyncClient) -> None:
        async with contextlib.AsyncExitStack() as stack:
            engine = create_async_engine(sqlalchemy_url)
            stack.push_async_callback(engine.dispose)
            if kind == "psycopg":
                application: Any = await stack.enter_async_context(await psycopg.AsyncConnection.connect(url))
            elif kind == "connection":
                application = await stack.enter_async_context(engine.connect())
            elif kind == "session":
                application = await stack.enter_async_context(AsyncSession(engine))
            else:
                application = async_scoped_session(async_sessionmaker(engine), scopefunc=asyncio.current_task)
                stack.push_async_callback(application.remove)
            await client.submit(MODEL, X, connection=application)
            await application.rollback()
            handle = await client.submit(MODEL, X, connection=application)
            with pytest.raises(ResultTimeout, match="not committed"):
                await handle.result(timeout_s=0.1)
            await client.submit_many(MODEL, {"x": np.repeat(X["x"], 2, axis=0)}, connection=application)
            await application.commit()

    run(stored_settings, work)
    assert relayed() == 3


def fails(error: type[HeadraceError], match: str, submit: Callable[[], object]) -> None:
    with pytest.raises(error, match=match) as caught:
        submit()
    assert "\n" not in caught.value.message


def test_autocommit_is_refused(stored_client: Client, url: str, sqlalchemy_url: str) -> None:
    refused = "is in autocommit mode.*begin one, or give durable=True"
    with psycopg.connect(url, autocommit=True) as connection:
        fails(InvalidRequest, refused, lambda: stored_client.submit(MODEL, X, connection=connection))
        with connection.transaction():
            stored_client.submit(MODEL, X, connection=connection)
    engine = sa.create_engine(sqlalchemy_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as other:
        fails(InvalidRequest, refused, lambda: stored_client.submit(MODEL, X, connection=other))
    engine.dispose()
    assert rows(url) == 1


def test_a_failed_transaction_is_refused(stored_client: Client, application: Any, url: str) -> None:
    statement = "SELECT 1 / 0"
    with pytest.raises((psycopg.Error, sa.exc.DBAPIError)):
        application.execute(statement if isinstance(application, psycopg.Connection) else sa.text(statement))
    fails(
        InvalidRequest,
        "has failed; roll it back and submit again",
        lambda: stored_client.submit(MODEL, X, connection=application),
    )
    application.rollback()
    stored_client.submit(MODEL, X, connection=application)
    application.commit()
    assert rows(url) == 1


def test_a_read_only_transaction_is_refused(stored_client: Client, url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.read_only = True
        fails(InvalidRequest, "is read-only", lambda: stored_client.submit(MODEL, X, connection=connection))


def test_a_read_only_store_is_told(stored_settings: Settings, url: str) -> None:
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{admin.info.dbname}" SET default_transaction_read_only = on')
    with Client(stored_settings) as client:
        fails(HeadraceError, "read-only", lambda: client.submit(MODEL, X, durable=True))


def test_another_database_is_refused(stored_client: Client, application: Any, postgres_uri: str, url: str) -> None:
    """One without the schema, and one with a schema of its own."""
    name = f"other_{uuid.uuid4().hex}"
    elsewhere = postgres_uri.replace("/postgres?", f"/{name}?", 1)
    refused = "leads to another database than HEADRACE_DATABASE_URL"
    with psycopg.connect(postgres_uri, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        try:
            for is_migrated in (False, True):
                if is_migrated:
                    migrate(elsewhere)
                with psycopg.connect(elsewhere) as connection:
                    connection.execute("SELECT 1")
                    fails(ConfigurationError, refused, partial(stored_client.submit, MODEL, X, connection=connection))
                    # The transaction itself goes on.
                    connection.execute("SELECT 1")
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    stored_client.submit(MODEL, X, connection=application)
    application.commit()
    assert rows(url) == 1


def test_what_is_no_connection_is_refused(stored_client: Client, stored_settings: Settings, url: str) -> None:
    fails(
        InvalidRequest,
        "connection is of type str; Client takes an? connection of psycopg",
        lambda: stored_client.submit(MODEL, X, connection="postgresql://"),  # type: ignore[arg-type]
    )
    with psycopg.connect(url) as connection, pytest.raises(InvalidRequest, match="takes an asynchronous connection"):
        run(stored_settings, lambda client: client.submit(MODEL, X, connection=connection))  # type: ignore[arg-type]


def test_a_role_that_may_not_insert_is_told(stored_client: Client, url: str) -> None:
    role = f"meek_{uuid.uuid4().hex}"
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN")
        try:
            with psycopg.connect(url, user=role) as connection:
                fails(
                    ConfigurationError, "may not insert", lambda: stored_client.submit(MODEL, X, connection=connection)
                )
        finally:
            admin.execute(f"DROP ROLE {role}")


@pytest.mark.parametrize("given", ["durable", "connection"])
def test_without_a_database_nothing_is_durable(client: Client, url: str, given: str) -> None:
    with psycopg.connect(url) as connection:
        arguments: dict[str, Any] = {"durable": True} if given == "durable" else {"connection": connection}
        fails(ConfigurationError, "HEADRACE_DATABASE_URL is not set", lambda: client.submit(MODEL, X, **arguments))


def test_an_old_schema_is_told(broker_url: str, database_url: str, stored_settings: Settings) -> None:
    with psycopg.connect(stored_settings.require_database_url(), autocommit=True) as admin:
        admin.execute("DROP TABLE headrace_requests")
    with Client(stored_settings) as client:
        fails(ConfigurationError, "run `headrace store migrate`", lambda: client.submit(MODEL, X, durable=True))
        with pytest.raises(ConfigurationError, match="headrace store migrate"):
            client.submit_many(MODEL, X, durable=True)


def test_rows_that_were_kept_before_postgres_was_lost_are_named(
    stored_client: Client, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    inserting, calls = stored_client._durable.inserting, iter(range(9))

    def insert_once(block: Any) -> Any:
        if next(calls):
            raise StoreUnavailable("gone")
        return inserting(block)

    monkeypatch.setattr(stored_client._durable, "inserting", insert_once)
    with pytest.raises(PartlyKept, match=r"gone; the first 1,024 rows were accepted") as caught:
        stored_client.submit_many(MODEL, {"x": np.ones((1500, 3), np.float32)}, durable=True)
    assert len(caught.value.handles) == 1024
    assert rows(url) == 1024


def test_a_durable_request_is_accepted_while_the_broker_is_away(stored_settings: Settings, url: str) -> None:
    with Client(stored_settings.model_copy(update={"broker_url": SecretStr("redis://127.0.0.1:1/0")})) as away:
        handle = away.submit(MODEL, X, durable=True)
        assert len(away.submit_many(MODEL, {"x": np.repeat(X["x"], 3, axis=0)}, durable=True)) == 3
    assert handle.id
    assert rows(url) == 4


def test_more_than_the_limit_waits_in_postgres(
    stored_settings: Settings, relayed: Callable[[], int], peer: Peer, url: str
) -> None:
    with Client(stored_settings.model_copy(update={"queue_limit": 10})) as client:
        handles = client.submit_many(MODEL, {"x": np.repeat(X["x"], 15, axis=0)}, durable=True)
        assert len(peer.take(10)) == 10
        with psycopg.connect(url) as connection:
            row = connection.execute("SELECT sent, due_at IS NULL FROM headrace_requests").fetchone()
            assert row == (10, False)
            connection.execute("UPDATE headrace_requests SET due_at = now()")
        assert relayed() == 5
        assert [each.id for each in peer.take(5)] == [handle.id for handle in handles[10:]]


def test_tasks_that_submit_durable_requests_at_the_same_time_share_transactions(
    stored_settings: Settings, url: str, peer: Peer
) -> None:
    async def work(client: AsyncClient) -> list[str]:
        handles = await asyncio.gather(*(client.submit(MODEL, X, durable=True) for _ in range(500)))
        assert {await handle.status() for handle in handles[:3]} == {"pending"}
        return [handle.id for handle in handles]

    ids = run(stored_settings, work)
    assert {taken.id for taken in peer.take(500)} == set(ids)
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*), sum(cardinality(keys)), sum(sent) FROM headrace_requests").fetchone()
    assert row is not None
    assert row[0] < 50
    assert row[1:] == (500, 500)


def test_tasks_are_told_that_postgres_is_away(stored_settings: Settings) -> None:
    away = stored_settings.model_copy(update={"database_url": SecretStr("postgresql://nobody@127.0.0.1:1/none")})

    async def work(client: AsyncClient) -> list[object]:
        return list(
            await asyncio.gather(*(client.submit(MODEL, X, durable=True) for _ in range(20)), return_exceptions=True)
        )

    assert {type(failure) for failure in run(away, work)} == {StoreUnavailable}
