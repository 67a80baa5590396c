"""The local stack with two workers under load, and pages of its Flower that tolerate no JavaScript error."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from tests.browser.chromium import chromium
from tests.browser.load import Load

from headrace.cli.demo.demo import DATA
from headrace.cli.stack.ports import free_port
from headrace.cli.stack.stack import LocalStack, StackOptions

#: For pages that wait for the next heartbeat or inspection on a machine under load.
PATIENCE_MS = 20_000


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalStack]:
    with tempfile.TemporaryDirectory(prefix="headrace-browser-") as folder:
        options = StackOptions(processes=2, flower_port=free_port())
        with LocalStack(Path(folder), DATA / "models", options) as stack:
            yield stack


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def load(stack: LocalStack, browser: Browser) -> Iterator[Load]:
    """Load that begins when Flower hears both workers, so that it misses nothing."""
    page = browser.new_page()
    page.goto(stack.address.flower_url + "/workers")
    expect(page.locator("#workers-online")).to_have_text("2", timeout=PATIENCE_MS)
    page.close()
    with Load(stack) as load:
        yield load


@pytest.fixture
def page(stack: LocalStack, browser: Browser) -> Iterator[Page]:
    """A page whose addresses are Flower's; an error in its scripts, or one of its files missing, fails the test."""
    context = browser.new_context(base_url=stack.address.flower_url)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "response", lambda answer: errors.append(answer.url) if "/static/" in answer.url and not answer.ok else None
    )
    yield page
    context.close()
    assert errors == []
