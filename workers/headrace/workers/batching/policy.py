"""The limits within which batches form."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

from headrace.contracts import ConfigurationError


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """The size limits of a batch, and how long a request may wait for others.

    max_rows: most rows in one batch; a single request with more forms a batch of its own.
    max_wait_s: a batch never waits for company longer than this after the arrival of its oldest request.
    row_sizes: if given, the model runs only with these row counts (rising); batches are padded up to one of them.
    Raises ConfigurationError for impossible values.
    """

    max_rows: int = 64
    max_wait_s: float = 0.002
    row_sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if self.max_rows < 1:
            raise ConfigurationError(f"max_rows is {self.max_rows}; a batch needs room for at least 1 row")
        if not 0 <= self.max_wait_s < float("inf"):
            raise ConfigurationError(f"max_wait_s is {self.max_wait_s}; it must be at least 0 seconds, and finite")
        sizes = self.row_sizes
        if list(sizes) != sorted(set(sizes)) or any(size < 1 for size in sizes):
            raise ConfigurationError(f"row_sizes are {list(sizes)}; they must be rising whole numbers of at least 1")
        if sizes and sizes[-1] < self.max_rows:
            raise ConfigurationError(
                f"the largest of row_sizes is {sizes[-1]}, below max_rows {self.max_rows}; add a size or lower max_rows"
            )

    def padded(self, rows: int) -> int:
        """Return the rows to run for `rows` rows: the smallest size that holds them.

        Rows beyond the largest size are given back unchanged: such a run is split first, and each part is padded.
        """
        sizes = self.row_sizes
        if not sizes or rows > sizes[-1]:
            return rows
        return sizes[bisect_left(sizes, rows)]

    def capped(self, rows: int) -> int:
        """Return the most rows of a batch when no run may exceed `rows` rows, padding included.

        At least 1; at least the smallest size, for a model with fixed sizes can't run less.
        """
        if rows >= self.max_rows:
            return self.max_rows
        sizes = self.row_sizes
        if not sizes:
            return max(rows, 1)
        return min(sizes[max(bisect_right(sizes, rows) - 1, 0)], self.max_rows)
