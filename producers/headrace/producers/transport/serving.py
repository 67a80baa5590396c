"""Looks whether a model is served, and where, for the error of a caller whose time is up."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from headrace.contracts.errors import BrokerUnavailable
from headrace.contracts.message import queue_name
from headrace.producers.transport.connections import broker_errors, connect_for_look, connect_for_look_async
from headrace.queueing.consumer import serving

T = TypeVar("T")

#: Problems that an error tells of; more workers rarely have more of them.
_MOST_PROBLEMS: Final = 2


def is_served(url: str, model: str, prefix: str = "") -> bool:
    """Return whether a worker takes the requests to a model; True also when the broker doesn't answer in a second."""
    client = connect_for_look(url, prefix)
    try:
        with broker_errors():
            return serving.is_served(client, queue_name(model))
    except BrokerUnavailable:
        return True
    finally:
        client.close()


async def is_served_async(url: str, model: str, prefix: str = "") -> bool:
    """Return whether a worker takes the requests to a model; see `is_served`."""
    client = connect_for_look_async(url, prefix)
    try:
        with broker_errors():
            return await serving.is_served_async(client, queue_name(model))
    except BrokerUnavailable:
        return True
    finally:
        await client.aclose()


class SharedLook(Generic[T]):
    """Looks at something of a model, once for all threads of a client that ask at the same time.

    When a thousand threads time out together, a thousand looks of their own would be a thousand connections.
    """

    def __init__(self, look: Callable[[str], T]) -> None:
        """look: what to ask for a model."""
        self._look = look
        self._lock = threading.Lock()
        self._answers: dict[str, tuple[float, T]] = {}

    def __call__(self, model: str) -> T:
        """Return the answer of a look that began after this call."""
        asked = time.monotonic()
        with self._lock:
            known = self._answers.get(model)
            if known is not None and known[0] >= asked:
                return known[1]
            began = time.monotonic()
            found = self._look(model)
            self._answers[model] = (began, found)
            return found


class AsyncSharedLook(Generic[T]):
    """Looks at something of a model, once for all tasks of a client that ask at the same time; see `SharedLook`."""

    def __init__(self, look: Callable[[str], Awaitable[T]]) -> None:
        """look: what to ask for a model."""
        self._look = look
        self._lock = asyncio.Lock()
        self._answers: dict[str, tuple[float, T]] = {}

    async def __call__(self, model: str) -> T:
        """Return the answer of a look that began after this call."""
        asked = time.monotonic()
        async with self._lock:
            known = self._answers.get(model)
            if known is not None and known[0] >= asked:
                return known[1]
            began = time.monotonic()
            found = await self._look(model)
            self._answers[model] = (began, found)
            return found


def problem_of(url: str, model: str, prefix: str = "") -> str:
    """Return, for an error, why workers get no answers of a model at present; "" if they report nothing."""
    client = connect_for_look(url, prefix)
    try:
        with broker_errors():
            problems = serving.problems_in(serving.served(client, queue_name(model)))
    except BrokerUnavailable:
        return ""
    finally:
        client.close()
    return "; ".join(map(str, problems[:_MOST_PROBLEMS]))


def where_served(url: str, model: str, prefix: str = "") -> str:
    """Return, for an error, under which key prefix nobody serves a model and under which somebody does.

    "" when there is nothing to report: no prefix here, and none elsewhere that is known to this client.
    """
    client = connect_for_look(url, prefix)
    try:
        with broker_errors():
            others = serving.prefixes_served(client, queue_name(model))
    except BrokerUnavailable:
        others = []
    finally:
        client.close()
    here = f" under the key prefix {prefix!r}" if prefix else ""
    if not others:
        return here
    elsewhere = " and ".join(f"the prefix {each!r}" if each else "no prefix" for each in others)
    return f"{here or ' without a key prefix'}, but with {elsewhere} one does (HEADRACE_KEY_PREFIX)"
