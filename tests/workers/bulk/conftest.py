"""One set of servers for each file of tests, so that they stay fast."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from tests.workers.bulk.sites import Site

from headrace.contracts import Settings
from headrace.testing import TemporaryStack


@pytest.fixture(scope="module")
def site(headrace_stack: TemporaryStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("site")
    with headrace_stack.key_space() as broker_url, headrace_stack.results_store() as database_url:
        settings = Settings(
            broker_url=SecretStr(broker_url),
            database_url=SecretStr(database_url),
            models=folder / "models",
            home=folder / "home",
            lease_s=2.0,
            grace_s=10.0,
        )
        yield Site(settings, folder)


@pytest.fixture(autouse=True)
def fresh(site: Site) -> Iterator[None]:
    """Nothing is held, cured or noted when a test begins."""
    site.reset()
    yield
    site.let_go()
