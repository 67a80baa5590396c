"""What fsspec knows: errors are told apart, and a driver that never answers is given up."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import fsspec  # type: ignore[import-untyped]
import pytest
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]

from headrace.bulk.storage.base import AccessDenied, BadLocation, StorageUnavailable
from headrace.bulk.storage.opening import open_storage
from headrace.bulk.storage.roots import Roots

RELEASED = threading.Event()


class Silent(MemoryFileSystem):  # type: ignore[misc]
    """A driver whose server never answers."""

    protocol = "silent"

    def info(self, path: str, **_: object) -> dict[str, object]:
        RELEASED.wait()
        raise FileNotFoundError(path)


class Forbidden(MemoryFileSystem):  # type: ignore[misc]
    """A driver whose server refuses."""

    protocol = "forbidden"

    def info(self, path: str, **_: object) -> dict[str, object]:
        raise PermissionError(f"token=hunter2 may not read {path}")


@pytest.fixture(autouse=True)
def drivers() -> Iterator[None]:
    RELEASED.clear()
    for driver in (Silent, Forbidden):
        fsspec.register_implementation(driver.protocol, driver, clobber=True)
    yield
    RELEASED.set()


def test_a_driver_that_never_answers_is_given_up() -> None:
    storage = open_storage("silent://host/x", Roots(["silent://host"]), 2.0)
    with pytest.raises(StorageUnavailable, match="no answer in 2 s"):
        storage.stat("silent://host/x")


def test_a_refusal_is_said_without_the_drivers_words() -> None:
    storage = open_storage("forbidden://host/x", Roots(["forbidden://host"]))
    with pytest.raises(AccessDenied, match="credentials") as caught:
        storage.stat("forbidden://host/x")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "said"),
    [("nowhere://host/x", "no storage that headrace knows"), ("memory://a/x::file:etc", "in another")],
)
def test_what_no_driver_serves_is_said(uri: str, said: str) -> None:
    with pytest.raises(BadLocation, match=said):
        open_storage(uri, Roots([uri.rpartition("/")[0], uri.partition("/x")[0]]))
