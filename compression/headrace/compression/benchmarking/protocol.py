"""Messages between `handle.py` and its child: msgpack over a pipe, one answer to each command."""

from __future__ import annotations

from typing import TypeAlias

import msgspec


class Load(msgspec.Struct, frozen=True, tag=True):
    """Load a package. folder: of the package. inputs: file of the rows to run, as `encode_tensors` writes them."""

    folder: str
    inputs: str
    device: str
    threads: int


class RunBlock(msgspec.Struct, frozen=True, tag=True):
    """Run batches of `rows` rows until `seconds` are over; at least one."""

    rows: int
    seconds: float


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """The model is ready.

    load_seconds: of the model, without its runtime's library. idle_bytes: resident before that library was loaded.
    library_bytes: what the library added.
    """

    load_seconds: float
    idle_bytes: int
    library_bytes: int


class Block(msgspec.Struct, frozen=True, tag=True):
    """The times of a block, and the memory it needed.

    seconds: of each run that counts, by the clock. own_seconds: of the same, of a model with one thread without the
    time for which other processes had the core that it wanted. high_bytes: most that was ever resident so far.
    """

    seconds: tuple[float, ...]
    own_seconds: tuple[float, ...]
    high_bytes: int


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The command failed; the process may be asked for something else. memory: there was not enough of it."""

    cause: str
    memory: bool = False


Command: TypeAlias = Load | RunBlock
Answer: TypeAlias = Loaded | Block | Failed

encode = msgspec.msgpack.encode
decode_command = msgspec.msgpack.Decoder(Command).decode
decode_answer = msgspec.msgpack.Decoder(Answer).decode
