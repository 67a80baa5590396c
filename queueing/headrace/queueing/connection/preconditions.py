"""The settings that a server needs so that it loses no message by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from headrace.queueing.connection.connect import refusal_line

if TYPE_CHECKING:
    from redis import Redis


def broken_preconditions(client: Redis) -> list[str]:
    """Return a line for each setting of the server with which it may lose accepted messages; one round trip.

    A setting that the server doesn't reveal is not complained about. Raises the errors of `redis.exceptions`.
    """
    with client.pipeline(transaction=False) as pipe:
        pipe.info("memory")
        pipe.info("persistence")
        answers = pipe.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, ResponseError):
            return [f"the server's settings were not checked, for it refuses INFO ({refusal_line(answer)})"]
        if isinstance(answer, Exception):
            raise answer
    memory, persistence = answers
    return complaints({**memory, **persistence})


def complaints(info: dict[str, Any]) -> list[str]:
    """Judge the answer to INFO."""
    lines = []
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        limit = "is limited" if info.get("maxmemory") else "has no limit yet"
        lines.append(
            f"maxmemory-policy is {policy}: when memory is full, which {limit}, the server drops queues and what "
            f"workers hold; set it to noeviction"
        )
    if info.get("aof_enabled", 1) == 0:
        lines.append(
            "the append-only file is off: a restart or a crash of the server loses requests; set appendonly to yes"
        )
    return lines
