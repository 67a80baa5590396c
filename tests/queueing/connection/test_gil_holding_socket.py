"""Sends that keep the GIL deliver every byte, wait where the socket is full, and raise where it is broken."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from headrace.queueing.connection.gil_holding_socket import MAY_WAIT, send_all


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    sender, receiver = socket.socketpair()
    with sender, receiver:
        sender.settimeout(10)
        receiver.settimeout(10)
        yield sender, receiver


def read(receiver: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += receiver.recv(1 << 16)
    return data


@pytest.mark.parametrize("flags", [0, MAY_WAIT], ids=["at once", "may wait"])
def test_all_bytes_arrive_in_order(flags: int, pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = pair
    for data in (b"one\0", b"two", b""):
        send_all(sender, data, flags)
    assert read(receiver, 7) == b"one\0two"


def test_what_does_not_fit_waits_for_the_receiver(pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = pair
    data = bytes(range(256)) * (1 << 15)  # 8 MiB, more than a socket holds
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(read(receiver, len(data))))
    reader.start()
    send_all(sender, data)
    reader.join(60)
    assert found == [data]


def test_a_full_socket_whose_receiver_reads_nothing_times_out(pair: tuple[socket.socket, socket.socket]) -> None:
    sender, _ = pair
    sender.settimeout(0.05)
    with pytest.raises(TimeoutError):
        send_all(sender, bytes(8 << 20))


def test_a_broken_socket_raises(pair: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = pair
    receiver.close()
    with pytest.raises(BrokenPipeError):
        send_all(sender, b"data")
