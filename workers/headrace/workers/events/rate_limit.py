"""A token bucket, so that events never flood their readers."""

from __future__ import annotations


class RateLimit:
    """A token bucket: `rate_per_s` on average, and at most one second's worth (at least 1, if any) at once."""

    def __init__(self, rate_per_s: float) -> None:
        """Start full. rate_per_s: 0 allows nothing."""
        self._rate_per_s = rate_per_s
        self._burst = max(1.0, rate_per_s) if rate_per_s > 0 else 0.0
        self._tokens = self._burst
        self._filled_at = 0.0

    def take(self, wanted: int, now: float) -> int:
        """Return how many of `wanted` are allowed at time `now` (monotonic seconds)."""
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._filled_at) * self._rate_per_s)
        self._filled_at = now
        allowed = min(wanted, int(self._tokens))
        self._tokens -= allowed
        return allowed
