"""The identity of a part: the job and slice that it is of, and the rows that it accounts for."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class PartIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """The origin of a part and the rows that it accounts for: rows_ok (those in it) + rows_bad + rows_skipped.

    key: of the job, in hex. file_no, row_start: of the slice. stop_file, stop_row: the first row that the part does not
    account for, which is the end of the slice unless the attempt was cut short; -1: the writer didn't say.
    """

    key: str
    job: str
    shard: int
    file_no: int
    row_start: int
    rows_ok: int
    rows_bad: int = 0
    rows_skipped: int = 0
    stop_file: int = -1
    stop_row: int = -1
    model: str = ""
    version: str = ""
    sha256: str = ""

    @property
    def rows(self) -> int:
        """Return how many rows of the slice the part accounts for."""
        return self.rows_ok + self.rows_bad + self.rows_skipped

    def metadata(self) -> dict[str, str]:
        """Return the key-values of a footer."""
        return {f"headrace.{name}": str(value) for name, value in msgspec.to_builtins(self).items()}

    def same_slice(self, other: PartIdentity) -> bool:
        """Return whether two parts are attempts at one shard: of the same job, with the same first row."""
        return (self.key, self.job, self.file_no, self.row_start) == (
            other.key,
            other.job,
            other.file_no,
            other.row_start,
        )


def identity_of(metadata: Mapping[str, str]) -> PartIdentity | None:
    """Return what the key-values of a footer say, None if it isn't from a job."""
    named = {name.removeprefix("headrace."): value for name, value in metadata.items() if name.startswith("headrace.")}
    try:
        return msgspec.convert(named, PartIdentity, strict=False)
    except msgspec.ValidationError:
        return None
