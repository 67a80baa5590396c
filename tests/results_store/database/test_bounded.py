"""A server that accepts and never answers, and one whose connections are forgotten: no call waits for it for ever."""

from __future__ import annotations

import gc
import socket
import threading
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest
from tests.silent_postgres import silent

from headrace.cli.stack.servers import Postgres
from headrace.contracts.errors import StoreUnavailable
from headrace.results_store import BatchRows, StoreReader, StoreWriter, migrate
from headrace.results_store.database import address
from headrace.results_store.database.bounded import Watchdog
from headrace.results_store.writing import writer as writer_module

TIMEOUT_S = 2.0

#: The watchdog looks four times within the timeout, psycopg ten times a second. Without them calls last for ever.
NOTICED_S = 30


def took_s(call: Callable[[], object]) -> float:
    """Return the seconds of a call that must find the store unavailable."""
    start = time.monotonic()
    with pytest.raises(StoreUnavailable, match=r"no answer|timeout"):
        call()
    return time.monotonic() - start


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("bounded") / "postgres") as server:
        migrate(server.url)
        yield server


@pytest.mark.parametrize("way", ["arrays", "copy"])
def test_a_write_to_a_silent_server_fails_in_time_and_is_stored_later(
    server: Postgres, make_batch: Callable[..., BatchRows], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way == "copy":
        monkeypatch.setattr(writer_module, "COPY_ROWS", 0)
    batch = make_batch(3)
    with StoreWriter(server.url, timeout_s=TIMEOUT_S) as writer:
        writer.write([make_batch()])
        with silent(server):
            assert took_s(lambda: writer.write([batch])) < NOTICED_S
            # Now it is the connection attempt that gets no answer.
            assert took_s(lambda: writer.write([batch])) < NOTICED_S
        assert writer.write([batch]) == []
    with psycopg.connect(server.url) as store:
        ids = [row.id for row in batch.rows]
        assert store.execute("SELECT count(*) FROM predictions WHERE id = ANY(%s)", (ids,)).fetchone() == (3,)


def test_a_read_from_a_silent_server_fails_in_time_and_succeeds_later(
    server: Postgres, make_batch: Callable[..., BatchRows]
) -> None:
    batch = make_batch()
    request_id = str(batch.rows[0].id)
    with StoreWriter(server.url) as writer, StoreReader(server.url, timeout_s=TIMEOUT_S) as reader:
        writer.write([batch])
        assert reader.get(request_id) is not None
        with silent(server):
            assert took_s(lambda: reader.get(request_id)) < NOTICED_S
        assert reader.get(request_id) is not None


def test_a_write_can_be_interrupted(server: Postgres, make_batch: Callable[..., BatchRows]) -> None:
    with StoreWriter(server.url, timeout_s=600) as writer:
        writer.write([make_batch()])
        with silent(server):
            threading.Timer(0.5, writer.interrupt).start()
            assert took_s(lambda: writer.write([make_batch()])) < 5


def test_a_session_that_was_given_up_keeps_no_locks(server: Postgres, make_batch: Callable[..., BatchRows]) -> None:
    """Its rows are locked by an open transaction, as when its client's last words never arrived."""
    batch = make_batch()
    with psycopg.connect(server.url) as other, StoreWriter(server.url, timeout_s=TIMEOUT_S) as writer:
        other.execute("LOCK TABLE predictions")
        for _ in range(2):
            assert took_s(lambda: writer.write([batch])) < NOTICED_S
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'INSERT INTO predictions%' AND state = 'active'"
        )
        with psycopg.connect(server.url) as store:
            found = store.execute(waiting).fetchone()
            assert found is not None
            assert found[0] <= 1
        other.rollback()
        assert writer.write([batch]) == []


def test_a_commit_that_takes_longer_than_the_timeout_is_waited_for_in_the_end(
    server: Postgres, make_batch: Callable[..., BatchRows]
) -> None:
    batch = make_batch(model="slow")
    with psycopg.connect(server.url, autocommit=True) as store:
        store.execute(
            "CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" IF NEW.model = 'slow' THEN PERFORM pg_sleep({1.5 * TIMEOUT_S}); END IF; RETURN NEW; END $$;"
            " CREATE TRIGGER slow BEFORE INSERT ON predictions FOR EACH ROW EXECUTE FUNCTION slow()"
        )
        try:
            with StoreWriter(server.url, timeout_s=TIMEOUT_S) as writer:
                took_s(lambda: writer.write([batch]))
                assert writer.write([batch]) == []
        finally:
            store.execute("DROP TRIGGER slow ON predictions")


def test_too_many_connections_pass(server: Postgres, make_batch: Callable[..., BatchRows]) -> None:
    batch = make_batch()
    with psycopg.connect(server.url, autocommit=True) as store:
        store.execute("CREATE ROLE crowd LOGIN CONNECTION LIMIT 0")
        store.execute("GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO crowd")
        url = server.url.replace("user=headrace", "user=crowd").replace("//headrace@", "//crowd@")
        assert url != server.url
        with StoreWriter(url, timeout_s=TIMEOUT_S) as writer:
            with pytest.raises(StoreUnavailable, match="too many connections"):
                writer.write([batch])
            store.execute("ALTER ROLE crowd CONNECTION LIMIT 5")
            assert writer.write([batch]) == []


def test_a_watchdog_never_cuts_a_call_that_has_ended() -> None:
    ours, theirs = socket.socketpair()
    dog = Watchdog()
    try:
        for _ in range(100):
            dog.begin(ours.fileno(), 60)
            assert not dog.end()
            dog.cut()
        ours.send(b"alive")
        assert theirs.recv(5) == b"alive"
        dog.begin(ours.fileno(), 0.1)
        assert theirs.recv(5) == b""
        assert dog.end()
    finally:
        dog.close()
        ours.close()
        theirs.close()


def test_a_connection_that_fails_keeps_no_socket_open_until_garbage_is_collected() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        gc.disable()
        try:
            with pytest.raises(psycopg.OperationalError) as failed:
                address.connect(f"postgresql://nobody@127.0.0.1:{server.getsockname()[1]}/none", 1.0)
            accepted, _ = server.accept()
            with accepted:
                accepted.settimeout(5)
                assert accepted.recv(100)  # what libpq begins with
                assert accepted.recv(100) == b"", failed.value
        finally:
            gc.enable()
