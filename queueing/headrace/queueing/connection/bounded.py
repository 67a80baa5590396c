"""Connections on which no wait is without end: TCP keepalive, a bound on silence, and refusals by their right class."""

from __future__ import annotations

import socket
import time
from typing import Any, Final

import redis.exceptions
from redis.exceptions import ResponseError
from redis.utils import SENTINEL

from headrace.queueing.connection import patience
from headrace.queueing.connection.patience import CONNECT_TIMEOUT_S, SILENCE_S
from headrace.queueing.connection.refusals import LEAVES, REFUSALS, classified, note_refusal

#: While a thread waits for an answer, it looks this often whether it has to go.
SLICE_S: Final = 0.25

#: A caller that gives a server less time than this is in a hurry; a timeout of its own proves nothing.
TELLING_S: Final = 2.0

#: Keepalive as `tcp(7)` names it: a vanished host is noticed by an idle connection after 5 + 3 · 2 s, ...
_KEEPALIVE: Final = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3}


def keepalive_options(silence_s: float = SILENCE_S) -> dict[int, int]:
    """Return the options of a TCP socket by which the kernel notices a host that vanished; Linux knows all of them."""
    # ... and by one that has sent something that nobody confirms after the bound (RFC 5482).
    named = {**_KEEPALIVE, "TCP_USER_TIMEOUT": round(silence_s * 1000)}
    return {number: value for name, value in named.items() if (number := getattr(socket, name, None)) is not None}


def transport_bounds(silence_s: float) -> dict[str, Any]:
    """Return the transport options by which a kombu connection notices silence after `silence_s`."""
    return {
        "socket_timeout": silence_s,
        "socket_connect_timeout": min(CONNECT_TIMEOUT_S, silence_s),
        "socket_keepalive": True,
        "socket_keepalive_options": keepalive_options(silence_s),
    }


class _Watched:
    """A connection that raises error replies by their class, and is replaced when its server may be gone."""

    #: Whether a suspected connection replaces itself when it is used; if not, its owner does (`is_suspect`).
    replaces_itself = True

    _seen = 0
    _greets = False
    _sock: Any
    _socket_timeout: float | None

    @property
    def is_suspect(self) -> bool:
        """Whether another connection was found silent since this one was made."""
        return self._seen != patience.suspicion.count

    def read_response(self, *args: Any, **options: Any) -> Any:
        """Read one answer; see redis-py."""
        try:
            return self._checked(super().read_response(*args, **options))  # type: ignore[misc]
        except ResponseError as exc:
            raise self._refusal(exc) from None
        except redis.exceptions.TimeoutError:
            if options.get("timeout", SENTINEL) in (SENTINEL, None):
                self._suspect()
            raise

    def send_packed_command(self, *args: Any, **options: Any) -> None:
        """Send commands; see redis-py."""
        if not self._greets:
            if self.is_suspect and self._sock is not None and self.replaces_itself:
                self.disconnect()  # type: ignore[attr-defined]
            if self._sock is None:
                self.connect()  # type: ignore[attr-defined]  # asks Sentinel, which `send` would not: not at a retry
        super().send_packed_command(*args, **options)  # type: ignore[misc]

    def _connect(self) -> Any:
        self._seen = patience.suspicion.count
        return super()._connect()  # type: ignore[misc]

    def check_health(self) -> None:
        """Send a PING if none was sent for a while; see redis-py.

        Not within the greeting, which is a sign of life itself: redis-py connects anew when the PING fails, and so
        would greet, and send a PING, within the greeting that failed, as deep as Python allows.
        """
        if not self._greets:
            super().check_health()  # type: ignore[misc]

    def on_connect_check_health(self, *args: Any, **options: Any) -> None:
        """Greet the server; see redis-py."""
        self._greets = True  # else the greeting would begin anew within itself
        try:
            super().on_connect_check_health(*args, **options)  # type: ignore[misc]
        finally:
            self._greets = False

    def _checked(self, answer: Any) -> Any:
        """Return an answer; the errors in that of a transaction with their right class."""
        if type(answer) is list:
            for at, each in enumerate(answer):
                if isinstance(each, ResponseError):
                    answer[at] = self._refusal(each)
        return answer

    def _refusal(self, exc: ResponseError) -> Exception:
        found = classified(exc)
        if isinstance(found, REFUSALS):
            note_refusal(f"{getattr(self, 'host', '')}:{getattr(self, 'port', '')}", found)
        if isinstance(found, LEAVES):
            patience.suspicion.raise_()
        return found

    def _suspect(self) -> None:
        if (self._socket_timeout or 0) >= TELLING_S:
            patience.suspicion.raise_()


