"""Registration of our content type and of `headrace://` URLs with kombu, as soon as kombu itself is imported.

kombu loads this module through the entry point group `kombu.serializers` while it imports `kombu.serialization`. So
nothing here may import kombu's other parts, except the table of transports, or anything heavy. Every Celery app imports
`kombu.serialization` before it connects; a program that uses kombu alone may have to import `headrace.queueing` first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kombu.transport import TRANSPORT_ALIASES

if TYPE_CHECKING:
    from headrace.contracts.tensors.codec import Tensors

#: The content type of tensors: `contracts.tensors.codec.CONTENT_TYPE`, which is too heavy to import here.
CONTENT_TYPE: Final = "application/x-headrace-tensors"

_MODULE: Final = "headrace.queueing.transport"
_TRANSPORT: Final = f"{_MODULE}:Transport"


def encode(tensors: Tensors) -> bytes:
    """Write tensors as the body of a message."""
    from headrace.contracts.tensors.codec import encode_tensors

    return encode_tensors(tensors)


def decode(body: bytes | memoryview) -> Tensors:
    """Read tensors from the body of a message."""
    from headrace.contracts.tensors.codec import decode_tensors

    return decode_tensors(body)


#: The arguments of `kombu.serialization.register` after the name.
SERIALIZER: Final = (encode, decode, CONTENT_TYPE, "binary")

TRANSPORT_ALIASES.update(headrace=_TRANSPORT, headraces=_TRANSPORT)
# The name that a connection and its copies have once its URLs have been read.
TRANSPORT_ALIASES.update({f"{scheme}+sentinel": f"{_MODULE}:SentinelTransport" for scheme in ("headrace", "headraces")})
