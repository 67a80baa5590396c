"""Web pages: those of other addresses may not use the gateway through the browser of somebody who reaches it."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from headrace.gateway.http.problem import problem

#: Methods that change nothing; a browser keeps their answers from pages of other addresses.
_HARMLESS: Final = {"GET", "HEAD", "OPTIONS"}


class OwnPages:
    """Refuses what browsers send for pages of other addresses. Everything but a browser sends no Origin, and passes.

    Without this, any page could submit requests to a gateway on its visitor's own machine. An application that the
    gateway is mounted in decides for itself which pages it trusts.
    """

    def __init__(self, app: ASGIApp) -> None:
        """app: gets what is not refused."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["method"] not in _HARMLESS:
            origin = foreign_origin(scope["headers"])
            if origin:
                detail = (
                    f"pages of {origin} may not use this gateway; serve them from its own address, or let a proxy in "
                    "front of both decide"
                )
                await problem("foreign-page", detail)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def foreign_origin(headers: list[tuple[bytes, bytes]]) -> str:
    """Return the address of the page that sends a request, "" if it is the gateway's own, or no page. headers: raw."""
    origin = host = b""
    for name, value in headers:
        if name == b"origin":
            origin = value
        elif name == b"host":
            host = value
    # Schemes may differ: a proxy in front may speak TLS.
    if not origin or origin.lower().partition(b"://")[2] == host.lower():
        return ""
    return origin.decode("latin-1")
