"""Queries as inputs: staged once, in one snapshot, with the types of their columns."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.bulk.sources import query
from headrace.bulk.sources.query import QueryFailed, stage
from headrace.bulk.storage.local.files import LocalStorage
from headrace.bulk.storage.roots import Roots
from headrace.contracts.errors import InvalidRequest

COLUMNS = """
    SELECT g::int2 AS small, g::int8 AS large, g / 2.0::float4 AS single, g::numeric AS number, g % 2 = 0 AS even,
           'row ' || g AS "a text", ARRAY[g, g + 1]::float4[] AS vector, decode('00ff', 'hex') AS raw,
           '2026-01-02T03:04:05Z'::timestamptz AS at, gen_random_uuid() AS id, NULL::int4 AS nothing
    FROM generate_series(1, 5) g
"""


def staged(text: str, database_url: str, folder: Path) -> pa.Table:
    storage = LocalStorage(Roots((), local_stack=True))
    where = stage(f"sql:{text}", database_url, storage, str(folder / "_input"), folder / "scratch")
    return pq.read_table(where)


def test_columns_keep_their_types(database_url: str, tmp_path: Path) -> None:
    table = staged(COLUMNS, database_url, tmp_path)
    kinds = {field.name: str(field.type) for field in table.schema}
    assert kinds == {
        "small": "int16",
        "large": "int64",
        "single": "double",
        "number": "double",
        "even": "bool",
        "a text": "string",
        "vector": "list<element: float>",
        "raw": "binary",
        "at": "timestamp[us, tz=UTC]",
        "id": "string",
        "nothing": "int32",
    }
    row = table.slice(2, 1).to_pylist()[0]
    assert (row["small"], row["single"], row["number"], row["a text"], row["raw"]) == (3, 1.5, 3.0, "row 3", b"\0\xff")
    assert row["vector"] == [3.0, 4.0]
    assert row["nothing"] is None


def test_a_query_is_staged_once(database_url: str, tmp_path: Path) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE things AS SELECT generate_series(1, 3) AS n")
        before = staged("SELECT n FROM things ORDER BY n", database_url, tmp_path)
        connection.execute("INSERT INTO things VALUES (4)")
    assert staged("SELECT n FROM things ORDER BY n", database_url, tmp_path).equals(before)


def test_what_an_attempt_left_that_did_not_end_is_staged_anew(database_url: str, tmp_path: Path) -> None:
    staged("SELECT 1 AS n", database_url, tmp_path)
    (tmp_path / "_input" / "_STAGED").unlink()
    assert staged("SELECT 2 AS n", database_url, tmp_path).to_pylist() == [{"n": 2}]


def test_large_results_are_several_files_in_order(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query, "GROUP_ROWS", 10)
    monkeypatch.setattr(query, "FILE_ROWS", 20)
    table = staged("SELECT generate_series(0, 54) AS n;", database_url, tmp_path)
    assert table.column("n").to_pylist() == list(range(55))
    assert len(list((tmp_path / "_input").glob("rows-*.parquet"))) == 3


def test_no_rows_are_a_file_without_rows(database_url: str, tmp_path: Path) -> None:
    assert staged("SELECT 1 AS n WHERE false", database_url, tmp_path).num_rows == 0


@pytest.mark.parametrize("text", ["SELECT nonsense", "SELEC 1", "SELECT 1; SELECT 2", "SELECT 1 / 0 AS n"])
def test_a_query_that_fails_is_said_in_one_line(text: str, database_url: str, tmp_path: Path) -> None:
    with pytest.raises(QueryFailed) as raised:
        staged(text, database_url, tmp_path)
    assert "\n" not in raised.value.message


def test_a_query_may_not_write(database_url: str, tmp_path: Path) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (n int)")
        connection.execute(
            "CREATE FUNCTION sneaky() RETURNS int LANGUAGE sql AS 'INSERT INTO kept VALUES (1) RETURNING n'"
        )
        with pytest.raises(QueryFailed):
            staged("SELECT sneaky() AS n", database_url, tmp_path)
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_columns_of_the_same_name_are_refused_by_name(database_url: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="'n'"):
        staged("SELECT 1 AS n, 2 AS n", database_url, tmp_path)
