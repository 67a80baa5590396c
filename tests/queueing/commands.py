"""Commands of Redis whose types redis-py leaves open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis


def run_command(client: redis.Redis, *words: str | bytes | float) -> Any:
    """Run a command, and return what the server answers."""
    execute: Callable[..., Any] = client.execute_command
    return execute(*words)


def score_of(client: redis.Redis, key: str, member: str) -> float:
    """Return the score of a member that is in a sorted set."""
    found = client.zscore(key, member)
    assert found is not None
    return found
