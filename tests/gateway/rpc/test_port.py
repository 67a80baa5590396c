"""The port for gRPC: shared by the processes of one gateway, and by nobody else."""

from __future__ import annotations

import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from tests.eventually import eventually
from tests.gateway.conftest import Running, Served, question, running_gateway
from tests.gateway.rpc.client import connected
from tests.gateway.test_draining import children


def test_without_grpc_there_is_http_alone(served: Served) -> None:
    with running_gateway(served.settings, "--no-grpc") as gateway:
        assert gateway.grpc == ""
        assert gateway.infer("mirror", question(1)).status_code == 200


def test_a_port_that_another_gateway_has_is_refused(gateway: Running, served: Served) -> None:
    port = gateway.grpc.rpartition(":")[2]
    with (
        pytest.raises(AssertionError, match=f"127.0.0.1:{port} for gRPC: Address already in use.*--grpc-port"),
        running_gateway(served.settings, "--grpc-port", port),
    ):
        pass


def test_a_port_is_free_again_after_a_gateway(served: Served) -> None:
    with running_gateway(served.settings) as first, connected(first.grpc) as client:
        client.infer("mirror", 1)
        port = first.grpc.rpartition(":")[2]
        first.process.send_signal(signal.SIGTERM)
        assert first.process.wait(30) == 0
    with running_gateway(served.settings, "--grpc-port", port) as second, connected(second.grpc) as client:
        assert second.grpc == first.grpc
        client.infer("mirror", 1)


def test_several_processes_share_the_port_and_one_that_dies_is_replaced(served: Served) -> None:
    with running_gateway(served.settings, "--processes", "2") as gateway:
        before = children(gateway)
        subprocess.run(["kill", "-9", str(before[0])], check=True)
        eventually(lambda: len(set(children(gateway)) - {before[0]}) == 2, 60, "another process")
        eventually(lambda: _answer(gateway), 60, "a gateway that answers")

        def ask(number: int) -> float:
            with connected(gateway.grpc) as client:
                found: float = client.infer("mirror", number).outputs["y"].item()
                return found

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(ask, range(50))) == list(range(50))
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(60) == 0


def _answer(gateway: Running) -> bool:
    return httpx.get(f"{gateway.url}/v2/health/ready").status_code == 200


def test_an_idle_gateway_with_connections_stops_at_once(served: Served) -> None:
    settings = served.settings.model_copy(update={"gateway_grace_s": 600.0})
    with running_gateway(settings) as gateway, connected(gateway.grpc) as client:
        client.infer("mirror", 1)
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(60) == 0
