"""The identity of a server and its data, which changes when a broker may have lost data.

A restart changes the run id, a failover the replication id, a flush the epoch (`Keys.epoch`). None of them changes
otherwise, so as long as an identity stays the same, accepted messages are still there.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from redis.exceptions import ResponseError

from headrace.queueing.connection.connect import Command
from headrace.queueing.keys import Keys, keys_of

if TYPE_CHECKING:
    import redis
    import redis.asyncio


class ServerIdentity(NamedTuple):
    """The identity of a server and its data. run_id, replication_id: "" where the user may not run INFO."""

    epoch: str
    run_id: str
    replication_id: str


_Steps: TypeAlias = Generator[list[Command], list[Any], ServerIdentity]


def identity_steps(keys: Keys, fresh: str) -> _Steps:
    """Yield the commands of one round trip after the other and take their answers; return the identity.

    fresh: a random value for the epoch, in case there is none. It does no I/O itself, so that blocking and asyncio
    clients share it. Raises what the server answers to the reading of the epoch.
    """
    epoch, server, replication = yield [("GET", keys.epoch), ("INFO", "server"), ("INFO", "replication")]
    if epoch is None:
        # Refused by a replica or a server that is full; then there is none yet, which is an identity too.
        _, epoch = yield [("SET", keys.epoch, fresh, "NX"), ("GET", keys.epoch)]
    if isinstance(epoch, Exception):
        raise epoch
    return ServerIdentity(
        "" if epoch is None else epoch.decode("utf-8", "replace"),
        _field(server, "run_id"),
        _field(replication, "master_replid"),
    )


def _field(info: Any, name: str) -> str:
    if isinstance(info, ResponseError):
        return ""
    if isinstance(info, Exception):
        raise info
    return str(info.get(name, ""))


def read_identity(client: redis.Redis, fresh: str) -> ServerIdentity:
    """Return the identity of the server; one round trip. Raises the errors of `redis.exceptions`."""
    steps = identity_steps(keys_of(client), fresh)
    try:
        commands = next(steps)
        while True:
            with client.pipeline(transaction=False) as pipe:
                for command in commands:
                    pipe.execute_command(*command)  # type: ignore[no-untyped-call]
                answers = pipe.execute(raise_on_error=False)
            commands = steps.send(list(answers))
    except StopIteration as end:
        identity: ServerIdentity = end.value
        return identity


async def read_identity_async(client: redis.asyncio.Redis, fresh: str) -> ServerIdentity:
    """Return the identity of the server; see `read_identity`."""
    steps = identity_steps(keys_of(client), fresh)
    try:
        commands = next(steps)
        while True:
            async with client.pipeline(transaction=False) as pipe:
                for command in commands:
                    pipe.execute_command(*command)
                answers = await pipe.execute(raise_on_error=False)
            commands = steps.send(list(answers))
    except StopIteration as end:
        identity: ServerIdentity = end.value
        return identity
