"""Message classes from compiled descriptors (`protos/compile.py` writes them), in a pool that nobody else sees."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Final

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass


class Messages:
    """The message classes of one protocol, and the numbers of its enums."""

    def __init__(self, name: str) -> None:
        """name: of the `.binpb` file in this package."""
        self._pool: Final = DescriptorPool()
        descriptors = FileDescriptorSet.FromString(files(__package__).joinpath(f"{name}.binpb").read_bytes())
        for file in descriptors.file:
            self._pool.AddSerializedFile(file.SerializeToString())

    def message(self, full_name: str) -> Any:
        """Return the class of a message."""
        return GetMessageClass(self._pool.FindMessageTypeByName(full_name))

    def numbers(self, full_name: str) -> dict[str, int]:
        """Return name → number of an enum."""
        enum = self._pool.FindEnumTypeByName(full_name)
        return {value.name: value.number for value in enum.values}
