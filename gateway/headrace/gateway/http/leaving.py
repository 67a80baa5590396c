"""Notices that a client has closed its connection while it waits for an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from starlette.types import Receive

#: A client that leaves is noticed this much later at most. Most answers come sooner, and then nobody had to look: with
#: a task for each request, a request takes a fifth more of the gateway's time.
_NOTICE_S: Final = 0.1


class Leaving:
    """Within a `with`, calls a function when the client leaves."""

    __slots__ = ("_gone", "_receive", "_task", "_timer")

    def __init__(self, receive: Receive, gone: Callable[[], None]) -> None:
        """receive: of the request, whose body was read. gone: is called at most once, by the event loop."""
        self._receive = receive
        self._gone = gone
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        """Begin to look, in a moment."""
        self._timer = asyncio.get_running_loop().call_later(_NOTICE_S, self._begin)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Look no longer."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _begin(self) -> None:
        self._timer = None
        self._task = asyncio.create_task(self._look(), name="headrace-gateway-leaving")

    async def _look(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone()
