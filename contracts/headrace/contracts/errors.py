"""Every error a user of headrace can meet, as one tree.

HeadraceError
├── InvalidRequest              the request can never succeed as it is
│   ├── UnknownModel
│   │   └── NotRegistered
│   ├── SignatureMismatch
│   └── PayloadTooLarge
├── QueueFull
├── DeadlineExceeded
├── Cancelled
├── InferenceFailed             for a cause that nobody knows
│   ├── InputRefused            the model can't run this input
│   ├── OutputMismatch          the model isn't what its package says
│   ├── RuntimeTrouble          the same request may succeed later
│   ├── ModelOutOfMemory
│   └── PoisonRequest
├── ResultTimeout
├── RequestLost                 the broker lost the request with its data
├── StoreUnavailable
├── BrokerUnavailable
├── PackageError
└── ConfigurationError

The docstring of a class is its default message and names the next step. `type` is the name that is
stored in `predictions.error` and sent in replies; `error_from_wire` turns it back into the class.
"""

from __future__ import annotations

from typing import ClassVar, Final

#: Messages are stored, sent and logged by the thousand, and may quote what a client sent; longer ones are cut.
MAX_MESSAGE_CHARACTERS: Final = 1000

#: How much of a client's text an error quotes: enough to recognise it.
MAX_QUOTED_CHARACTERS: Final = 100


def quoted(text: object) -> str:
    """Quote what a client sent, for an error message: its repr, cut to a length that one line bears."""
    if isinstance(text, str):
        text = text[: MAX_QUOTED_CHARACTERS + 1]
    written = repr(text)
    return written if len(written) <= MAX_QUOTED_CHARACTERS else f"{written[:MAX_QUOTED_CHARACTERS]}…"


def _one_line(text: str) -> str:
    """Keep what a log line, a terminal and Postgres text can all hold: no control characters, no lone surrogates."""
    if not text.isprintable():
        text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text if len(text) <= MAX_MESSAGE_CHARACTERS else f"{text[:MAX_MESSAGE_CHARACTERS]}…"


class HeadraceError(Exception):
    """headrace could not do what was asked."""

    #: Whether the same request may succeed when it is submitted again unchanged.
    retriable: ClassVar[bool] = False

    def __init__(self, message: str | None = None, *, request_id: str | None = None) -> None:
        """message: one line with cause and remedy; the class's docstring if None or empty."""
        super().__init__(_one_line(message or type(self).__doc__ or ""))
        self.request_id = request_id

    @property
    def message(self) -> str:
        """The line for a person."""
        return str(self.args[0])

    @property
    def type(self) -> str:
        """The name under which this error is stored and sent."""
        return type(self).__name__


class InvalidRequest(HeadraceError):
    """The request is not one that this model can answer; correct it and submit it again."""


class UnknownModel(InvalidRequest):
    """No worker serves this model; `headrace models list` shows those in the model directory."""


class NotRegistered(UnknownModel):
    """The task is none of its queue's; send `infer.MODEL` to the queue `infer.MODEL`."""


class SignatureMismatch(InvalidRequest):
    """The inputs do not fit the model's signature; `headrace models show MODEL` prints it."""


class PayloadTooLarge(InvalidRequest):
    """The request is larger than HEADRACE_MAX_PAYLOAD_BYTES; split it into several requests."""


class QueueFull(HeadraceError):
    """The queue of this model is at its limit; submit again later or raise HEADRACE_QUEUE_LIMIT."""

    retriable = True


class DeadlineExceeded(HeadraceError):
    """The deadline passed before the model ran; allow more time or add workers."""


class Cancelled(HeadraceError):
    """The request was cancelled."""


class InferenceFailed(HeadraceError):
    """The model's runtime failed on this request; the worker's log has the cause under its request id."""


class InputRefused(InferenceFailed):
    """The model can't run this input; `headrace models show MODEL` prints what it takes."""


class OutputMismatch(InferenceFailed):
    """The outputs are not what `model.toml` says; add the model file anew with `headrace models add`."""


class RuntimeTrouble(InferenceFailed):
    """The runtime had trouble that did not pass; submit the request again later, or see the worker's log."""

    retriable = True


class ModelOutOfMemory(InferenceFailed):
    """The request needs more memory than the device has, even alone; make it smaller or give the worker more memory."""


class PoisonRequest(InferenceFailed):
    """Workers died whenever they ran this request; `headrace dead list` shows it and what happened."""


class ResultTimeout(HeadraceError, TimeoutError):
    """No result within the time given; the request goes on, and `Client.get(request_id)` will find its row."""

    retriable = True


class RequestLost(HeadraceError):
    """The broker lost the request with its data; submit it again, with the same request_id or with `durable=True`."""

    retriable = True


class StoreUnavailable(HeadraceError):
    """Postgres can't be reached; check HEADRACE_DATABASE_URL and that the server runs."""

    retriable = True


class BrokerUnavailable(HeadraceError):
    """Redis or Valkey can't be reached; check HEADRACE_BROKER_URL and that the server runs."""

    retriable = True


class PackageError(HeadraceError):
    """The model package can't be used; `headrace models add FILE` makes a correct one."""


class ConfigurationError(HeadraceError):
    """A setting is missing or wrong; docs/settings.md lists them all."""


def _tree(cls: type[HeadraceError]) -> dict[str, type[HeadraceError]]:
    found = {cls.__name__: cls}
    for sub in cls.__subclasses__():
        found.update(_tree(sub))
    return found


_BY_NAME = _tree(HeadraceError)


def error_from_wire(type_name: str, message: str, request_id: str | None = None) -> HeadraceError:
    """Rebuild the error that a worker stored or sent; an unknown name becomes `InferenceFailed`."""
    return _BY_NAME.get(type_name, InferenceFailed)(message, request_id=request_id)
