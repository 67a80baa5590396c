"""Submission of encoded messages: one Lua call checks the queue's limit, pushes a batch and rings the doorbell.

The limit is strict however many producers there are, because the server counts and pushes in one step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Sequence
from typing import Any, Final, TypeAlias

import redis
import redis.asyncio
from redis.exceptions import NoScriptError

from headrace.contracts.jobs import Ticket, score_queue
from headrace.contracts.tickets import encode_ticket
from headrace.queueing.keys import PLAIN, Keys, keys_of
from headrace.queueing.lists import PRIORITY_STEPS, priority_step
from headrace.queueing.lua import scripts

_TEXT: Final = scripts.rendered(scripts.SUBMIT, PLAIN)
_SHA: Final = hashlib.sha1(_TEXT.encode(), usedforsecurity=False).hexdigest()

#: Messages in one Lua call. Redis runs nothing else meanwhile: 128 small messages take about 0.1 ms.
CHUNK_MESSAGES: Final = 128

#: Lua calls in one round trip (and one MULTI, so that the accepted messages are always a prefix).
PIPELINE_CHUNKS: Final = 8

#: Bytes after which a chunk or a pipeline is closed early (1 MiB, 8 MiB), so that large payloads don't pile up.
CHUNK_BYTES: Final = 1 << 20
PIPELINE_BYTES: Final = 8 << 20

_Command: TypeAlias = tuple[str | bytes | int, ...]
_Steps: TypeAlias = Generator[list[_Command], list[Any], int]


def _chunks(messages: Sequence[bytes]) -> Generator[Sequence[bytes], None, None]:
    """Cut messages into runs of at most CHUNK_MESSAGES and about CHUNK_BYTES."""
    start, size = 0, 0
    for at, message in enumerate(messages):
        if at > start and (at - start == CHUNK_MESSAGES or size + len(message) > CHUNK_BYTES):
            yield messages[start:at]
            start, size = at, 0
        size += len(message)
    if start < len(messages):
        yield messages[start:]


def _pipelines(messages: Sequence[bytes]) -> Generator[list[Sequence[bytes]], None, None]:
    """Group the chunks into runs of at most PIPELINE_CHUNKS and about PIPELINE_BYTES."""
    group: list[Sequence[bytes]] = []
    size = 0
    for chunk in _chunks(messages):
        group.append(chunk)
        size += sum(map(len, chunk))
        if len(group) == PIPELINE_CHUNKS or size >= PIPELINE_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _submit_steps(keys: Keys, queue: str, priority: int, messages: Sequence[bytes], limit: int) -> _Steps:
    """Yield the commands to send, one round trip a step, and take the answers; return the number accepted.

    It does no I/O itself, so that the blocking and the asyncio submitter share it.
    """
    names = (
        keys.queue_list(queue, priority_step(priority)),
        keys.doorbell(queue),
        *(keys.queue_list(queue, step) for step in PRIORITY_STEPS),
    )
    accepted = 0
    for group in _pipelines(messages):
        calls: list[_Command] = [("EVALSHA", _SHA, len(names), *names, limit, *chunk) for chunk in group]
        answers = yield calls
        if isinstance(answers[0], NoScriptError):
            # The server was restarted or flushed. MULTI makes it all or none: no call of this step has run.
            yield [("SCRIPT LOAD", _TEXT)]
            answers = yield calls
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        taken = sum(answers)
        accepted += taken
        if taken < sum(map(len, group)):
            break
    return accepted


class Submitter:
    """A submitter over a blocking client; usable from several threads."""

    def __init__(self, client: redis.Redis) -> None:
        """client: stays the caller's to close. Errors of the server or the connection are redis-py's."""
        self._client = client
        self._keys = keys_of(client)

    def submit(self, queue: str, priority: int, messages: Sequence[bytes], limit: int = 0) -> int:
        """Put messages on a queue, in order; return how many were accepted, always a prefix of `messages`.

        priority: 0 to 9, of all these messages. limit: most messages waiting in the queue over all priorities;
        0 is no limit. One round trip for up to CHUNK_MESSAGES * PIPELINE_CHUNKS messages.
        """
        steps = _submit_steps(self._keys, queue, priority, messages, limit)
        try:
            commands = next(steps)
            while True:
                commands = steps.send(self._run(commands))
        except StopIteration as end:
            return int(end.value)

    def _run(self, commands: list[_Command]) -> list[Any]:
        if len(commands) == 1:
            try:
                return [self._client.execute_command(*commands[0])]  # type: ignore[no-untyped-call]
            except NoScriptError as missing:
                return [missing]
        with self._client.pipeline(transaction=True) as pipe:
            for command in commands:
                pipe.execute_command(*command)  # type: ignore[no-untyped-call]
            return list(pipe.execute(raise_on_error=False))


class AsyncSubmitter:
    """A submitter over an asyncio client; see Submitter."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        """client: stays the caller's to close. Errors of the server or the connection are redis-py's."""
        self._client = client
        self._keys = keys_of(client)

    async def submit(self, queue: str, priority: int, messages: Sequence[bytes], limit: int = 0) -> int:
        """Put messages on a queue; see Submitter.submit."""
        steps = _submit_steps(self._keys, queue, priority, messages, limit)
        try:
            commands = next(steps)
            while True:
                commands = steps.send(await self._run(commands))
        except StopIteration as end:
            return int(end.value)

    async def _run(self, commands: list[_Command]) -> list[Any]:
        if len(commands) == 1:
            try:
                return [await self._client.execute_command(*commands[0])]  # type: ignore[no-untyped-call]
            except NoScriptError as missing:
                return [missing]
        async with self._client.pipeline(transaction=True) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            return list(await pipe.execute(raise_on_error=False))


def send_tickets(client: redis.Redis, model: str, tickets: Iterable[tuple[Ticket, str]], origin: str = "") -> int:
    """Send tickets of a model's jobs, each with a line for Flower; return how many. No limit holds them up.

    Errors of the server or the connection are redis-py's.
    """
    messages = [encode_ticket(model, ticket, note, origin) for ticket, note in tickets]
    return Submitter(client).submit(score_queue(model), 0, messages) if messages else 0
