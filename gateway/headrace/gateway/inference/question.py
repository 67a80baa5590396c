"""A request and its answer as the core knows them, whatever the protocol."""

from __future__ import annotations

import msgspec

from headrace.contracts.tensors.codec import Tensors


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A request to a model.

    version: "" is the workers' default. deadline_s: seconds from now. priority: 0 to 9, the most urgent.
    """

    model: str
    version: str = ""
    inputs: Tensors
    deadline_s: float | None = None
    priority: int = 0


class Answer(msgspec.Struct, frozen=True):
    """The outputs of a request, rows first. id: of the row. version: that answered, "" where it isn't known."""

    id: str
    outputs: Tensors
    version: str = ""
