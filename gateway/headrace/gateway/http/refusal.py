"""A refusal that is HTTP's own: raised anywhere in a route, sent as a problem."""

from __future__ import annotations

from starlette.responses import Response

from headrace.gateway.http.problem import problem


class HttpRefusal(Exception):
    """A request that is refused for its HTTP, before anything of headrace is asked. kind: one of `problem.KINDS`.

    close: the connection is closed after the answer, since the rest of the body is not read.
    """

    def __init__(
        self, kind: str, detail: str, *, field: str = "", headers: dict[str, str] | None = None, close: bool = False
    ) -> None:
        """detail: one line with cause and remedy."""
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.field = field
        self.headers = dict(headers or {}) | ({"Connection": "close"} if close else {})

    def response(self) -> Response:
        """Return the answer."""
        return problem(self.kind, self.detail, field=self.field, headers=self.headers)
