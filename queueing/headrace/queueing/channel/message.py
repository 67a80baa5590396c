"""kombu messages made from deliveries. On the hot path, so most of kombu's own steps are left out."""

from __future__ import annotations

import binascii
import bz2
import inspect
import lzma
import zlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from kombu import compression
from kombu.message import Message as BaseMessage
from kombu.transport import virtual

from headrace.contracts.errors import quoted
from headrace.queueing.channel.envelope import Envelope, NotAnEnvelope, read_envelope, read_tail

if TYPE_CHECKING:
    from headrace.queueing.consumer.delivery import Delivery

#: Header of a message that was too long to load: its length in bytes. Its body is empty.
OVERSIZE_HEADER: Final = "headrace_oversize"


#: A compressed message of a channel without a limit may become this long: the most that Redis could hold.
MAX_INFLATED_BYTES: Final = 512 << 20

#: Memory that decompressing LZMA may take besides; and the same for Zstandard, as a power of two.
_LZMA_BYTES: Final = 64 << 20
_ZSTD_WINDOW_LOG: Final = 26


class _BrotliDecompressor:
    """Brotli's, with the interface of the standard library's."""

    def __init__(self, decompressor: Any) -> None:
        self._decompressor = decompressor

    def decompress(self, data: bytes, max_length: int) -> bytes:
        pieces = [self._decompressor.process(data, output_buffer_limit=max_length)]
        left = max_length - len(pieces[0])
        while left > 0 and not self.eof and pieces[-1]:
            pieces.append(self._decompressor.process(b"", output_buffer_limit=left))
            left -= len(pieces[-1])
        return b"".join(pieces)

    @property
    def eof(self) -> bool:
        return bool(self._decompressor.is_finished())


def _library(name: str) -> Any:
    """Return a library that kombu found; None without it."""
    return getattr(compression, name, None)


def _optional_decompressors() -> dict[str, Callable[[], Any]]:
    """Return those of libraries that are not always there, where kombu found them and they can keep to a limit."""
    found: dict[str, Callable[[], Any]] = {}
    zstd = _library("zstd")
    if zstd is not None:
        bounded = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
        make_zstd = partial(zstd.ZstdDecompressor, options=bounded)
        found |= dict.fromkeys(("application/zstd", "zstd", "zstandard"), make_zstd)
    brotli = _library("brotli")
    if brotli is not None and "output_buffer_limit" in (inspect.getdoc(brotli.Decompressor.process) or ""):
        make = brotli.Decompressor
        found |= dict.fromkeys(("application/x-brotli", "brotli"), lambda: _BrotliDecompressor(make()))
    return found


#: kombu's names of compression methods; each makes an object that decompresses piece by piece.
_DECOMPRESSORS: Final[dict[str, Callable[[], Any]]] = {
    **dict.fromkeys(("application/x-gzip", "gzip", "zlib"), zlib.decompressobj),
    **dict.fromkeys(("application/x-bz2", "bzip2", "bzip"), bz2.BZ2Decompressor),
    **dict.fromkeys(("application/x-lzma", "lzma", "xz"), partial(lzma.LZMADecompressor, memlimit=_LZMA_BYTES)),
    **_optional_decompressors(),
}

#: Exceptions of the libraries for data that is not theirs.
_UNREADABLE: Final[tuple[type[Exception], ...]] = (
    *(zlib.error, OSError, EOFError, ValueError, lzma.LZMAError, MemoryError),
    *((_library("zstd").ZstdError,) if _library("zstd") else ()),
    *((_library("brotli").error,) if _library("brotli") else ()),
)


class Message(virtual.Message):
    """A message of a `headrace://` channel. delivery: as it was claimed, or None for a broadcast.

    `delivery_info["deliveries"]` is how often it came back from a consumer that died or lost its lease, and
    `delivery_info["redelivered"]` whether it came back at all.
    """

    delivery: Delivery | None = None


