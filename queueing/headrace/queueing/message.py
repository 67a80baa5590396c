"""kombu messages made from what was claimed; on the hot path, so it does without most of kombu's steps."""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING, Final

from kombu.message import Message as BaseMessage
from kombu.transport import virtual

from headrace.queueing.envelope import Envelope, NotAnEnvelope, read_envelope, read_tail

if TYPE_CHECKING:
    from headrace.queueing.channel import Channel
    from headrace.queueing.claims import Delivery

#: Header of a message that was too long to load: its length in bytes. Its body is empty.
OVERSIZE_HEADER: Final = "headrace_oversize"


class Message(virtual.Message):
    """A message of a `headrace://` channel. delivery: what was claimed, or None for a broadcast.

    `delivery_info["deliveries"]` says how often it came back from a consumer that died or lost its lease.
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
    properties = envelope.properties
    info = properties.get("delivery_info")
    if not isinstance(info, dict):
        info = properties["delivery_info"] = {"exchange": "", "routing_key": delivery.queue}
    info["deliveries"] = delivery.deliveries
    if delivery.deliveries:
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
    if not encoding or str(encoding).lower() == "utf-8":
        return envelope.body.encode("utf-8", "surrogatepass")
    raise NotAnEnvelope(f"the body's encoding {str(encoding)[:40]!r} is unknown")


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
