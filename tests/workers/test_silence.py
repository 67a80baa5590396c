"""Connections to the broker that freeze without being closed: inference workers and clients go on within the bound."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from pydantic import SecretStr
from tests.queueing.wire import BOTH_WAYS, Wire
from tests.workers.conftest import running_worker

from headrace.contracts import ResultTimeout, Settings
from headrace.producers import AsyncClient, Client

#: What these tests set; the default is longer.
SILENCE_S = 3.0

#: Requests are answered again soon after the bound. Without one they would wait for many minutes.
SERVED_S = 30

ONE = {"x": np.ones((1, 4), np.float32)}
NEW_ONES = pytest.mark.parametrize("new_ones", [False, True], ids=["new-connections-work", "nothing-works"])
WAYS = pytest.mark.parametrize("ways", [BOTH_WAYS, ("commands",), ("answers",)], ids=["both", "commands", "answers"])


@pytest.fixture
def behind(settings: Settings, broker_url: str, wire: Wire) -> Settings:
    """The settings of whoever reaches the broker through the wire."""
    url = f"redis://127.0.0.1:{wire.port}{urlsplit(broker_url).path}"
    return settings.model_copy(
        update={"broker_url": SecretStr(url), "broker_timeout_s": SILENCE_S, "grace_s": 2.0, "lease_s": 20.0}
    )


@WAYS
def test_a_worker_whose_connections_freeze_serves_again(
    ways: tuple[str, ...], settings: Settings, behind: Settings, wire: Wire, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    with running_worker(behind, log, HEADRACE_BROKER_TIMEOUT_S=str(SILENCE_S)), Client(settings) as client:
        client.predict("double", ONE, timeout_s=60)
        assert wire.freeze(ways) > 0
        handles = [client.submit("double", ONE) for _ in range(20)]
        for handle in handles:
            assert handle.result(SERVED_S)["y"].tolist() == [[2.0] * 4]
        assert log.read_text().count("broker away, trying") <= 1


@WAYS
@NEW_ONES
def test_a_worker_whose_connections_are_frozen_ends_when_it_is_told_to(
    ways: tuple[str, ...], new_ones: bool, settings: Settings, behind: Settings, wire: Wire, tmp_path: Path
) -> None:
    with (
        running_worker(behind, tmp_path / "log", HEADRACE_BROKER_TIMEOUT_S=str(SILENCE_S)) as process,
        Client(settings) as client,
    ):
        client.predict("double", ONE, timeout_s=60)
        wire.freeze(ways, new_ones=new_ones)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(SERVED_S) == 0


@WAYS
def test_clients_whose_connections_freeze_go_on(
    ways: tuple[str, ...], settings: Settings, behind: Settings, wire: Wire, start_worker: Callable[..., object]
) -> None:
    with start_worker(), Client(behind) as client, ThreadPoolExecutor(1) as pool:  # type: ignore[attr-defined]
        client.predict("double", ONE, timeout_s=60)
        waiting = pool.submit(client.submit("slow", {"x": np.ones((40, 1), np.float32)}).result, SERVED_S)
        time.sleep(0.3)
        wire.freeze(ways)
        assert client.predict("double", ONE, timeout_s=SERVED_S)["y"].tolist() == [[2.0] * 4]
        assert waiting.result()["y"].shape == (40, 1)


#: Waits end a second after their time. Later than this, they would have ended with the broker's time-out of 30 s.
LATE_S = 15


@NEW_ONES
@pytest.mark.parametrize("waited_s", [0.0, 4.0], ids=["fresh", "looked-for"])
def test_a_result_that_is_waited_for_briefly_is_not_waited_for_longer(
    new_ones: bool, waited_s: float, behind: Settings, wire: Wire
) -> None:
    with Client(behind.model_copy(update={"broker_timeout_s": 30.0})) as client:
        handle = client.submit("double", ONE)
        with pytest.raises(ResultTimeout):
            handle.result(0.3)
        time.sleep(waited_s)
        wire.freeze(new_ones=new_ones)
        for timeout_s in (0.3, 1.0, 2.5):
            began = time.monotonic()
            with pytest.raises(ResultTimeout):
                handle.result(timeout_s)
            assert time.monotonic() - began < timeout_s + LATE_S


@NEW_ONES
@pytest.mark.parametrize("waited_s", [0.0, 4.0], ids=["fresh", "looked-for"])
def test_an_asyncio_result_that_is_waited_for_briefly_is_not_waited_for_longer(
    new_ones: bool, waited_s: float, behind: Settings, wire: Wire
) -> None:
    async def use() -> None:
        async with AsyncClient(behind.model_copy(update={"broker_timeout_s": 30.0})) as client:
            handle = await client.submit("double", ONE)
            with pytest.raises(ResultTimeout):
                await handle.result(0.3)
            await asyncio.sleep(waited_s)
            wire.freeze(new_ones=new_ones)
            for timeout_s in (0.3, 1.0, 2.5):
                began = time.monotonic()
                with pytest.raises(ResultTimeout):
                    await handle.result(timeout_s)
                assert time.monotonic() - began < timeout_s + LATE_S

    asyncio.run(use())


@WAYS
def test_an_asyncio_client_whose_connections_freeze_goes_on(
    ways: tuple[str, ...], behind: Settings, wire: Wire, start_worker: Callable[..., object]
) -> None:
    async def use() -> None:
        async with AsyncClient(behind) as client:
            await client.predict("double", ONE, timeout_s=60)
            wire.freeze(ways)
            answer = await client.predict("double", ONE, timeout_s=SERVED_S)
            assert answer["y"].tolist() == [[2.0] * 4]

    with start_worker():  # type: ignore[attr-defined]
        asyncio.run(use())
