"""A channel to the gateway of a module's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.gateway.conftest import Running
from tests.gateway.rpc.client import Client, connected


@pytest.fixture
def client(gateway: Running) -> Iterator[Client]:
    with connected(gateway.grpc) as found:
        yield found
