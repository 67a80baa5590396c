"""Rows that Postgres refuses with whatever code it likes, one by one, in a stream of others: no worker stands still."""

from __future__ import annotations

import collections
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psycopg
import pytest
import redis
from psycopg.errors import _sqlcodes
from tests.eventually import eventually
from tests.workers.conftest import StartWorker
from tests.workers.predictions import prediction_of

from headrace.contracts import InferenceFailed, Settings
from headrace.producers import Client, Handle
from headrace.queueing import dead_letters
from headrace.queueing.keys import PLAIN
from headrace.results_store.writing import error_causes

#: Classes that are no errors, and the code for which a row is given more time than a test.
LEFT_OUT = ("00", "55P03")

#: Codes that no release of Postgres has: a trigger raises what it likes.
MADE_UP = ("HR001", "HRZZZ", "99999", "00001", "P0999", "5799X", "ABCDE")

NEIGHBOURS = 400

#: A row that may pass is refused for so long before it is believed; then it is tried with less in it.
SUSPECT_S = sum(map(error_causes.pause_s, range(1, error_causes.TRIES)))


def codes() -> list[str]:
    """Some codes of every class that Postgres knows, and some that it doesn't."""
    classes = collections.defaultdict(list)
    for code in sorted(_sqlcodes):
        if len(code) == 5 and not code.startswith(LEFT_OUT):
            classes[code[:2]].append(code)
    known = [code for members in classes.values() for code in (members[0], members[len(members) // 2], members[-1])]
    return [*dict.fromkeys(known), *MADE_UP]


TRIGGER = """
    CREATE TABLE faults (id uuid PRIMARY KEY, code text, states text[]);
    CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE found_code text;
    BEGIN
        SELECT code INTO found_code FROM faults WHERE id = NEW.id AND NEW.state = ANY(states);
        IF found_code IS NOT NULL THEN
            RAISE EXCEPTION 'a trigger refuses this row' USING ERRCODE = found_code;
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER fault BEFORE INSERT ON predictions FOR EACH ROW EXECUTE FUNCTION fault();
"""


@pytest.fixture
def store(settings: Settings) -> Iterator[psycopg.Connection]:
    with psycopg.connect(settings.require_database_url(), autocommit=True) as connection:
        connection.execute(TRIGGER)
        yield connection


def submit_faulty(
    client: Client, store: psycopg.Connection, refused: list[str], states: list[str]
) -> tuple[dict[str, Handle], list[Handle]]:
    """Submit one request for each code, among many others; its rows are refused in these states."""
    inputs = np.arange(4 * (len(refused) + NEIGHBOURS), dtype=np.float32).reshape(-1, 4)
    handles = client.submit_many("double", {"x": inputs})
    step = len(handles) // len(refused)
    faulty = handles[::step][: len(refused)]
    rows = [(handle.id, code, states) for handle, code in zip(faulty, refused, strict=True)]
    store.cursor().executemany("INSERT INTO faults VALUES (%s, %s, %s)", rows)
    others = [handle for handle in handles if handle not in faulty]
    return dict(zip(refused, faulty, strict=True)), others


def check_others(others: list[Handle]) -> None:
    for handle in others:
        assert handle.result(timeout_s=60)["y"].shape == (1, 4)


def test_whatever_code_a_trigger_raises_for_a_row_the_row_fails_and_its_neighbours_succeed(
    settings: Settings, start_worker: StartWorker, store: psycopg.Connection, tmp_path: Path
) -> None:
    refused = codes()
    assert len({code[:2] for code in refused}) > 40
    with Client(settings) as client:
        faulty, others = submit_faulty(client, store, refused, ["succeeded"])
        with start_worker() as worker:
            check_others(others)
            for code, handle in faulty.items():
                with pytest.raises(InferenceFailed, match="can't be stored"):
                    handle.result(timeout_s=SUSPECT_S + 60)
                assert prediction_of(client, handle.id).state == "failed", code
            # And it goes on as before.
            assert client.predict("double", {"x": np.ones((1, 4), np.float32)}, timeout_s=10)["y"].shape == (1, 4)
            assert worker.poll() is None
    log = (tmp_path / "worker.log").read_text()
    assert "store away" not in log
    assert "Traceback" not in log


@pytest.mark.parametrize("code", ["P0001", "57014", "XX000", "42P05", "53100", "HR001"])
def test_a_row_that_is_refused_in_every_form_is_answered_and_becomes_a_dead_letter(
    settings: Settings, start_worker: StartWorker, store: psycopg.Connection, tmp_path: Path, code: str
) -> None:
    with Client(settings) as client, redis.Redis.from_url(settings.require_broker_url()) as broker:
        faulty, others = submit_faulty(client, store, [code], ["succeeded", "failed"])
        with start_worker() as worker:
            check_others(others)
            with pytest.raises(InferenceFailed, match="can't be stored"):
                faulty[code].result(timeout_s=SUSPECT_S + 60)
            assert worker.poll() is None
        assert client.get(faulty[code].id) is None
        (letter,) = dead_letters(broker)
        assert letter.reason.startswith("unstorable: ")
        assert not broker.keys("headrace:inflight:*")
    log = (tmp_path / "worker.log").read_text()
    assert log.count(f"request={faulty[code].id}") == 1, "one line says what became of it"
    assert log.count("others pass") <= 1


@pytest.mark.parametrize("asked", ["result", "status"])
def test_a_reply_without_a_row_that_got_lost_is_found(
    settings: Settings, start_worker: StartWorker, store: psycopg.Connection, asked: str
) -> None:
    with Client(settings) as client, redis.Redis.from_url(settings.require_broker_url()) as broker:
        faulty, _ = submit_faulty(client, store, ["P0001"], ["succeeded", "failed"])
        handle = faulty["P0001"]
        with start_worker():
            eventually(lambda: broker.exists(PLAIN.answer(handle.id)), SUSPECT_S + 60, "the worker keeps the answer")
        # Nobody has read a reply so far, and nobody will.
        broker.delete(*broker.keys("headrace:inbox:*"))
        if asked == "result":
            with pytest.raises(InferenceFailed, match="can't be stored"):
                handle.result(timeout_s=60)
        else:
            eventually(lambda: handle.status() == "failed", 30, "the status is known")


def test_a_row_that_ends_the_session_of_who_writes_it_is_found_too(
    settings: Settings, start_worker: StartWorker, store: psycopg.Connection
) -> None:
    store.execute(
        "CREATE FUNCTION deadly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF EXISTS (SELECT FROM faults WHERE id = NEW.id AND NEW.state = ANY(states)) THEN"
        " PERFORM pg_terminate_backend(pg_backend_pid()); END IF; RETURN NEW; END $$;"
        " CREATE OR REPLACE TRIGGER fault BEFORE INSERT ON predictions FOR EACH ROW EXECUTE FUNCTION deadly()"
    )
    with Client(settings) as client:
        faulty, others = submit_faulty(client, store, ["deadly"], ["succeeded"])
        with start_worker() as worker:
            check_others(others)
            with pytest.raises(InferenceFailed, match="can't be stored"):
                faulty["deadly"].result(timeout_s=90)
            assert worker.poll() is None


def test_a_row_that_is_taken_after_all_succeeds(
    settings: Settings, start_worker: StartWorker, store: psycopg.Connection
) -> None:
    with Client(settings) as client:
        # Refused as a lock would refuse it, which is waited for longest: a busy machine may take seconds until here.
        faulty, others = submit_faulty(client, store, ["55P03"], ["succeeded"])
        with start_worker():
            check_others(others)
            assert not faulty["55P03"].done()
            store.execute("TRUNCATE faults")
            assert faulty["55P03"].result(timeout_s=SUSPECT_S + 60)["y"].shape == (1, 4)
            assert (prediction_of(client, faulty["55P03"].id).batch_rows or 0) >= 1


def test_a_trigger_that_refuses_every_row_is_the_servers_fault_and_nothing_fails(
    settings: Settings, start_worker: StartWorker, store: psycopg.Connection, tmp_path: Path
) -> None:
    store.execute(
        "CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'closed'; END $$;"
        " CREATE TRIGGER never BEFORE INSERT ON predictions FOR EACH ROW EXECUTE FUNCTION never()"
    )
    log = tmp_path / "worker.log"
    with Client(settings) as client:
        handles = client.submit_many("double", {"x": np.ones((100, 4), np.float32)})
        with start_worker():
            eventually(lambda: "store away" in log.read_text(), 60, "the line that the store is away")
            time.sleep(SUSPECT_S + 1)
            assert not any(handle.done() for handle in handles)
            store.execute("DROP TRIGGER never ON predictions")
            check_others(handles)
    assert (log.read_text().count("store away"), log.read_text().count("store back")) == (1, 1)
