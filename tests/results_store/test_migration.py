from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from headrace.contracts.errors import ConfigurationError, StoreUnavailable
from headrace.contracts.jobs import ENDED, JobState
from headrace.results_store import check_schema, current_revision, migrate
from headrace.results_store.database.address import create_engine
from headrace.results_store.migration import alembic_config
from headrace.results_store.schema import REVISIONS, VERSION_TABLE, metadata
from headrace.results_store.writing.partitions import ensure_partitions, list_partitions


@pytest.fixture
def engine(store_url: str) -> Iterator[sa.Engine]:
    engine = create_engine(store_url)
    yield engine
    engine.dispose()


def test_an_empty_database_becomes_one_of_this_release(database_url: str) -> None:
    assert current_revision(database_url) is None
    migrate(database_url)
    assert current_revision(database_url) == REVISIONS[-1]
    check_schema(database_url)
    with psycopg.connect(database_url) as connection:
        assert len(list_partitions(connection)) == 18


def test_the_migrated_schema_equals_the_metadata(engine: sa.Engine) -> None:
    def ours(name: str | None, kind: str, _parents: object) -> bool:
        return kind != "table" or name in metadata.tables

    with engine.connect() as connection:
        options = {"include_name": ours, "version_table": VERSION_TABLE, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []


def test_the_checks_and_conditions_of_the_metadata_are_those_of_the_database(engine: sa.Engine) -> None:
    inspector = sa.inspect(engine)
    (check,) = inspector.get_check_constraints("predictions")
    assert check["name"] == "predictions_state_check"
    assert all(f"'{state}'" in check["sqltext"] for state in ("succeeded", "failed", "expired", "cancelled"))
    conditions = {
        index["name"]: index.get("dialect_options", {}).get("postgresql_where")
        for index in inspector.get_indexes("predictions")
    }
    assert conditions == {
        "predictions_job": "(job_id IS NOT NULL)",
        "predictions_model_finished_at": None,
        "predictions_unsuccessful": "(state <> 'succeeded'::text)",
    }


def test_the_checks_and_conditions_of_the_ledger_are_those_of_the_metadata(engine: sa.Engine) -> None:
    inspector = sa.inspect(engine)
    (check,) = inspector.get_check_constraints("headrace_jobs")
    assert check["name"] == "headrace_jobs_state_check"
    assert all(f"'{state}'" in check["sqltext"] for state in JobState)
    conditions = {
        str(index["name"]): index.get("dialect_options", {}).get("postgresql_where")
        for table in ("headrace_jobs", "headrace_job_shards", "headrace_job_errors")
        for index in inspector.get_indexes(table)
        if not index.get("duplicates_constraint")
    }
    live = conditions.pop("headrace_jobs_live")
    assert live is not None
    assert all(f"'{state}'" in live for state in set(JobState) - ENDED)
    assert conditions == {
        "headrace_job_shards_pending": "(state = 0)",
        "headrace_job_shards_running": "(state = 1)",
        "headrace_job_shards_done": "(state = 2)",
        "headrace_job_shards_finished_at": "(state = 2)",
        "headrace_job_errors_shard": None,
    }


def test_a_database_of_the_last_release_keeps_its_data(database_url: str) -> None:
    engine = create_engine(database_url, pool_size=1)
    with engine.connect() as connection:
        connection.execution_options(isolation_level="READ COMMITTED")
        with connection.begin():
            command.upgrade(alembic_config(connection), "0003")
    engine.dispose()
    with psycopg.connect(database_url, autocommit=True) as store:
        ensure_partitions(store)
        store.execute(
            "INSERT INTO predictions (id, finished_at, attempts, cached, state, model, version)"
            " VALUES (gen_random_uuid(), now(), 1, false, 'succeeded', 'digits', '1')"
        )
        store.execute("INSERT INTO headrace_task_results (key, value) VALUES ('k', 'v')")
        migrate(database_url)
        assert current_revision(database_url) == REVISIONS[-1]
        for table, rows in (
            ("predictions", 1),
            ("headrace_task_results", 1),
            ("headrace_relays", 1),
            ("headrace_jobs", 0),
        ):
            assert store.execute(f"SELECT count(*) FROM {table}").fetchone() == (rows,)


def test_the_revisions_this_release_knows_are_those_of_its_scripts(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        scripts = ScriptDirectory.from_config(alembic_config(connection))
    assert tuple(reversed([script.revision for script in scripts.walk_revisions()])) == REVISIONS


def test_migrating_again_changes_nothing(store_url: str, store: psycopg.Connection) -> None:
    before = list_partitions(store)
    migrate(store_url)
    assert list_partitions(store) == before


def test_several_migrators_at_once_all_succeed(database_url: str) -> None:
    failures: list[BaseException] = []
    start = threading.Barrier(2)

    def run() -> None:
        start.wait()
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys; from headrace.results_store import migrate; migrate(sys.argv[1])",
                database_url,
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            failures.append(RuntimeError(done.stderr))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    check_schema(database_url)


def test_a_database_without_the_schema_names_the_command_that_makes_it(database_url: str) -> None:
    with pytest.raises(ConfigurationError, match="headrace store migrate"):
        check_schema(database_url)


def test_an_older_schema_names_the_command_that_upgrades_it(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.results_store.migration.REVISIONS", (*REVISIONS, "9999"))
    with pytest.raises(ConfigurationError, match="needs 9999; run `headrace store migrate`"):
        check_schema(store_url)


def test_a_newer_schema_is_left_alone_and_asks_for_a_newer_release(store_url: str, store: psycopg.Connection) -> None:
    store.execute(f"UPDATE {VERSION_TABLE} SET version_num = 'from the future'")
    for work in (check_schema, migrate):
        with pytest.raises(ConfigurationError, match="upgrade headrace"):
            work(store_url)
    assert current_revision(store_url) == "from the future"


def test_a_server_that_is_away_is_store_unavailable() -> None:
    for work in (migrate, check_schema, current_revision):
        with pytest.raises(StoreUnavailable, match="HEADRACE_DATABASE_URL"):
            work("postgresql://nobody:hunter2@127.0.0.1:1/none")