class _AsyncWatched(_Watched):
    socket_timeout: float | None

    @property
    def _is_connected(self) -> bool:
        return bool(self.is_connected)  # type: ignore[attr-defined]

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return self._checked(await super(_Watched, self).read_response(*args, **options))  # type: ignore[misc]
        except ResponseError as exc:
            raise self._refusal(exc) from None
        except redis.exceptions.TimeoutError:
            self._suspect()
            raise

    async def send_packed_command(self, *args: Any, **options: Any) -> None:  # type: ignore[override]
        if not self._greets:
            if self.is_suspect and self._is_connected:
                await self.disconnect()  # type: ignore[attr-defined]
            if not self._is_connected:
                await self.connect()  # type: ignore[attr-defined]
        await super(_Watched, self).send_packed_command(*args, **options)  # type: ignore[misc]

    async def _connect(self) -> None:
        self._seen = patience.suspicion.count
        await super(_Watched, self)._connect()  # type: ignore[misc]

    async def check_health(self) -> None:  # type: ignore[override]
        if not self._greets:
            await super(_Watched, self).check_health()  # type: ignore[misc]

    async def on_connect_check_health(self, *args: Any, **options: Any) -> None:  # type: ignore[override]
        self._greets = True
        try:
            await super(_Watched, self).on_connect_check_health(*args, **options)  # type: ignore[misc]
        finally:
            self._greets = False

    def _suspect(self) -> None:
        if (self.socket_timeout or 0) >= TELLING_S:
            patience.suspicion.raise_()


class _Interruptible(_Watched):
    """Waits in slices, so that a thread that has to go does not wait for the whole bound.

    A signal handler of Celery only takes a note, and Python goes on with the read that it interrupted.
    """

    _socket_timeout: float | None
    _socket_connect_timeout: float | None

    def read_response(
        self,
        disable_decoding: bool = False,
        *,
        timeout: Any = SENTINEL,
        disconnect_on_error: bool = True,
        **options: Any,
    ) -> Any:
        """Read one answer; see redis-py. Raises TimeoutError after the bound, or sooner when there is no time."""
        bound_s = self._socket_timeout
        # None is redis-py's "without end" for pub/sub, which kombu reads only when something has come.
        if timeout not in (SENTINEL, None) or bound_s is None or bound_s <= SLICE_S:
            return super().read_response(
                disable_decoding, timeout=timeout, disconnect_on_error=disconnect_on_error, **options
            )
        started = time.monotonic()
        try:
            while True:
                try:
                    return super().read_response(
                        disable_decoding, timeout=self._slice_s(), disconnect_on_error=False, **options
                    )
                except redis.exceptions.TimeoutError:
                    # What came of the answer stays in the parser.
                    self._wait_on(started, bound_s)
        except ResponseError:
            raise
        except BaseException:
            if disconnect_on_error:
                self.disconnect()  # type: ignore[attr-defined]
            raise

    @staticmethod
    def _slice_s() -> float:
        return max(0.001, min(SLICE_S, patience.left_s())) if patience.is_hurried() else SLICE_S

    def _wait_on(self, started: float, bound_s: float) -> None:
        """Return if there is time to go on waiting; else raise TimeoutError."""
        silent_s = time.monotonic() - started
        if patience.is_hurried():
            patience.waited(min(silent_s, SLICE_S))
            if patience.left_s() <= 0:
                bound_s = silent_s
        if silent_s >= bound_s:
            self._suspect()
            raise redis.exceptions.TimeoutError(f"no answer in {silent_s:.1f} s")

    def _connect(self) -> Any:
        if not patience.is_hurried():
            return super()._connect()
        left_s = patience.left_s()
        if left_s <= 0:
            raise OSError("no time to connect")
        usual_s, started = self._socket_connect_timeout, time.monotonic()
        self._socket_connect_timeout = min(left_s, usual_s or left_s)
        try:
            return super()._connect()
        except OSError:
            patience.waited(time.monotonic() - started)
            raise
        finally:
            self._socket_connect_timeout = usual_s


def watched(kind: type[Any]) -> type[Any]:
    """Return redis-py's class of connections, blocking or asyncio, with refusals by their right class; see above."""
    mixin = _AsyncWatched if kind.__module__.startswith("redis.asyncio") else _Watched
    return type(kind.__name__, (mixin, kind), {"__module__": __name__})


def interruptible(kind: type[Any]) -> type[Any]:
    """Return redis-py's class of blocking connections with waits that end when their thread has to go."""
    return type(kind.__name__, (_Interruptible, kind), {"__module__": __name__})
