"""A TCP proxy before a server, which can cut, stall, refuse and freeze. One thread and event loop for all proxies."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

from tests.chaos.wire.link import Direction, Link, Silence, Streams

#: Read at once; replies longer than this come in pieces, which is where a cut in the middle matters most.
PIECE_BYTES: Final = 64 << 10

#: Of the last request on each connection so much is remembered: enough to tell what it is used for.
LAST_BYTES: Final = 512

#: Waited for at most when a call crosses into the loop's thread.
CALL_S: Final = 30.0

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
        self._links: set[Link] = set()
        self._orphans: list[Link] = []
        self._vanished = False
        self._flowing = asyncio.Event()
        self._refusing = False
        self._replies_to_cut = 0
        self._server: asyncio.Server | None = None
        self.cuts = 0
        self.port = 0
        self.silences: list[Silence] = []

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
        for link in (*self._links, *self._orphans):
            link.reset()
        await asyncio.sleep(0)

    def cut(self) -> None:
        """Reset every connection that isn't frozen, now."""
        self._loop.call(self._async(self._cut))

    def cut_replies(self, count: int) -> None:
        """Reset the next so many connections that get a reply, each after the first half of it."""

        def do() -> None:
            self._replies_to_cut += count

        self._loop.call(self._async(do))

    def stall(self) -> None:
        """Forward nothing, in no direction, until `flow`; connections stay."""
        self._loop.call(self._async(self._flowing.clear))

    def redial(self, dial: Dial) -> None:
        """Reset every connection that isn't frozen, and reach another server from now on."""

        def do() -> None:
            self._dial = dial
            self._cut()

        self._loop.call(self._async(do))

    def refuse(self) -> None:
        """Reset every connection, and each new one at once, until `flow`."""

        def do() -> None:
            self._refusing = True
            self._cut()

        self._loop.call(self._async(do))

    def freeze(self, direction: Direction, share: float, rng: random.Random) -> list[Silence]:
        """Freeze a share of the connections for ever in one direction or both; new ones work. Returns those frozen."""

        def do() -> list[Silence]:
            links = [link for link in self._links if link.silence is None]
            count = min(len(links), max(1, round(share * len(links))))
            found = [link.freeze(direction) for link in rng.sample(links, count)]
            self.silences += found
            return found

        frozen: list[Silence] = self._loop.call(self._async(do))
        return frozen

    def vanish(self) -> None:
        """Be a host that is gone: no connection gets an answer any more, old or new; new ones work after `flow`."""

        def do() -> None:
            self._vanished = True
            self.silences += [link.freeze(Direction.BOTH) for link in self._links if link.silence is None]

        self._loop.call(self._async(do))

    def flow(self) -> None:
        """Forward again."""

        def do() -> None:
            self._refusing = self._vanished = False
            self._replies_to_cut = 0
            self._flowing.set()

        self._loop.call(self._async(do))

    @staticmethod
    async def _async(action: Callable[[], Any]) -> Any:
        return action()

    def _cut(self) -> None:
        links = [link for link in self._links if link.silence is None]
        self.cuts += len(links)
        for link in links:
            link.reset()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._refusing:
                raise ConnectionResetError
            upstream = await self._dial()
        except OSError:
            writer.transport.abort()
            return
        link = Link((reader, writer), upstream)
        self._links.add(link)
        if self._vanished:
            self.silences.append(link.freeze(Direction.BOTH))
        try:
            await asyncio.gather(self._forward(link, Direction.REQUESTS), self._forward(link, Direction.REPLIES))
        except (OSError, ConnectionError):
            pass
        finally:
            self._links.discard(link)
            self._bury(link)

    def _bury(self, link: Link) -> None:
        """End a connection; the server's end stays open where the server could not hear that the client has left."""
        link.end()
        if link.swallows(Direction.REQUESTS):
            self._orphans.append(link)

    async def _forward(self, link: Link, direction: Direction) -> None:
        """Carry what goes in one direction, to the end of it."""
        reader, writer = link.way(direction)
        try:
            while piece := await reader.read(PIECE_BYTES):
                if not self._flowing.is_set():
                    await self._flowing.wait()
                if link.swallows(direction):
                    break
                if direction is Direction.REPLIES and self._replies_to_cut and len(piece) > 1:
                    await self._cut_in_the_middle(link, piece)
                if direction is Direction.REQUESTS:
                    link.last_request = piece[-LAST_BYTES:]
                writer.write(piece)
                await writer.drain()
        except OSError:
            if not link.swallows(Direction.REPLIES):
                raise
            piece = b""  # that the server has gone is news too, which gets lost
        if link.swallows(direction) or link.swallows(Direction.REPLIES):
            await link.swallow(piece)
            raise ConnectionResetError
        writer.close()

    async def _cut_in_the_middle(self, link: Link, piece: bytes) -> None:
        self._replies_to_cut -= 1
        self.cuts += 1
        link.client[1].write(piece[: len(piece) // 2])
        await asyncio.sleep(0)
        raise ConnectionResetError
