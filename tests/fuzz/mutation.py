"""Mutations that keep most of an input's structure, so that they reach what lies behind the first check."""

from __future__ import annotations

import base64
import binascii
import json
import random
import tomllib
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec
import tomli_w
from tests.fuzz.seeds import NAMES, VALUES

#: Longer inputs add nothing but time.
MAX_BYTES: Final = 16 << 10

#: Below, at and above the nesting that Python's and msgspec's decoders bear (about 1,000).
DEPTHS: Final = (3, 40, 400, 900, 960, 980, 990, 1000, 3000)

#: How often a tree is mutated before it is written again.
_MOST_EDITS: Final = 3


class Mutator:
    """Makes one input out of others. The same random numbers make the same inputs."""

    def __init__(self, numbers: random.Random) -> None:
        self._numbers = numbers

    def mutate(self, data: bytes, form: str, other: bytes = b"") -> bytes:
        """Give a variant of `data`. form: json, msgpack or toml, what its trees are. other: where parts come from."""
        if self._numbers.random() < 0.7:
            with suppress(ValueError, TypeError, RecursionError, OverflowError, msgspec.MsgspecError, AttributeError):
                return self._tree(data, form)[:MAX_BYTES]
        for _ in range(self._numbers.randint(1, _MOST_EDITS)):
            data = self._numbers.choice(_EDITS)(self, data, other)
        return data[:MAX_BYTES]

    def _tree(self, data: bytes, form: str) -> bytes:
        tree = _READ[form](data)
        for _ in range(self._numbers.randint(1, _MOST_EDITS)):
            tree = self._edit(tree)
        if form == "json" and self._numbers.random() < 0.1:
            return self._deepen(json.dumps(tree).encode())
        return _WRITE[form](tree)

    # -- trees -------------------------------------------------------------------------------------------------------

    def _edit(self, node: Any) -> Any:
        """Change something somewhere below; each level is as likely as the next."""
        numbers = self._numbers
        if isinstance(node, dict) and node and numbers.random() < 0.85:
            key = numbers.choice(list(node))
            if numbers.random() < 0.75:
                node[key] = self._edit_body(node[key]) if key == "body" else self._edit(node[key])
                return node
            return self._edit_dict(node, key)
        if isinstance(node, list) and node and numbers.random() < 0.85:
            at = numbers.randrange(len(node))
            if numbers.random() < 0.75:
                node[at] = self._edit(node[at])
                return node
            return self._edit_list(node, at)
        return self._leaf(node)

    def _edit_dict(self, node: dict[Any, Any], key: Any) -> Any:
        match self._numbers.randrange(3):
            case 0:
                del node[key]
            case 1:
                node[self._numbers.choice(NAMES)] = self._value()
            case _:
                node[self._numbers.choice(NAMES)] = node[key]
        return node

    def _edit_list(self, node: list[Any], at: int) -> Any:
        match self._numbers.randrange(3):
            case 0:
                del node[at]
            case 1:
                node.insert(at, self._value())
            case _:
                node += node[at:] * self._numbers.choice((1, 2, 40))
        return node[:5000]

    def _edit_body(self, text: Any) -> Any:
        """Change what lies inside the base64 of an envelope's body."""
        if not isinstance(text, str) or self._numbers.random() < 0.2:
            return self._leaf(text)
        with suppress(binascii.Error, ValueError):
            inner = base64.b64decode(text)
            form = "json" if inner[:1] in (b"[", b"{") else "msgpack"
            return base64.b64encode(self.mutate(inner, form)).decode()
        return text

    def _leaf(self, node: Any) -> Any:
        numbers = self._numbers
        if isinstance(node, int) and not isinstance(node, bool) and numbers.random() < 0.4:
            return node + numbers.choice((-1, 1, 256, -(2**31), 2**40))
        if isinstance(node, bytes | str) and node and numbers.random() < 0.4:
            text: Any = node
            at = numbers.randrange(len(text))
            return text[:at] + text[at + 1 :] if numbers.random() < 0.5 else text[:at] + text[at:] * 2
        return self._value()

    def _value(self) -> Any:
        value = self._numbers.choice(VALUES)
        if isinstance(value, dict | list):
            return json.loads(json.dumps(value))
        return value

    def _deepen(self, text: bytes) -> bytes:
        """Put a deep nest in the place of some value of a JSON text."""
        depth = self._numbers.choice(DEPTHS)
        opening, closing = self._numbers.choice(((b"[", b"]"), (b'{"x":', b"}")))
        nest = opening * depth + b"1" + closing * depth
        values = [at for at in range(len(text)) if text[at : at + 1] == b":"]
        if not values:
            return nest
        at = self._numbers.choice(values) + 1
        ends = [end for end in (text.find(b",", at), text.find(b"}", at)) if end != -1]
        return text[:at] + nest + text[min(ends, default=len(text)) :]

    # -- bytes -------------------------------------------------------------------------------------------------------

    def _flip(self, data: bytes, _: bytes) -> bytes:
        if not data:
            return b"\x00"
        at = self._numbers.randrange(len(data))
        return data[:at] + bytes([data[at] ^ (1 << self._numbers.randrange(8))]) + data[at + 1 :]

    def _put(self, data: bytes, _: bytes) -> bytes:
        at = self._numbers.randint(0, len(data))
        width = self._numbers.choice((0, 1, 4))
        return data[:at] + self._numbers.choice(_PIECES) + data[at + width :]

    def _cut(self, data: bytes, _: bytes) -> bytes:
        start, stop = sorted(self._numbers.randint(0, len(data)) for _ in range(2))
        return data[:start] + data[stop:] if self._numbers.random() < 0.5 else data[:stop]

    def _repeat(self, data: bytes, _: bytes) -> bytes:
        start, stop = sorted(self._numbers.randint(0, len(data)) for _ in range(2))
        return data[:start] + data[start:stop] * self._numbers.choice((2, 3, 50)) + data[stop:]

    def _splice(self, data: bytes, other: bytes) -> bytes:
        return data[: self._numbers.randint(0, len(data))] + other[self._numbers.randint(0, len(other)) :]

    def _noise(self, data: bytes, _: bytes) -> bytes:
        at = self._numbers.randint(0, len(data))
        return data[:at] + self._numbers.randbytes(self._numbers.choice((1, 2, 4, 8))) + data[at:]


