"""Screenshots for docs/flower.md, of a local stack under load: `python -m docs.make_screenshots`."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Final

from playwright.sync_api import Page, ViewportSize, expect
from tests.browser.chromium import chromium
from tests.browser.load import Load

from headrace.cli.demo.demo import DATA
from headrace.cli.stack.ports import free_port
from headrace.cli.stack.stack import LocalStack, StackOptions

IMAGES: Final = Path(__file__).with_name("images")

SIZE: Final = ViewportSize(width=1160, height=640)
PATIENCE_MS: Final = 20_000


def take(page: Page, name: str, height: int = SIZE["height"]) -> None:
    """Save the top `height` pixels of the page as docs/images/flower-NAME.png."""
    page.set_viewport_size({"width": SIZE["width"], "height": height})
    page.screenshot(path=IMAGES / f"flower-{name}.png", animations="disabled")


def take_all(page: Page, load: Load) -> None:
    """Visit the pages of Flower."""
    page.goto("/workers")
    busy = page.locator("#workers-active", has_text=re.compile("[1-9]"))
    expect(busy).to_be_visible(timeout=PATIENCE_MS)
    take(page, "workers", 580)

    page.goto("/tasks")
    expect(page.locator("#tasks-table tbody tr", has_text="batch.digits").first).to_be_visible()
    take(page, "tasks")

    page.get_by_placeholder("state:FAILURE").fill("name:batch.digits kwargs:rows=64")
    page.get_by_placeholder("state:FAILURE").press("Enter")
    expect(page.locator("#tasks-table tbody tr", has_text="infer.digits")).to_have_count(0)
    page.locator("#tasks-table tbody a[href*='/task/']").first.click()
    expect(page.get_by_text("Keyword arguments")).to_be_visible()
    take(page, "batch", 1060)

    page.goto(f"/task/{load.wrong}")
    expect(page.get_by_text("Exception")).to_be_visible()
    take(page, "failure", 980)


def main() -> None:
    """Start the stack and the load, and take the screenshots."""
    IMAGES.mkdir(exist_ok=True)
    options = StackOptions(processes=2, flower_port=free_port())
    with (
        tempfile.TemporaryDirectory(prefix="headrace-pictures-") as folder,
        LocalStack(Path(folder), DATA / "models", options) as stack,
        chromium() as browser,
    ):
        page = browser.new_page(base_url=stack.address.flower_url, viewport=SIZE, color_scheme="light")
        page.goto("/workers")
        expect(page.locator("#workers-online")).to_have_text("2", timeout=PATIENCE_MS)
        with Load(stack) as load:
            take_all(page, load)


if __name__ == "__main__":
    main()
