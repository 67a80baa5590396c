"""The call ModelInfer."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from headrace.contracts.errors import HeadraceError
from headrace.gateway.inference.failure import Failure, Kind
from headrace.gateway.inference.gateway import Gateway
from headrace.gateway.inference.interruption import Interruptible
from headrace.gateway.inference.question import Answer, Question
from headrace.gateway.oip.answer import Identity, asked_for, chosen_outputs
from headrace.gateway.rpc.answer import refuse_raw_only, write_answer
from headrace.gateway.rpc.request import ModelRequest, read_request
from headrace.gateway.rpc.status import REQUEST_ID

#: A client ends its call at its deadline, which the server knows no better than this, as gRPC rounds it up.
_ROUNDING: Final = 0.01
_DELAY_S: Final = 0.05


class Call(Protocol):
    """A call, as gRPC knows it."""

    def time_remaining(self) -> float | None:
        """Return the seconds until its deadline, None without one."""

    def set_trailing_metadata(self, trailing_metadata: tuple[tuple[str, str], ...], /) -> None:
        """Set what is sent behind the answer."""


async def model_infer(gateway: Gateway, received: bytes, call: Call) -> bytes:
    """Run a model. Raises Failure, HeadraceError."""
    asked = read_request(received)
    await _refuse_in_vain(gateway, asked)
    remaining_s = call.time_remaining()
    longest_s = gateway.settings.gateway_wait_s
    limits = (asked.request.parameters.timeout_s, remaining_s, longest_s)
    wait_s = min(limit for limit in limits if limit is not None)
    if wait_s <= 0:
        raise Failure(Kind.DEADLINE, "the deadline of the call passed before its request was read; allow more time")
    answer = await _answer(gateway, asked, wait_s, call)
    try:
        outputs = chosen_outputs(answer.outputs, asked.request)
        identity = Identity(asked.model, answer.version, asked.request.id or answer.id)
        written = write_answer(identity, outputs, raw=asked.request.parameters.binary)
    except HeadraceError as exc:
        exc.request_id = answer.id
        raise
    call.set_trailing_metadata(((REQUEST_ID, answer.id),))
    return written


async def _answer(gateway: Gateway, asked: ModelRequest, wait_s: float, call: Call) -> Answer:
    """Submit a request and wait for its answer; cancel it if the client cancels the call."""
    question = Question(
        model=asked.model,
        version=asked.version,
        inputs=asked.request.inputs,
        deadline_s=wait_s,
        priority=asked.request.parameters.priority,
    )
    handle = await gateway.inference.submit_whole(question)
    try:
        return await gateway.inference.answer(handle, question, wait_s, Interruptible())
    except asyncio.CancelledError:
        # After the deadline, the row shall say so.
        if not _is_late(call.time_remaining(), wait_s):
            gateway.inference.cancel_later(handle)
        raise


def _is_late(remaining_s: float | None, wait_s: float) -> bool:
    return remaining_s is not None and remaining_s <= _DELAY_S + wait_s * _ROUNDING


async def _refuse_in_vain(gateway: Gateway, asked: ModelRequest) -> None:
    """Refuse before any work what could not be answered: outputs that the model has not, or that can't be typed."""
    signature = await gateway.models.signature(asked.model, asked.version)
    if signature is None:
        return
    for name, datatype in asked_for(asked.request, signature, asked.model).items():
        if not asked.request.parameters.binary:
            refuse_raw_only(name, datatype)
