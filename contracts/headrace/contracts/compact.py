"""A compact form of messages that differ only in id and body: the shared envelope is kept once, as a template."""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from typing import Final

#: How every envelope begins; base64 holds no quotation mark.
_HEAD: Final = b'{"body":"'

#: Stands for the id in a template. JSON never holds this byte as it is.
_ID: Final = b"\0"


def template_of(before_body: bytes, parts: Sequence[bytes]) -> bytes | None:
    """Return the template of messages that are known in parts; None when they have none.

    before_body: the bytes before the body. parts: the bytes after it, cut at the ids and their quotation marks.
    """
    template = (b'"' + _ID + b'"').join(parts)
    return template if before_body == _HEAD and template.count(_ID) == len(parts) - 1 else None


def compact(ids: Sequence[str], messages: Sequence[bytes]) -> tuple[bytes, list[bytes]] | None:
    """Return the template that messages share and the body of each; None when they don't share one.

    ids: those in the messages, which hold nothing that JSON escapes. `expand` restores the same messages.
    """
    template: bytes | None = None
    bodies = []
    for request_id, message in zip(ids, messages, strict=True):
        end = message.find(b'"', len(_HEAD))
        written = message[len(_HEAD) : end]
        rest = message[end:]
        name = request_id.encode()
        if template is None:
            template = rest.replace(name, _ID)
        if not message.startswith(_HEAD) or _ID in message or template.replace(_ID, name) != rest:
            return None
        try:
            body = binascii.a2b_base64(written, strict_mode=True)
        except binascii.Error:
            return None
        bodies.append(body)
    return None if template is None else (template, bodies)


def expand(template: bytes, ids: Sequence[str], bodies: Sequence[bytes]) -> list[bytes]:
    """Return the messages that `compact` took apart."""
    return [
        b"".join((_HEAD, binascii.b2a_base64(body, newline=False), template.replace(_ID, request_id.encode())))
        for request_id, body in zip(ids, bodies, strict=True)
    ]