class UnreadableBody(NotAnEnvelope):
    """The body of a message can't be read; `message` is all the rest."""

    def __init__(self, cause: str, message: Message) -> None:
        """message: without a body."""
        super().__init__(cause)
        self.message = message


def open_delivery(delivery: Delivery, channel: virtual.Channel, limit: int) -> Message:
    """Make a message of a delivery, with the delivery's tag. Raises NotAnEnvelope.

    channel: handed on to kombu. limit: most bytes of a body once it is decompressed; 0 is MAX_INFLATED_BYTES.
    """
    envelope = _oversize(delivery) if delivery.oversize else read_envelope(delivery.raw)
    headers, body, unreadable = envelope.headers or {}, b"", ""
    try:
        if not delivery.oversize:
            body = _body(envelope)
            headers.pop(OVERSIZE_HEADER, None)  # only the transport sets it
        if headers.get("compression"):
            body = _inflated(headers, body, limit or MAX_INFLATED_BYTES)
    except NotAnEnvelope as exc:
        headers.pop("compression", None)
        body, unreadable = b"", str(exc)
    properties = envelope.properties
    info = properties.get("delivery_info")
    if not isinstance(info, dict):
        info = properties["delivery_info"] = {"exchange": "", "routing_key": delivery.queue}
    info["deliveries"] = delivery.deliveries
    if delivery.redelivered:
        headers["redelivered"] = info["redelivered"] = True
    properties["delivery_tag"] = delivery.tag
    message = Message.__new__(Message)
    message.delivery = delivery
    BaseMessage.__init__(  # virtual.Message would decode the body once more
        message,
        body=body,  # type: ignore[arg-type]
        delivery_tag=delivery.tag,
        content_type=envelope.content_type,
        content_encoding=envelope.content_encoding,
        delivery_info=info,
        properties=properties,
        headers=headers,
        channel=channel,
    )
    if unreadable:
        raise UnreadableBody(unreadable, message)
    return message


def _body(envelope: Envelope) -> bytes:
    encoding = envelope.properties.get("body_encoding")
    if encoding == "base64":
        try:
            return binascii.a2b_base64(envelope.body)
        except (binascii.Error, ValueError) as exc:
            raise NotAnEnvelope(f"the body is not base64: {exc}") from None
    if not encoding or (isinstance(encoding, str) and encoding.lower() == "utf-8"):
        return envelope.body.encode("utf-8", "surrogatepass")
    raise NotAnEnvelope(f"the body's encoding {quoted(encoding)} is unknown")


def _inflated(headers: dict[str, Any], body: bytes, limit: int) -> bytes:
    """Decompress a body; one that passes the limit is left away, as that of a message that is too long.

    kombu would do it when the message is made, and a megabyte can hold a terabyte.
    """
    method = headers.pop("compression")
    make = _DECOMPRESSORS.get(method) if isinstance(method, str) else None
    if make is None:
        raise NotAnEnvelope(f"its compression {quoted(method)} is not one of {', '.join(_DECOMPRESSORS)}")
    try:
        decompressor = make()
        inflated: bytes = decompressor.decompress(body, limit + 1)
    except _UNREADABLE as exc:
        raise NotAnEnvelope(f"its body is not {method}: {exc}") from None
    if len(inflated) > limit:
        headers[OVERSIZE_HEADER] = limit + 1
        return b""
    if not decompressor.eof:
        raise NotAnEnvelope(f"its body is cut off: {method} has no end")
    return inflated


def _oversize(delivery: Delivery) -> Envelope:
    try:
        envelope = read_tail(delivery.raw)
    except NotAnEnvelope as exc:
        raise NotAnEnvelope(f"its {delivery.message_bytes} bytes are too many, and {exc}") from None
    headers = envelope.headers
    if not headers or not isinstance(headers.get("id"), str):
        raise NotAnEnvelope(f"its {delivery.message_bytes} bytes are too many, and its id is not in its last bytes")
    headers[OVERSIZE_HEADER] = delivery.message_bytes
    headers.pop("compression", None)  # there is nothing to decompress
    return envelope
