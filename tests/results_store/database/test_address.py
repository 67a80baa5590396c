from __future__ import annotations

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from headrace.contracts.errors import ConfigurationError, StoreUnavailable
from headrace.results_store import StoreReader, StoreWriter
from headrace.results_store.database.address import connection_info, create_engine
from headrace.results_store.database.errors import StoreBusy, translate


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_every_usual_scheme_is_read(scheme: str) -> None:
    assert conninfo_to_dict(connection_info(f"{scheme}://ann:x@db.example:5433/scores"))["host"] == "db.example"


def test_what_the_url_says_wins_over_our_defaults() -> None:
    found = conninfo_to_dict(
        connection_info("postgresql://ann@/scores?host=/run/pg&sslmode=require&connect_timeout=3&application_name=me")
    )
    assert (found["host"], found["sslmode"], found["connect_timeout"]) == ("/run/pg", "require", "3")
    assert found["application_name"] == "me"
    assert found["tcp_user_timeout"] == "8000"


@pytest.mark.parametrize("url", ["mysql://ann:hunter2@db/x", "ann:hunter2@db", ""])
def test_another_kind_of_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="postgresql://") as caught:
        StoreWriter(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["postgresql://ann:hunter2%zz@db/x", "postgresql://ann:hunter2@db/x?nonsense=1"])
def test_a_malformed_url_is_refused_without_its_password(url: str) -> None:
    for make in (StoreWriter, StoreReader):
        with pytest.raises(ConfigurationError) as caught:
            make(url)
        assert "hunter2" not in repr(caught.value)
        assert caught.value.__cause__ is None


def test_an_unreachable_server_is_named_without_the_password() -> None:
    with StoreReader("postgresql://ann:hunter2@127.0.0.1:1/x") as reader:
        with pytest.raises(StoreUnavailable, match="can't be reached") as caught:
            reader.get("anything")
        assert "hunter2" not in repr(caught.value)
        assert "hunter2" not in repr(caught.value.__cause__)


def test_an_engine_does_not_show_the_password() -> None:
    engine = create_engine("postgresql://ann:hunter2@127.0.0.1:1/x")
    assert "hunter2" not in repr(engine)
    engine.dispose()


def test_a_missing_privilege_and_a_missing_table_have_different_remedies() -> None:
    assert "grant" in translate(psycopg.errors.InsufficientPrivilege("permission denied for table predictions")).message
    assert "headrace store migrate" in translate(psycopg.errors.UndefinedTable("no such relation")).message
    assert isinstance(translate(psycopg.errors.DiskFull("no space left")), StoreUnavailable)


@pytest.mark.parametrize(
    ("words", "kind", "remedy"),
    [
        ("sorry, too many clients already", StoreBusy, "raise its max_connections"),
        ("remaining connection slots are reserved for roles with the SUPERUSER attribute", StoreBusy, "pooler"),
        ('too many connections for role "ann"', StoreBusy, "pooler"),
        ("no more connections allowed (max_client_conn)", StoreBusy, "pooler"),
        ("the database system is starting up", StoreBusy, "wait"),
        ("the database system is not yet accepting connections", StoreBusy, "wait"),
        ('database "scores" is not currently accepting connections', StoreUnavailable, "check HEADRACE_DATABASE_URL"),
        ('password authentication failed for user "ann"', StoreUnavailable, "check HEADRACE_DATABASE_URL"),
    ],
)
def test_a_refused_connection_is_told_from_one_that_is_not_reached(words: str, kind: type, remedy: str) -> None:
    error = translate(psycopg.OperationalError(f'connection to server at "db", port 5432 failed: FATAL:  {words}\n'))
    assert type(error) is kind
    assert error.message.startswith(f"Postgres refuses the connection: {words}; ")
    assert remedy in error.message
