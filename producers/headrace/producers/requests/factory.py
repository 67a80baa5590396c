"""Builds requests: checks inputs and options, and encodes them for the queue."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, NamedTuple

import numpy as np

from headrace.contracts.errors import InvalidRequest, PackageError
from headrace.contracts.ids import MAX_ID_LENGTH, is_storable, new_id, new_ids
from headrace.contracts.message import (
    JSON_CONTENT_TYPE,
    MAX_PRIORITY,
    Envelope,
    Request,
    RequestHeader,
    encode_request,
    json_body,
)
from headrace.contracts.package.manifest import check_name
from headrace.contracts.settings import Settings
from headrace.contracts.tensors.codec import CONTENT_TYPE, encode_tensors
from headrace.producers.requests.inputs import (
    Checked,
    check_inputs,
    cut_first,
    raw_bytes,
    refuse_oversized,
    refuse_oversized_arrays,
)
from headrace.producers.requests.row_bodies import has_fixed_size, json_bodies, row_bytes, tensor_bodies
from headrace.producers.requests.signatures import Catalog, Known

#: Ten years: a longer deadline is a mistake of units, and dates end somewhere.
MAX_DEADLINE_S: Final = 3650 * 86400.0

#: Requests that submit_many encodes and sends at once: large enough to fill a pipeline, small enough that the
#: first requests run while the last are still encoded.
BLOCK_REQUESTS: Final = 1024


@dataclass(frozen=True, slots=True)
class SubmitOptions:
    """Options of a request. deadline_s: seconds from now, or None. version: "" is the model's default."""

    priority: int = 0
    deadline_s: float | None = None
    version: str = ""

    def __post_init__(self) -> None:
        """Refuse what no worker could honour. Raises InvalidRequest."""
        if not isinstance(self.priority, int) or not 0 <= self.priority <= MAX_PRIORITY:
            raise InvalidRequest(f"priority must be 0 (default) to {MAX_PRIORITY} (most urgent), not {self.priority!r}")
        if self.deadline_s is not None and not 0 < self.deadline_s <= MAX_DEADLINE_S:
            raise InvalidRequest(
                f"deadline_s must be above 0 and at most {MAX_DEADLINE_S:.0f} seconds, not {self.deadline_s!r}"
            )
        if self.version:
            _check_name("model version", self.version)


class Block(NamedTuple):
    """Requests that are sent together, in order. compacted: template and bodies of the messages, if they share one."""

    ids: list[str]
    messages: list[bytes]
    compacted: tuple[bytes, Sequence[bytes]] | None = None


def check_id(request_id: str) -> str:
    """Refuse a request id that can't be stored. Raises InvalidRequest."""
    if not isinstance(request_id, str) or not 0 < len(request_id) <= MAX_ID_LENGTH:
        raise InvalidRequest(f"request_id must be a string of 1 to {MAX_ID_LENGTH} characters")
    if not is_storable(request_id):
        raise InvalidRequest("request_id must not hold NUL or lone surrogates; Postgres can't store them")
    return request_id


def check_timeout(timeout_s: float | None) -> None:
    """Refuse a time-out that is no number of seconds. Raises InvalidRequest."""
    if timeout_s is not None and not timeout_s >= 0:
        raise InvalidRequest(f"timeout_s must be at least 0 seconds, or None, not {timeout_s!r}")


def _check_name(kind: str, value: str) -> None:
    if not isinstance(value, str):
        raise InvalidRequest(f"{kind} must be a string, not {type(value).__name__}")
    try:
        check_name(kind, value)
    except PackageError as exc:
        raise InvalidRequest(exc.message) from None


class RequestFactory:
    """Makes the messages of one client; does no network I/O, so every kind of client shares it."""

    def __init__(self, settings: Settings, inbox: str) -> None:
        """inbox: key of the list that replies go to."""
        self._inbox = inbox
        self._max_payload_bytes = settings.max_payload_bytes
        #: What inputs are checked against; a `CatalogRefresh` keeps it up to date.
        self.catalog = Catalog(settings.models)
        self._origin = f"{os.getpid()}@{socket.gethostname()}"

    def one(self, model: str, inputs: Mapping[str, object], options: SubmitOptions, request_id: str | None) -> Block:
        """Make one request of all the rows given; its id is a fresh one if None.

        Raises InvalidRequest and its subclasses before anything is sent.
        """
        identity = new_id() if request_id is None else check_id(request_id)
        _check_name("model name", model)
        # Before the check, which reads every value.
        refuse_oversized_arrays(raw_bytes(inputs), self._max_payload_bytes)
        known = self.catalog.resolve(model, options.version)
        checked = check_inputs(inputs, known.signature)
        body = json_body(checked.values) if checked.is_json else encode_tensors(checked.values)
        request = self._request(model, options, known, checked.rows, is_json=checked.is_json)
        request.id, request.body = identity, body
        return Block([identity], [self._within_limit(encode_request(request))])

    def per_row(self, model: str, inputs: Mapping[str, object], options: SubmitOptions) -> Iterator[Block]:
        """Make one request of each row, in blocks. Raises like `one`, before the first block comes out."""
        _check_name("model name", model)
        raw_bytes(inputs)
        known = self.catalog.resolve(model, options.version)
        checked = check_inputs(inputs, known.signature)
        if known.signature is None:
            checked = cut_first(checked)
        arrays = {name: value for name, value in checked.values.items() if isinstance(value, np.ndarray)}
        refuse_oversized_arrays(row_bytes(arrays, checked.axes, checked.rows), self._max_payload_bytes)
        envelope = Envelope(self._request(model, options, known, 1, is_json=checked.is_json))
        blocks = (self._block(envelope, checked, start) for start in range(0, checked.rows, BLOCK_REQUESTS))
        if checked.is_json or not all(map(has_fixed_size, checked.values.values())):
            # Rows of unequal size: only when all are encoded is it sure that each is within the limit.
            return iter(list(blocks))
        return chain([next(blocks)], blocks)

    def _block(self, envelope: Envelope, checked: Checked, start: int) -> Block:
        stop = min(start + BLOCK_REQUESTS, checked.rows)
        bodies = json_bodies if checked.is_json else tensor_bodies
        ids, encoded = new_ids(stop - start), list(bodies(checked.values, checked.axes, start, stop))
        messages = list(map(envelope.encode, ids, encoded))
        self._within_limit(max(messages, key=len))
        template = envelope.template
        return Block(ids, messages, None if template is None else (template, encoded))

    def _request(self, model: str, options: SubmitOptions, known: Known, rows: int, *, is_json: bool) -> Request:
        now = time.time()
        version = f" v{options.version}" if options.version else ""
        return Request(
            id="",
            model=model,
            body=b"",
            header=RequestHeader(
                version=known.version,
                checked="" if known.version else known.checked,
                rows=rows,
                inbox=self._inbox,
                submitted_at=now,
            ),
            content_type=JSON_CONTENT_TYPE if is_json else CONTENT_TYPE,
            priority=options.priority,
            expires_at=None if options.deadline_s is None else now + options.deadline_s,
            note=f"{model}{version}" + (f", {rows} row{'' if rows == 1 else 's'}" if rows else ""),
            origin=self._origin,
        )

    def _within_limit(self, message: bytes) -> bytes:
        if len(message) > self._max_payload_bytes:
            refuse_oversized(len(message), self._max_payload_bytes)
        return message
