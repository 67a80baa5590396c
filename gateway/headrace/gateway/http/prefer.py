"""The header `Prefer` (RFC 7240): whether a client takes an answer later, and how long it waits for it now."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class Preferences(msgspec.Struct, frozen=True):
    """The preferences of a client. wait_s: None where it states none."""

    respond_async: bool = False
    wait_s: int | None = None

    @property
    def applied(self) -> str:
        """The header Preference-Applied, "" where nothing was preferred that is known here."""
        wait = [] if self.wait_s is None else [f"wait={self.wait_s}"]
        return ", ".join(["respond-async", *wait]) if self.respond_async else ""


def read_prefer(headers: Iterable[str]) -> Preferences:
    """Read all headers `Prefer` of a request; what is unknown or malformed is ignored, as the RFC asks.

    Of two preferences of one name the first counts.
    """
    found: dict[str, str] = {}
    for header in headers:
        for part in header.split(","):
            name, _, value = part.partition(";")[0].partition("=")
            found.setdefault(name.strip().lower(), value.strip().strip('"'))
    wait = found.get("wait", "")
    is_count = wait.isascii() and wait.isdigit() and len(wait) < 10
    return Preferences("respond-async" in found, int(wait) if is_count else None)
