"""A write that changes nothing, by which a server shows whether it takes writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.queueing.keys import keys_of
from headrace.queueing.lua import scripts

if TYPE_CHECKING:
    from redis import Redis


def check_writes(client: Redis) -> None:
    """Raise the server's error for a write that changes nothing: one that refuses to work may still answer pings.

    A server whose memory is full passes, for consumers can work with it.
    """
    client.execute_command("EVAL", scripts.rendered(scripts.PROBE, keys_of(client)), 0)  # type: ignore[no-untyped-call]
