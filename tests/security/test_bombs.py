"""A compressed message is inflated up to the limit and no further."""

from __future__ import annotations

import base64
import bz2
import json
import lzma
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from kombu import compression
from tests.fuzz import seeds

from headrace.queueing.channel.envelope import NotAnEnvelope
from headrace.queueing.channel.message import OVERSIZE_HEADER, UnreadableBody, open_delivery
from headrace.queueing.consumer.delivery import Delivery

#: Reads a message from its standard input as a worker does, and prints what it cost at most, in MiB.
OPEN = """
import resource, sys
from headrace.queueing.consumer.delivery import Delivery
from headrace.queueing.channel.message import open_delivery
raw = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
delivery = Delivery(
    tag="1:q", queue="q", priority_step=0, raw=raw, deliveries=0, oversize=False, message_bytes=len(raw)
)
message = open_delivery(delivery, None, 16 << 20)
assert message.body == b"" and message.headers["headrace_oversize"] > 16 << 20
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""

GIGABYTE = 1 << 30


def _pieces(compressor: Any, size: int) -> bytes:
    block = bytes(1 << 20)
    return b"".join([*(compressor.compress(block) for _ in range(size >> 20)), compressor.flush()])


BOMBS: dict[str, Callable[[], bytes]] = {
    "application/x-gzip": lambda: _pieces(zlib.compressobj(9), GIGABYTE),
    "application/x-bz2": lambda: _pieces(bz2.BZ2Compressor(), GIGABYTE),
    "application/x-lzma": lambda: _pieces(lzma.LZMACompressor(preset=1), GIGABYTE),
}


def compressed(body: bytes, method: str) -> bytes:
    document = json.loads(seeds.envelopes()[0])
    document["headers"]["compression"] = method
    document["body"] = base64.b64encode(body).decode()
    return json.dumps(document).encode()


@pytest.mark.parametrize("method", BOMBS)
def test_a_compressed_message_is_not_inflated_beyond_the_limit(method: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OPEN], input=compressed(BOMBS[method](), method), capture_output=True, check=True
    )
    assert int(done.stdout) < 200


def opened(raw: bytes) -> Any:
    delivery = Delivery(
        tag="1:q", queue="q", priority_step=0, raw=raw, deliveries=0, oversize=False, message_bytes=len(raw)
    )
    return open_delivery(delivery, None, 1000)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("method", "compress"),
    [
        ("application/x-gzip", zlib.compress),
        ("gzip", zlib.compress),
        ("application/x-bz2", bz2.compress),
        ("application/x-lzma", lzma.compress),
    ],
)
def test_a_compressed_body_is_read_up_to_the_limit(method: str, compress: Callable[[bytes], bytes]) -> None:
    assert opened(compressed(compress(b"x" * 1000), method)).body == b"x" * 1000
    assert opened(compressed(compress(b"x" * 1001), method)).body == b""


@pytest.mark.parametrize("method", compression.encoders())
def test_each_compression_that_kombu_knows_here_is_read_up_to_the_limit(method: str) -> None:
    for size in (0, 1, 999, 1000):
        assert opened(compressed(compression.compress(b"x" * size, method)[0], method)).body == b"x" * size
    for size in (1001, 10_000_000):
        over = opened(compressed(compression.compress(b"x" * size, method)[0], method))
        assert (over.body, over.headers[OVERSIZE_HEADER]) == (b"", 1001)
    noise = compression.compress(os.urandom(500), method)[0]
    for damaged in (b"", b"nonsense", noise[:-5]):
        with pytest.raises(UnreadableBody, match="its body is") as caught:
            opened(compressed(damaged, method))
        message: Any = caught.value.message
        assert message.body == b""


@pytest.mark.parametrize("method", ["snappy", "application/x-snappy", "none", ["gzip"], 5, {"x": 1}])
def test_an_unknown_compression_is_a_reason_to_bury(method: object) -> None:
    with pytest.raises(NotAnEnvelope, match="is not one of"):
        opened(compressed(b"", method))  # type: ignore[arg-type]


@pytest.mark.parametrize("body", [b"", b"nonsense", zlib.compress(b"x" * 500)[:-5]], ids=["empty", "nonsense", "cut"])
def test_a_damaged_compressed_body_is_a_reason_to_bury(body: bytes) -> None:
    with pytest.raises(NotAnEnvelope, match="its body is"):
        opened(compressed(body, "application/x-gzip"))
