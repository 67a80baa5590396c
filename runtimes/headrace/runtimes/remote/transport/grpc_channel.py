"""gRPC to one endpoint: a channel that opens at its first call, and errors that say what to do."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Final, TypeAlias

import grpc

from headrace.runtimes.remote.base import Access, Address, Misconfigured, ServerAway
from headrace.runtimes.remote.transport.grpc_status import FailedCall
from headrace.runtimes.remote.transport.tls import speaks_tls

#: Larger messages are refused, sent or received. gRPC's own limits are 4 MiB for what is received and none for what is
#: sent; protobuf's is 2 GiB.
MAX_MESSAGE_BYTES: Final = 1 << 30

#: Servers by default close connections on which pings arrive more often than every 5 minutes without data. With pings
#: at all, the kernel also drops a connection whose peer has not acknowledged what was sent within the second number.
_KEEPALIVE_MS: Final = 310_000
_KEEPALIVE_TIMEOUT_MS: Final = 20_000

#: Between two attempts to connect; gRPC's own longest pause is 2 minutes, for which a restarted server would idle.
_FIRST_RECONNECT_MS: Final = 100
_LONGEST_RECONNECT_MS: Final = 2_000

#: For one attempt to connect, until the server's first frame.
_CONNECT_MS: Final = 5_000

#: The trailer by which servers ask to be called again later, in milliseconds.
_PUSHBACK: Final = "grpc-retry-pushback-ms"
_MOST_PUSHBACK_DIGITS: Final = 9

_Call: TypeAlias = "grpc.UnaryUnaryMultiCallable[bytes, bytes]"
_Metadata: TypeAlias = tuple[tuple[str, str], ...]


class GrpcChannel:
    """One endpoint. Thread-safe; opens its channel at the first call, and another one in a process that was forked."""

    def __init__(self, address: Address, access: Access, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        """Open nothing yet."""
        self._address: Final = address
        self._access: Final = access
        self._max_message_bytes: Final = max_message_bytes
        self._metadata: Final[_Metadata] = (("authorization", access.authorization),) if access.authorization else ()
        #: By process: channels that a fork inherited belong to the parent, and are neither used nor closed.
        self._channels: dict[int, _OpenChannel] = {}

    def call(self, method: str, request: bytes, timeout_s: float, where: str) -> bytes:
        """Return the serialized answer to a serialized request.

        method: its whole path. where: the model, for the message.
        Raises ServerAway, ServerBusy, BatchTooLarge, Refused, Misconfigured; NotFound, which check_ready explains.
        """
        where = f"{where} at {self._address}" if where else str(self._address)
        if timeout_s <= 0:
            raise ServerAway(f"{where}: no time is left for the call")
        try:
            return self._open().call(method, request, timeout_s, self._metadata)
        except grpc.RpcError as exc:
            raise self._failure(exc, where, len(request), timeout_s) from None
        except ValueError:
            # gRPC's word for a channel that another thread closed meanwhile.
            raise ServerAway(f"{where}: the connection is closed") from None

    def reopen(self) -> None:
        """Make the next call over a new channel; the old one is closed when the last call on it has ended."""
        if opened := self._channels.pop(os.getpid(), None):
            opened.retire()

    def close(self) -> None:
        """Close the channel of this process; calls that are under way end as ServerAway."""
        if opened := self._channels.pop(os.getpid(), None):
            opened.channel.close()

    def _open(self) -> _OpenChannel:
        process = os.getpid()
        opened = self._channels.get(process)
        if opened is None:
            # Of two threads that come at once, the second takes the first one's.
            opened = self._channels.setdefault(process, _OpenChannel(self._new_channel()))
        return opened

    def _new_channel(self) -> grpc.Channel:
        options = [
            ("grpc.max_receive_message_length", self._max_message_bytes),
            ("grpc.max_send_message_length", self._max_message_bytes),
            ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
            ("grpc.initial_reconnect_backoff_ms", _FIRST_RECONNECT_MS),
            ("grpc.min_reconnect_backoff_ms", _CONNECT_MS),
            ("grpc.max_reconnect_backoff_ms", _LONGEST_RECONNECT_MS),
            # Retries are the queue's.
            ("grpc.enable_retries", 0),
            ("grpc.enable_http_proxy", 0),
            # Channels to one address would share a connection, and a server's window for it.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if not self._address.encrypted:
            return grpc.insecure_channel(self._address.authority, options)
        return grpc.secure_channel(self._address.authority, self._credentials(), options)

    def _credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(
            root_certificates=self._file(self._access.ca_file),
            private_key=self._file(self._access.key_file or self._access.cert_file),
            certificate_chain=self._file(self._access.cert_file),
        )

    def _file(self, path: str) -> bytes | None:
        try:
            return Path(path).read_bytes() if path else None
        except OSError as exc:
            raise Misconfigured(f"{self._address}: {path} can't be read: {exc.strerror}") from None

    def _failure(self, exc: grpc.RpcError, where: str, request_bytes: int, timeout_s: float) -> Exception:
        status, text = exc.code().name, self._access.hide_in((exc.details() or "").encode(errors="replace")).decode()
        if not self._address.encrypted and _hung_up(status, text) and speaks_tls(self._address, timeout_s):
            return Misconfigured(
                f"{where}: the server speaks TLS on that port; write grpcs://{self._address.authority}"
            )
        if self._address.encrypted and _hung_up(status, text) and not self._access.cert_file:
            text = f"{text}; it may ask for a client certificate (HEADRACE_SERVER_CERT_FILE)"
        return FailedCall(
            status=status,
            text=text,
            where=where,
            address=self._address,
            request_bytes=request_bytes,
            retry_after_s=_pushback_s(exc),
        ).failure()


class _OpenChannel:
    """A channel, its calls by method, and how many of them are under way."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel: Final = channel
        self._calls: dict[str, _Call] = {}
        self._lock: Final = threading.Lock()
        self._under_way = 0
        self._retired = False

    def call(self, method: str, request: bytes, timeout_s: float, metadata: _Metadata) -> bytes:
        with self._lock:
            self._under_way += 1
        try:
            return self._call_of(method)(request, timeout=timeout_s, metadata=metadata)
        finally:
            with self._lock:
                self._under_way -= 1
            self._close_if_unused()

    def retire(self) -> None:
        with self._lock:
            self._retired = True
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        with self._lock:
            unused = self._retired and not self._under_way
        if unused:
            self.channel.close()

    def _call_of(self, method: str) -> _Call:
        call = self._calls.get(method)
        if call is None:
            # Messages are serialized by the caller, whose errors gRPC would swallow.
            call = self._calls[method] = self.channel.unary_unary(method)
        return call


def _hung_up(status: str, text: str) -> bool:
    """Return whether a server closed the connection before the first answer, as those of TLS do on plain text."""
    return (
        status == "UNAVAILABLE"
        and text.startswith("failed to connect")
        and any(words in text for words in ("Socket closed", "Connection reset", "Failed parsing HTTP/2"))
        and "http1.x server" not in text
    )


def _pushback_s(exc: grpc.RpcError) -> float:
    for entry in exc.trailing_metadata() or ():
        if entry.key == _PUSHBACK and str(entry.value).isdecimal():
            return int(str(entry.value)[:_MOST_PUSHBACK_DIGITS]) / 1000
    return 0.0
