"""Rows that Postgres refuses, by a trigger of the application's own, each with an SQLSTATE of its choice.

Some rows are refused while they hold the id that the client chose, so that a reduced one is taken; others whatever
they hold. The SQLSTATE is part of the id.
"""

from __future__ import annotations

import random
import time
from typing import Final

import psycopg

from headrace.contracts.ids import uuid7

#: One or more of each class that a statement can end with, whether or not it would pass by itself elsewhere. Not 55P03:
#: a lock is waited for, for a minute and a half, which would be most of a short run.
SQLSTATES: Final = (
    "01000", "02000", "03000", "08006", "09000", "0A000", "0F000", "0L000", "0P000", "20000", "21000", "22003", "22P05",
    "23502", "23505", "23514", "24000", "25006", "25P02", "26000", "27000", "28000", "2F000", "34000", "38000", "39000",
    "3B000", "3D000", "3F000", "40001", "40P01", "42501", "42P01", "42P05", "44000", "53100", "53200", "53300", "53400",
    "54000", "55000", "57014", "57P01", "57P03", "58000", "58030", "72000", "F0000", "HV000", "P0001", "XX000",
    "XX001", "XX002",
)  # fmt: skip

_PREFIX: Final = "refused/"

#: How the last eight bytes of an id that no row may have begin; the five characters of the SQLSTATE follow.
_MARK: Final = "-b10c-fe"

_TRIGGER: Final = f"""
    CREATE FUNCTION chaos_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE code text := split_part(NEW.foreign_id, '/', 2);
    BEGIN
        IF NEW.id::text LIKE '%{_MARK}%' THEN
            code := convert_from(decode(right(NEW.id::text, 10), 'hex'), 'UTF8');
        END IF;
        RAISE EXCEPTION 'refused on purpose' USING ERRCODE = code;
    END $$;
    CREATE TRIGGER chaos_refuse BEFORE INSERT ON predictions FOR EACH ROW
    WHEN (NEW.foreign_id LIKE '{_PREFIX}%' OR NEW.id::text ~ '{_MARK}(3[0-9]|4[1-9a-f]|5[0-9a]){{5}}$')
    EXECUTE FUNCTION chaos_refuse()
"""


def refuse_some_rows(database_url: str) -> None:
    """Make the trigger."""
    with psycopg.connect(database_url) as connection:
        connection.execute(_TRIGGER)


def refused_id(rng: random.Random, name: str) -> str:
    """Make an id whose row is refused, wholly or partly. name: unique."""
    code = rng.choice(SQLSTATES)
    if rng.random() < 0.5:
        return f"{_PREFIX}{code}/{name}"
    return str(uuid7(time.time_ns(), bytes(8)))[: -len(_MARK) - 10] + _MARK + code.encode().hex()
