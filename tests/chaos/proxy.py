"""A TCP proxy before a server, which can cut, stall and refuse. One thread and one event loop for all proxies."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

#: Read at once; replies longer than this come in pieces, which is where a cut in the middle matters most.
PIECE_BYTES: Final = 64 << 10

#: Waited for at most when a call crosses into the loop's thread.
CALL_S: Final = 30.0

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Dial: TypeAlias = Callable[[], Awaitable[Streams]]


def tcp(host: str, port: int) -> Dial:
    """Reach a server by TCP."""
    return lambda: asyncio.open_connection(host, port, limit=PIECE_BYTES)


def unix(path: str) -> Dial:
    """Reach a server by its Unix socket."""
    return lambda: asyncio.open_unix_connection(path, limit=PIECE_BYTES)


class ProxyLoop:
    """The thread in which proxies live."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="chaos-proxies", daemon=True)

    def _run(self) -> None:
        self.loop.run_forever()
        self.loop.close()

    def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the loop, from another thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(CALL_S)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.call(self._end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    async def _end(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)


class Proxy:
    """Listens on a port of its own and forwards to one server. Methods are called from other threads."""

    def __init__(self, loop: ProxyLoop, dial: Dial) -> None:
        self._loop = loop
        self._dial = dial
        self._links: set[_Link] = set()
        self._flowing = asyncio.Event()
        self._refusing = False
        self._replies_to_cut = 0
        self._server: asyncio.Server | None = None
        self.cuts = 0
        self.port = 0

    def start(self) -> None:
        """Listen."""
        self._loop.call(self._start())

    async def _start(self) -> None:
        self._flowing.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=PIECE_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Listen no more, and cut what is connected."""
        self._loop.call(self._stop())

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self._cut()
        await asyncio.sleep(0)

    def cut(self) -> None:
        """Reset every connection, now."""
        self._loop.call(self._async(self._cut))

    def cut_replies(self, count: int) -> None:
        """Reset the next so many connections that get a reply, each after the first half of it."""

        def do() -> None:
            self._replies_to_cut += count

        self._loop.call(self._async(do))

    def stall(self) -> None:
        """Forward nothing, in no direction, until `flow`; connections stay."""
        self._loop.call(self._async(self._flowing.clear))

    def refuse(self) -> None:
        """Reset every connection, and each new one at once, until `flow`."""

        def do() -> None:
            self._refusing = True
            self._cut()

        self._loop.call(self._async(do))

    def flow(self) -> None:
        """Forward again."""

        def do() -> None:
            self._refusing = False
            self._replies_to_cut = 0
            self._flowing.set()

        self._loop.call(self._async(do))

    @staticmethod
    async def _async(action: Callable[[], None]) -> None:
        action()

    def _cut(self) -> None:
        self.cuts += len(self._links)
        for link in list(self._links):
            link.reset()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._refusing:
                raise ConnectionResetError
            upstream = await self._dial()
        except OSError:
            writer.transport.abort()
            return
        link = _Link((reader, writer), upstream)
        self._links.add(link)
        try:
            await asyncio.gather(self._requests(link), self._replies(link))
        except (OSError, ConnectionError):
            pass
        finally:
            self._links.discard(link)
            link.reset()

    async def _requests(self, link: _Link) -> None:
        reader, writer = link.client[0], link.server[1]
        while piece := await reader.read(PIECE_BYTES):
            if not self._flowing.is_set():
                await self._flowing.wait()
            writer.write(piece)
            await writer.drain()
        writer.close()

    async def _replies(self, link: _Link) -> None:
        reader, writer = link.server[0], link.client[1]
        while piece := await reader.read(PIECE_BYTES):
            if not self._flowing.is_set():
                await self._flowing.wait()
            if self._replies_to_cut and len(piece) > 1:
                self._replies_to_cut -= 1
                self.cuts += 1
                writer.write(piece[: len(piece) // 2])
                await asyncio.sleep(0)
                link.reset()
                return
            writer.write(piece)
            await writer.drain()
        writer.close()


class _Link:
    """One connection through the proxy."""

    def __init__(self, client: Streams, server: Streams) -> None:
        self.client = client
        self.server = server

    def reset(self) -> None:
        for _, writer in (self.client, self.server):
            writer.transport.abort()
