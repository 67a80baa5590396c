"""The error texts of model servers: what each of them means for a batch.

Statuses alone don't tell: TensorFlow Serving and Triton call a batch with too many rows an invalid argument, as they
call bad values, and several servers call a model that is loading not found.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import cache
from typing import ClassVar, Final

import msgspec

from headrace.runtimes.remote.base import (
    MOST_BEFORE_REMEDY,
    BatchTooLarge,
    Misconfigured,
    ModelNotReady,
    OtherSignature,
    Refused,
    ServerBusy,
    in_line,
)


class NotFound(Misconfigured):
    """The server says that it can't find something: the model, or what the values of a batch name.

    Servers use one status for both; `check_ready` tells which, unless the text does.
    """

    #: What to do about it.
    remedy: ClassVar = "load the model there, or correct [server] in its model.toml"

    def __init__(self, line: str, of_model: bool = False) -> None:
        """line: with a few of the server's own words. of_model: whether they name the model, or a version of it."""
        super().__init__(f"{line}; {self.remedy}")
        self.line = line
        self.of_model = of_model

    def when_ready(self) -> Exception:
        """Return the error for a model that proved to be ready: the values are refused, or a version is missing."""
        return self if self.of_model else Refused(self.line)


class NoModelServer(NotFound):
    """Nothing at that address knows the path: a web server, an ingress without a backend, or another protocol."""

    remedy = "no model server of this kind answers there; correct the address, or the ingress in front of the server"

    def when_ready(self) -> Exception:
        """Return this error: whoever has no such path has looked at no values."""
        return self


class Meaning(Enum):
    """The cause that a text speaks of."""

    BUSY = "busy"
    TOO_LARGE = "too large"
    OUT_OF_MEMORY = "out of memory"
    LOADING = "loading"
    ABSENT = "absent"
    OTHER_SIGNATURE = "other signature"
    UNKNOWN = "unknown"


class Reading(msgspec.Struct, frozen=True):
    """A text in one line, and its meaning. most_rows: that the server takes in a batch, 0 if it doesn't say."""

    text: str
    meaning: Meaning
    most_rows: int = 0

    def failure(self, where: str) -> Exception | None:
        """Return the error to raise for the meaning, None for UNKNOWN. where: such as `resnet at grpc://host:8500`."""
        line = f"{where}: {in_line(self.text)}"
        brief = f"{where}: {in_line(self.text, MOST_BEFORE_REMEDY)}"
        match self.meaning:
            case Meaning.BUSY:
                return ServerBusy(line)
            case Meaning.TOO_LARGE | Meaning.OUT_OF_MEMORY:
                return BatchTooLarge(line, self.most_rows)
            case Meaning.LOADING:
                return ModelNotReady(line)
            case Meaning.ABSENT:
                return NotFound(brief, of_model=True)
            case Meaning.OTHER_SIGNATURE:
                return OtherSignature(f"{brief}; add the model anew with `headrace models add --server`")
            case _:
                return None


#: What may stand before a server's own text. Everything else is matched at the start of the text: further on, a text
#: may quote values of a request, and no request may pass for a busy server, or lower the rows of everyone's batches.
_START: Final = (
    r"(?:\[request id: [^\]]*\] |in ensemble '[^']*', |Stream removed \(|CLIENT: |SERVER: |\w+Exception: "
    r"|Unexpected <class 'mlserver\.errors\.\w+'>: )*"
)