_PIECES: Final = (
    b"\x00", b"\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"\xdf\xff\xff\xff\xff",
    b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xc0", b"\x80", b"\x90", b"\x93", b"\xcf" + b"\xff" * 8,
    b"\xc1",    b'"', b"\\", b"{", b"}", b"[", b"]", b"[" * 1200, b'{"a":' * 1200, b",", b":", b"null", b"NaN",
    b"1e999",
    b"-Infinity",    b"9" * 400, b"9" * 5000, b"\\ud800", b"\\u0000", b'"__type__"', b"\xed\xa0\x80", b"\xc3",
    b"\xef\xbb\xbf", b"\n",
    b"a." * 2000 + b"a = 1\n", b"[a]\n", b"[[inputs]]\n", b"1979-02-30", b"0x" + b"f" * 5000, b"'''", b"= ", b"#",
)  # fmt: skip

_EDITS: Final[tuple[Callable[[Mutator, bytes, bytes], bytes], ...]] = (
    Mutator._flip,
    Mutator._put,
    Mutator._cut,
    Mutator._repeat,
    Mutator._splice,
    Mutator._noise,
)

_READ: Final[dict[str, Callable[[bytes], Any]]] = {
    "json": json.loads,
    "msgpack": msgspec.msgpack.decode,
    "toml": lambda data: tomllib.loads(data.decode()),
}

_WRITE: Final[dict[str, Callable[[Any], bytes]]] = {
    "json": lambda tree: json.dumps(tree).encode(),
    "msgpack": msgspec.msgpack.encode,
    "toml": lambda tree: tomli_w.dumps(tree).encode(),
}


def pick(numbers: random.Random, corpus: Sequence[bytes]) -> bytes:
    """Choose an input to start from."""
    return corpus[numbers.randrange(len(corpus))]
