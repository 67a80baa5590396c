"""`headrace gateway` starts, or says in one line why it can't."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import Outcome

from headrace.contracts import Settings


def test_without_a_stack_it_names_what_is_missing(headrace: Callable[..., Outcome], home: Path) -> None:
    outcome = headrace("gateway")
    assert outcome.code == 1
    assert "HEADRACE_BROKER_URL is not set" in outcome.line


def test_a_port_that_is_taken_is_one_line(headrace: Callable[..., Outcome], headrace_settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        outcome = headrace("gateway", "--port", port)
    assert outcome.code == 1
    assert f"can't listen on 127.0.0.1:{port}" in outcome.line
    assert "--port" in outcome.line


def test_a_port_for_grpc_that_is_taken_is_one_line(
    headrace: Callable[..., Outcome], headrace_settings: Settings
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        outcome = headrace("gateway", "--port", 0, "--grpc-port", port)
    assert outcome.code == 1
    assert f"can't listen on 127.0.0.1:{port} for gRPC" in outcome.line
    assert "--grpc-port" in outcome.line
    assert "--no-grpc" in outcome.line


def test_an_address_that_is_none_is_one_line(headrace: Callable[..., Outcome], headrace_settings: Settings) -> None:
    outcome = headrace("gateway", "--host", "no such host", "--port", 0)
    assert outcome.code == 1
    assert "can't listen on no such host:0" in outcome.line


@pytest.mark.parametrize("words", [("--port", "70000"), ("--grpc-port", "70000"), ("--processes", "0")])
def test_misuse_is_told_apart(headrace: Callable[..., Outcome], words: tuple[str, str]) -> None:
    outcome = headrace("gateway", *words)
    assert outcome.code == 2
    assert words[0] in outcome.line
