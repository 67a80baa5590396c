"""The result of a query on Postgres as an input: staged as Parquet in one snapshot, then a folder of files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.bulk.storage.base import AlreadyExists, InputMissing, Storage
from headrace.bulk.storage.uris import join
from headrace.contracts.errors import HeadraceError, InvalidRequest
from headrace.results_store.database.address import connect
from headrace.results_store.database.errors import driver_errors_translated

#: What an input begins with that is a query.
PREFIX: Final = "sql:"

#: Rows of a row group, and of a staged file: one that is not too large for a store that takes it in one piece.
GROUP_ROWS: Final = 20_000
FILE_ROWS: Final = 500_000

#: Says that all is staged. Readers of the folder pass over it.
_DONE: Final = "_STAGED"

#: Postgres types by their OID; what is not here is staged as text.
_TYPES: Final[dict[int, pa.DataType]] = {
    16: pa.bool_(),
    17: pa.binary(),
    20: pa.int64(),
    21: pa.int16(),
    23: pa.int32(),
    700: pa.float32(),
    701: pa.float64(),
    1082: pa.date32(),
    1114: pa.timestamp("us"),
    1184: pa.timestamp("us", "UTC"),
    1700: pa.float64(),
    1000: pa.list_(pa.bool_()),
    1005: pa.list_(pa.int16()),
    1007: pa.list_(pa.int32()),
    1009: pa.list_(pa.string()),
    1016: pa.list_(pa.int64()),
    1021: pa.list_(pa.float32()),
    1022: pa.list_(pa.float64()),
    1231: pa.list_(pa.float64()),
}

#: OIDs whose values psycopg gives as something that Arrow does not take for the type above.
_NUMERIC: Final = (1700, 1231)

#: A query may be at work for long before its first row.
_ANSWER_S: Final = 3600.0


class QueryFailed(HeadraceError):
    """The query of the input failed; run it in psql to see why."""


def is_query(uri: str) -> bool:
    """Return whether an input is a query."""
    return uri.startswith(PREFIX)


def stage(uri: str, database_url: str, storage: Storage, folder: str, scratch: Path) -> str:
    """Write the result of a query as Parquet files, unless that was done before; return the folder.

    uri: `sql:QUERY`. folder: URI of a folder of its own. All rows are of one snapshot, in the order of the query.
    Raises QueryFailed, InvalidRequest for a query with columns of the same name, StoreUnavailable.
    """
    done = join(folder, _DONE)
    try:
        storage.stat(done)
    except InputMissing:
        _remove_part_of(storage, folder)
        _write(uri.removeprefix(PREFIX), database_url, storage, folder, scratch)
        with suppress(AlreadyExists):
            storage.put(done, b"")
    return folder


def _remove_part_of(storage: Storage, folder: str) -> None:
    """Remove what an attempt left that did not end: it was of another snapshot."""
    with suppress(InputMissing):
        for page in storage.pages(folder):
            for info in page:
                storage.delete(info.uri)


def _write(query: str, database_url: str, storage: Storage, folder: str, scratch: Path) -> None:
    scratch.mkdir(parents=True, exist_ok=True)
    local = scratch / "query.parquet"
    with driver_errors_translated(), connect(database_url, _ANSWER_S) as connection:
        try:
            with connection.transaction(), connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                schema, oids = _columns_of(cursor, query)
                number, rows, writer = 0, 0, pq.ParquetWriter(local, schema)
                for table in _tables(cursor, query, schema, oids):
                    writer.write_table(table)
                    rows += table.num_rows
                    if rows >= FILE_ROWS:
                        writer.close()
                        storage.publish(local, join(folder, f"rows-{number:06}.parquet"))
                        number, rows, writer = number + 1, 0, pq.ParquetWriter(local, schema)
                writer.close()
                storage.publish(local, join(folder, f"rows-{number:06}.parquet"))
        except (psycopg.ProgrammingError, psycopg.DataError, psycopg.errors.ReadOnlySqlTransaction) as exc:
            raise QueryFailed(f"the query of the input failed: {str(exc).splitlines()[0]}") from exc
        finally:
            local.unlink(missing_ok=True)


def _columns_of(cursor: psycopg.Cursor[tuple[Any, ...]], query: str) -> tuple[pa.Schema, list[int]]:
    cursor.execute(f"SELECT * FROM ({_bare(query)}\n) AS input LIMIT 0".encode())  # noqa: S608 — it is the user's query
    described = cursor.description or []
    names = [column.name for column in described]
    for name in names:
        if names.count(name) > 1:
            raise InvalidRequest(f"the query has two columns named {name!r}; give each a name of its own with AS")
    oids = [column.type_code for column in described]
    fields = [pa.field(name, _TYPES.get(oid, pa.string())) for name, oid in zip(names, oids, strict=True)]
    return pa.schema(fields), oids


def _tables(
    cursor: psycopg.Cursor[tuple[Any, ...]], query: str, schema: pa.Schema, oids: Sequence[int]
) -> Iterator[pa.Table]:
    columns = ", ".join(
        name if oid in _TYPES and oid not in _NUMERIC else f"{name}::{'float8[]' if oid == _NUMERIC[1] else _cast(oid)}"
        for name, oid in zip((_quoted(field.name) for field in schema), oids, strict=True)
    )
    statement = f"COPY (SELECT {columns} FROM ({_bare(query)}\n) AS input) TO STDOUT (FORMAT binary)"  # noqa: S608
    with cursor.copy(statement.encode()) as copy:
        copy.set_types([_type_of(oid) for oid in oids])
        batch: list[tuple[Any, ...]] = []
        for row in copy.rows():
            batch.append(row)
            if len(batch) == GROUP_ROWS:
                yield _table(batch, schema)
                batch = []
        if batch:
            yield _table(batch, schema)


def _cast(oid: int) -> str:
    return "float8" if oid in _NUMERIC else "text"


def _type_of(oid: int) -> int:
    """Return the OID of a column as it is copied."""
    if oid == _NUMERIC[0]:
        return 701
    if oid == _NUMERIC[1]:
        return 1022
    return oid if oid in _TYPES else 25


def _table(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _bare(query: str) -> str:
    return query.strip().rstrip(";")
