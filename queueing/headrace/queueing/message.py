"""kombu messages made from what was claimed; on the hot path, so it does without most of kombu's steps."""

from __future__ import annotations

import binascii
import bz2
import lzma
import zlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from kombu.message import Message as BaseMessage
from kombu.transport import virtual

from headrace.contracts.errors import quoted
from headrace.queueing.envelope import Envelope, NotAnEnvelope, read_envelope, read_tail

if TYPE_CHECKING:
    from headrace.queueing.channel import Channel
    from headrace.queueing.claims import Delivery

#: Header of a message that was too long to load: its length in bytes. Its body is empty.
OVERSIZE_HEADER: Final = "headrace_oversize"


#: A compressed message of a channel without a limit may become this long: the most that Redis could hold.
MAX_INFLATED_BYTES: Final = 512 << 20

#: What decompressing LZMA may take besides.
_LZMA_BYTES: Final = 64 << 20

#: kombu's names of compression methods; each makes an object that decompresses piece by piece.
_DECOMPRESSORS: Final[dict[str, Callable[[], Any]]] = {
    **dict.fromkeys(("application/x-gzip", "gzip", "zlib"), zlib.decompressobj),
    **dict.fromkeys(("application/x-bz2", "bzip2", "bzip"), bz2.BZ2Decompressor),
    **dict.fromkeys(("application/x-lzma", "lzma", "xz"), partial(lzma.LZMADecompressor, memlimit=_LZMA_BYTES)),
}


class Message(virtual.Message):
    """A message of a `headrace://` channel. delivery: what was claimed, or None for a broadcast.

    `delivery_info["deliveries"]` says how often it came back from a consumer that died or lost its lease, and
    `delivery_info["redelivered"]` whether it came back at all.
    """

    delivery: Delivery | None = None


def open_delivery(delivery: Delivery, channel: Channel) -> Message:
    """Make a message of what was claimed; its tag is the claim's. Raises NotAnEnvelope."""
    if delivery.oversize:
        envelope, body = _oversize(delivery), b""
    else:
        envelope = read_envelope(delivery.raw)
        body = _body(envelope)
    headers = envelope.headers if envelope.headers is not None else {}
    if not delivery.oversize:
        headers.pop(OVERSIZE_HEADER, None)  # only we say so
    if headers.get("compression"):
        body = _inflated(headers, body, channel.max_message_bytes or MAX_INFLATED_BYTES)
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
    except (zlib.error, OSError, EOFError, ValueError, lzma.LZMAError, MemoryError) as exc:
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
