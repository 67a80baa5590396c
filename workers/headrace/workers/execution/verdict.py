"""The verdict on a batch: how each of its requests ended."""

from __future__ import annotations

import msgspec

from headrace.workers.request import Deferred, InferenceRequest, Outcome, Run


class Verdict(msgspec.Struct):
    """How the requests of a batch ended, as the layers pass it outwards.

    transient_failures: requests whose failure may pass, each with its cause. too_many_rows: the fewest rows of a run
    that needed more memory than there is, or that a server refused as too many without saying how many it takes; None
    if none did. most_rows: that the model's server takes, as it said; None if it said nothing. deferred: requests that
    are tried again later.
    rows: how many ran. started_at: seconds since 1970. seconds: duration of the run. dependence: how a request's
    outputs were found to depend on those beside it; "" if they weren't.
    """

    runs: list[Run]
    outcomes: list[Outcome]
    transient_failures: list[tuple[InferenceRequest, Exception]]
    too_many_rows: int | None = None
    most_rows: int | None = None
    deferred: list[Deferred] = []
    rows: int = 0
    started_at: float = 0.0
    seconds: float = 0.0
    dependence: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether no request is left to store or to defer, as when all were cancelled before the run."""
        return not (self.runs or self.outcomes or self.deferred)

    @property
    def is_clean(self) -> bool:
        """Whether all requests succeeded at the first attempt."""
        went_through = self.too_many_rows is None and self.most_rows is None
        return went_through and not self.outcomes and not self.transient_failures
