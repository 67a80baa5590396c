"""The metadata that all tables belong to, and the types that they share."""

from __future__ import annotations

import datetime as dt
from typing import Final

import sqlalchemy as sa

metadata = sa.MetaData()


class Utc(sa.TypeDecorator[dt.datetime]):
    """A time that is read as UTC, whatever the zone of the session is."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: dt.datetime | None, dialect: sa.Dialect) -> dt.datetime | None:  # noqa: ARG002
        """Return the same moment in UTC."""
        return None if value is None else value.astimezone(dt.UTC)


#: The type of all times.
TIME: Final = Utc()