#: In the order of the questions. Sources: TensorFlow's batching_util (shared_batch_scheduler, batch_scheduler_utils),
#: TensorFlow Serving's servable managers and predict_util; Triton's core (infer_request, scheduler_utils,
#: model_lifecycle); OpenVINO Model Server's status.cpp; TorchServe's ApiUtils; MLServer's and KServe's errors; gRPC of
#: C, Go, Java and Rust.
_PATTERNS: Final[tuple[tuple[Meaning, str], ...]] = (
    (Meaning.TOO_LARGE, r"Task size \d+ is larger than maximum input batch size (?P<rows>\d+)"),
    (Meaning.TOO_LARGE, r"inference request batch-size must be <= (?P<rows>\d+)"),
    (Meaning.TOO_LARGE, r"Batch size \d+ exceeds (?:the )?max(?:imum)?(?: batch size)?\D{0,3}(?P<rows>\d+)"),
    (Meaning.TOO_LARGE, r"(?:the )?batch(?:[ -]size)? (?:is )?too (?:large|big)"),
    (Meaning.TOO_LARGE, r"too many rows"),
    (Meaning.TOO_LARGE, r"(?:grpc: )?(?:trying to send |received |sent )message larger than max \("),
    (Meaning.TOO_LARGE, r"gRPC message exceeds maximum size"),
    (Meaning.TOO_LARGE, r"(?:Error, )?(?:decoded |encoded )?message length too large"),
    (Meaning.BUSY, r"The batch scheduling queue to which this task was submitted is full"),
    (Meaning.BUSY, r"This task would start a fresh batch, but all batch threads are busy"),
    (Meaning.BUSY, r"all batch threads are busy"),
    (Meaning.BUSY, r"Exceeds maximum queue size"),
    (Meaning.BUSY, r'Model "[^"]*"(?: Version \S+)? has no worker to serve inference request'),
    (Meaning.BUSY, r"(?:queue|server|service|model) is (?:full|busy|overloaded)"),
    (Meaning.BUSY, r"too many (?:concurrent )?requests"),
    (Meaning.LOADING, r"(?:Request for unknown model: )?'[^']*'(?: version \S+)? is not at ready state"),
    (Meaning.LOADING, r"(?:Request for unknown model: )?'[^']*' has no available versions"),
    (Meaning.LOADING, r"(?:Model|Pipeline)(?: with requested version)? is not loaded yet"),
    (Meaning.LOADING, r"Model (?:with name )?\S+ is not (?:yet )?ready"),
    (Meaning.LOADING, r"Server is (?:stopping|not ready|not live)"),
    (Meaning.ABSENT, r"Servable not found for request: "),
    (Meaning.ABSENT, r"Could not find any versions of model"),
    (Meaning.ABSENT, r"Could not find version \S+ of model"),
    (Meaning.ABSENT, r"Unrecognized servable version label: "),
    (Meaning.ABSENT, r"Request for unknown model: '[^']*'(?: version \S+)? is not found"),
    (Meaning.ABSENT, r"Model with requested (?:name|version|name and/or version) is (?:not found|retired)"),
    (Meaning.ABSENT, r"Model (?:with name )?\S+(?: with version(?: \S+)?)? (?:not found|does not exist)"),
    (Meaning.ABSENT, r"Model not found: "),
    (Meaning.ABSENT, r"Model version: \S+ does not exist for model: "),
    (Meaning.OTHER_SIGNATURE, r"(?:input|output) tensor alias not found in signature: "),
    (Meaning.OTHER_SIGNATURE, r"input size does not match signature: "),
    (Meaning.OTHER_SIGNATURE, r"Serving signature (?:name|key)[: ]"),
    (Meaning.OTHER_SIGNATURE, r"(?:No signature was found|Invalid signature name)"),
    (Meaning.OTHER_SIGNATURE, r"unexpected inference (?:input|output) '"),
    (Meaning.OTHER_SIGNATURE, r"expected \d+ inputs but got \d+ inputs for model"),
    (Meaning.OTHER_SIGNATURE, r"(?:Invalid number of inputs|Missing input with specific name)"),
)


@cache
def _compiled() -> tuple[tuple[Meaning, re.Pattern[str]], ...]:
    """Return the patterns; compiled for the first error, since they take longer than all else of this module."""
    return tuple((meaning, re.compile(_START + pattern, re.IGNORECASE)) for meaning, pattern in _PATTERNS)


#: OpenVINO Model Server names the one row count of a model whose batch is fixed, in both directions.
_FIXED_ROWS: Final = re.compile(
    r"Invalid (?:input )?batch size - Expected: (?P<rows>\d+); Actual: (?P<have>\d+)", re.IGNORECASE
)

#: Memory that ran out is found anywhere in a text: frameworks wrap it in their own. It names no number of rows.
_OUT_OF_MEMORY: Final = re.compile(
    r"OOM when allocating|CUDA out of memory|CUDA_OUT_OF_MEMORY|CUDNN_STATUS_ALLOC_FAILED|std::bad_alloc"
    r"|Failed to allocate memory for requested buffer|failed to allocate \w+ memory",
    re.IGNORECASE,
)

#: A longer text is cut before it is searched.
MOST_SEARCHED: Final = 4000


def read_text(text: str) -> Reading:
    """Return what a server's error text means."""
    text = in_line(text, MOST_SEARCHED)
    for meaning, pattern in _compiled():
        if found := pattern.match(text):
            return Reading(text, meaning, _rows(found))
    if (found := _FIXED_ROWS.match(text)) and int(found["have"]) > int(found["rows"]):
        return Reading(text, Meaning.TOO_LARGE, _rows(found))
    if _OUT_OF_MEMORY.search(text):
        return Reading(text, Meaning.OUT_OF_MEMORY)
    return Reading(text, Meaning.UNKNOWN)


def _rows(found: re.Match[str]) -> int:
    rows = found.groupdict().get("rows") or "0"
    # More digits than any batch has; int() of thousands of them would take seconds, or raise.
    return int(rows) if len(rows) < 10 else 0
