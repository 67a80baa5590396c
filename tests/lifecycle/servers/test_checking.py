"""The check of a package whose model is on a server."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.lifecycle.servers.served import Serve, Served

from headrace.contracts import ModelDirectory, ModelPackage, PackageError, read_package
from headrace.contracts.package.manifest import BatchingAdvice, write_manifest
from headrace.contracts.package.server import Server
from headrace.lifecycle.packages.checking import ReturnedOutput, check_package
from headrace.lifecycle.packages.registry import add_remote_model


@pytest.fixture
def served() -> Served:
    return Served()


@pytest.fixture
def package(models: ModelDirectory, serve: Serve, served: Served) -> ModelPackage:
    return add_remote_model(Server(endpoints=(serve(served),), model="m"), models, max_rows=8)


def with_max_rows(package: ModelPackage, max_rows: int) -> ModelPackage:
    write_manifest(
        package.folder, msgspec.structs.replace(package.manifest, batching=BatchingAdvice(max_rows=max_rows))
    )
    return read_package(package.folder)


def test_a_real_batch_shows_what_came_back(package: ModelPackage, served: Served) -> None:
    served.calls.clear()
    found = check_package(package)
    assert (found.rows, found.version, found.outputs) == (1, "3", (ReturnedOutput("y", "FP32", (1, 4)),))
    assert [timing.rows for timing in found.timings] == [1, 2, 4, 8]
    assert set(served.calls) == {1, 2, 4, 8}


def test_real_rows_are_sent(package: ModelPackage, served: Served, tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", x=np.full((3, 4), 7.0))
    seen: list[NDArray[Any]] = []

    def run(x: NDArray[Any]) -> NDArray[Any]:
        seen.append(x)
        return x

    served.run = run
    assert check_package(package, sample=tmp_path / "rows.npz").rows == 3
    assert all((x == 7).all() for x in seen)


def test_sizes_above_the_limit_of_the_server_are_left_out(package: ModelPackage, served: Served) -> None:
    served.most_rows = 4
    found = check_package(with_max_rows(package, 16))
    assert [timing.rows for timing in found.timings] == [1, 2, 4]
    assert "8 rows and more were left out: " in found.stopped
    assert "must be <= 4" in found.stopped


def test_a_refused_row_is_one_line_that_says_what_to_do(package: ModelPackage, served: Served) -> None:
    served.refusal = "x is out of range"
    with pytest.raises(
        PackageError, match=r"a row of zeros doesn't run: .*x is out of range; .*--sample FILE"
    ) as caught:
        check_package(package)
    assert "\n" not in caught.value.message


def test_a_server_that_is_away_is_one_line(package: ModelPackage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"grpc://127.0.0.1:{listener.getsockname()[1]}"
    server = package.manifest.server
    assert isinstance(server, Server)
    server = msgspec.structs.replace(server, endpoints=(endpoint,))
    write_manifest(package.folder, msgspec.structs.replace(package.manifest, server=server))
    with pytest.raises(PackageError, match=r"no answer: .*refused"):
        check_package(read_package(package.folder))
