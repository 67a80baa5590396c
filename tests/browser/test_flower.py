"""Flower, unmodified, beside workers under load: what a person sees in Chromium."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, Page, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeout
from tests.browser.conftest import PATIENCE_MS
from tests.browser.load import Load, paused_workers

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

#: A count that is not 0, as Flower writes it.
SOME = re.compile(r"^[1-9][\d,]*$")

#: What a micro-batch is, or several that are shown as one.
BATCH = re.compile(r"^(\d+ batches: )?[\d,]+ rows? of [\d,]+ requests?$")

TIME = re.compile(r"^\s*\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ UTC\s*$")

#: Columns of the workers.
ACTIVE, PROCESSED, SUCCEEDED = 2, 3, 5


def field(page: Page, name: str) -> Locator:
    """The value beside a name on a task's page."""
    label = page.locator("dt", has_text=re.compile(f"^{name}$"))
    return page.locator(".detail-row", has=label).locator("dd")


def open_until(page: Page, path: str, wanted: Locator) -> None:
    """Open a page that shows what Flower knew when it was asked, again until it shows what is wanted."""
    page.goto(path)
    for _ in range(PATIENCE_MS // 1000):
        try:
            wanted.wait_for(timeout=1000)
        except PlaywrightTimeout:
            # Not `goto`, which does nothing where only the part after `#` could be new.
            page.reload()
        else:
            return
    expect(wanted).to_be_visible()


def open_ended_task(page: Page, identity: str, state: str) -> None:
    open_until(page, f"/task/{identity}", field(page, "Status").get_by_text(state, exact=True))
    expect(field(page, "Name")).to_have_text("infer.digits")
    expect(field(page, "Worker")).to_contain_text("headrace-")


def newest(page: Page, name: str) -> Locator:
    """The link to the newest task of a name that succeeded, on the page of tasks."""
    page.goto(f"/tasks?name={name}&state=SUCCESS")
    row = page.locator("#tasks-table tbody tr", has=page.get_by_role("link", name=name, exact=True)).first
    expect(row).to_contain_text("SUCCESS")
    return row.locator("a[href*='/task/']")


def test_the_workers_page_shows_both_workers_online_and_at_work(page: Page, load: Load) -> None:
    page.goto("/workers")
    rows = page.locator("#workers-table tbody tr")
    expect(rows).to_have_count(2)
    for number in (1, 2):
        cells = rows.filter(has_text=f"headrace-{number}@").locator("td")
        expect(cells.nth(1)).to_have_text("Online")
        for column in (ACTIVE, PROCESSED, SUCCEEDED):
            expect(cells.nth(column)).to_have_text(SOME, timeout=PATIENCE_MS)
    expect(page.locator("#workers-online")).to_have_text("2")
    expect(page.locator("#workers-failed")).to_have_text("1")


def test_the_page_of_a_worker_shows_its_pool_queues_and_tasks(page: Page, load: Load) -> None:
    page.goto("/workers")
    link = page.locator("#workers-table tbody").get_by_role("link", name="headrace-1@")
    # The tab of the tasks opens first, so that what it shows is visible once Flower has asked the worker again.
    path = f"{link.get_attribute('href')}#tab-tasks"
    open_until(page, path, page.locator("#tab-tasks").get_by_role("cell", name="batch.digits", exact=True))
    expect(page.get_by_role("heading", level=1)).to_contain_text("headrace-1@")
    expect(page.locator("#tab-tasks tr", has_text="batch.digits").locator("td").last).to_have_text(SOME)
    counted = page.locator("#tab-tasks table").first.locator("tr", has_text="infer.digits").locator("td").last
    expect(counted).to_have_text(SOME)
    # A look at the worker can fall between two batches, when it holds nothing.
    open_until(page, path, page.locator("#tab-tasks").get_by_text("in this worker").first)

    page.get_by_role("tab", name="Pool").click()
    expect(page.locator("#tab-pool")).to_contain_text("solo")
    page.get_by_role("tab", name="Queues").click()
    expect(page.locator("#worker-queues").get_by_role("cell", name="infer.digits", exact=True).first).to_be_visible()
    page.get_by_role("tab", name="Limits").click()
    expect(page.locator("#limits-table")).to_contain_text("infer.digits")
    page.get_by_role("tab", name="Config").click()
    expect(page.locator("#tab-config tr", has_text="worker_pool")).to_contain_text("solo")


def test_a_micro_batch_shows_its_size_reason_and_seconds(page: Page, load: Load) -> None:
    newest(page, "batch.digits").click()
    expect(field(page, "Name")).to_have_text("batch.digits")
    expect(field(page, "Status")).to_have_text("SUCCESS")
    expect(field(page, "Arguments")).to_have_text(BATCH)
    expect(field(page, "Keyword arguments")).to_have_text(re.compile(r"'rows': \d+, 'requests': \d+, .*'reasons?': "))
    expect(field(page, "Keyword arguments")).to_have_text(re.compile(r"'seconds': \d"))
    expect(field(page, "Result")).to_have_text(re.compile(r"^[\d,]+ succeeded$"))
    expect(field(page, "Runtime")).to_have_text(re.compile(r"^\s*[\d.]+ m?s\s*$"))


def test_micro_batches_are_found_by_their_reason(page: Page, load: Load) -> None:
    page.goto("/tasks")
    page.get_by_placeholder("state:FAILURE").fill("name:batch.digits kwargs:reason=backlog")
    page.get_by_placeholder("state:FAILURE").press("Enter")
    found = page.locator("#tasks-table tbody tr", has_text="batch.digits")
    expect(found.first).to_be_visible()
    expect(page.locator("#tasks-table tbody tr", has_text="infer.digits")).to_have_count(0)


def test_a_request_leads_to_its_micro_batch_and_back(page: Page, load: Load) -> None:
    link = newest(page, "infer.digits")
    request = link.get_attribute("title")
    link.click()
    expect(field(page, "Arguments")).to_have_text("digits, 1 row")
    expect(field(page, "Result")).to_have_text(re.compile(r"^1 row in a batch of \d+ rows?$"))
    for time in ("Received", "Started", "Succeeded"):
        expect(field(page, time)).to_have_text(TIME)
    field(page, "Parent id").get_by_role("link").click()
    expect(field(page, "Name")).to_have_text("batch.digits")
    expect(field(page, "Children")).to_contain_text(str(request))


def test_a_failed_request_shows_its_error(page: Page, load: Load) -> None:
    open_ended_task(page, load.wrong, "FAILURE")
    expect(field(page, "Exception")).to_have_text(
        "SignatureMismatch(\"input 'image' must have the shape of image FP32 [rows, 1, 8, 8], rows first, "
        'but has [1, 3]")'
    )
    expect(field(page, "Failed")).to_have_text(TIME)
    expect(field(page, "Traceback")).to_have_count(0)
    page.goto("/tasks?state=FAILURE")
    expect(page.locator("#tasks-table tbody tr")).to_have_count(1)
    expect(page.locator("#tasks-table tbody tr")).to_contain_text("infer.digits")


def test_cancelled_and_expired_requests_are_told_apart(page: Page, load: Load) -> None:
    open_ended_task(page, load.cancelled, "REVOKED")
    expect(field(page, "Exception")).to_contain_text("Cancelled(")
    open_ended_task(page, load.expired, "REVOKED")
    expect(field(page, "Exception")).to_contain_text("DeadlineExceeded(")


def test_the_broker_page_counts_what_waits(page: Page, load: Load) -> None:
    queue = page.locator("#queue-table tbody tr", has_text="infer.digits")
    with paused_workers():
        open_until(page, "/broker", queue.locator("td").nth(1).get_by_text(re.compile(r"^[1-9]\d*$")))
