"""Message classes from compiled descriptors (`protos/compile.py` writes them), in a pool that nobody else sees."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass


class Messages:
    """The message classes of one protocol, and the numbers of its enums."""

    def __init__(self, name: str) -> None:
        """name: of the `.binpb` file in this package."""
        self._pool: Final = DescriptorPool()
        for file in _files_of(Path(__file__).with_name(f"{name}.binpb").read_bytes()):
            self._pool.AddSerializedFile(file)

    def message(self, full_name: str) -> Any:
        """Return the class of a message."""
        return GetMessageClass(self._pool.FindMessageTypeByName(full_name))

    def numbers(self, full_name: str) -> dict[str, int]:
        """Return name → number of an enum."""
        enum = self._pool.FindEnumTypeByName(full_name)
        return {value.name: value.number for value in enum.values}


def _files_of(descriptors: bytes) -> Iterator[bytes]:
    """Return the serialized files of a `FileDescriptorSet`, whose only field they are: `0x0A LENGTH FILE` each.

    protobuf's own message for that would take longer to import than all messages here.
    """
    at = 0
    while at < len(descriptors):
        at += 1  # the tag
        size = shift = 0
        while True:
            byte = descriptors[at]
            at += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        yield descriptors[at : at + size]
        at += size
