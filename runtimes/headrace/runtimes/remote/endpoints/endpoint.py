"""One endpoint at work: a call on its connection, and what that says of the endpoint."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final, Literal, NoReturn

import msgspec

from headrace.contracts.errors import PackageError
from headrace.contracts.package.signature import TensorSpec
from headrace.contracts.problem import Problem, in_one_line
from headrace.contracts.tensors.codec import Tensors
from headrace.runtimes.base import Computed, TransientFailure
from headrace.runtimes.remote.base import (
    BadAnswer,
    BatchTooLarge,
    Connection,
    Misconfigured,
    NoAnswer,
    OtherSignature,
    Refused,
    RemoteSignature,
    ServerAway,
    ServerBusy,
    placed,
)
from headrace.runtimes.remote.endpoints.answer_check import checked
from headrace.runtimes.remote.endpoints.load import Load

logger = logging.getLogger(__name__)

#: A model's tensors, or whether it is ready, are asked for with this time-out: no model runs for it.
ASKED_S: Final = 5.0

#: An endpoint where a person must act is asked again after this time.
MISCONFIGURED_S: Final = 10.0

#: A model's tensors are looked at again when it refuses a batch, but not more often than this after such a look.
LOOK_AGAIN_S: Final = 2.0

#: A call that ends so close to its time-out has run out of time.
CLOSE_S: Final = 0.01


class TooLong(TransientFailure):
    """A batch took longer than the server's time, while the server answered others: it counts as a retry."""


class Call(msgspec.Struct, frozen=True, eq=False):
    """A batch for an endpoint. until: monotonic seconds; patient: that is the server's own time, not a deadline.

    outputs: those that are wanted. nan: whether they may hold NaN.
    """

    inputs: Tensors
    outputs: tuple[TensorSpec, ...]
    rows: int
    until: float
    patient: bool
    nan: Literal["allow", "refuse"]


class Endpoint:
    """A connection and its load; `load` is to be touched under `lock` only.

    judge: returns how a signature differs from the one that is expected, "" if it doesn't. problem: why it gives no
    answers at present, None while it does.
    """

    def __init__(
        self,
        name: str,
        connection: Connection,
        load: Load,
        lock: threading.Condition,
        judge: Callable[[RemoteSignature], str],
    ) -> None:
        """name: for people."""
        self.name = name
        self.load = load
        self._connection = connection
        self._lock = lock
        self._judge = judge
        # One look at a time.
        self._looking = threading.Lock()
        self._version = ""
        self._said = ""
        self.problem: Problem | None = None
        #: Whether a batch found a problem that no check has seen, so that no check can tell that it is over.
        self._unseen = False
        #: Whether the model's tensors were seen to be as expected since the endpoint was last away.
        self._verified = False
        self._looked_at = 0.0
        #: Whether calls since the last answer ran out of time, though the connection stands.
        self._mute = False

    def run(self, call: Call) -> Computed:
        """Run a batch for which `load.begin` was called.

        Raises ServerAway, also for a model with other tensors; TooLong, BatchTooLarge, Refused, BadAnswer.
        """
        answers = self.load.answers
        try:
            self._verify(call.until)
            names = [spec.name for spec in call.outputs]
            answer = self._connection.infer(call.inputs, names, max(call.until - time.monotonic(), 0.001))
            outputs = self._checked(answer.outputs, call)
        except ServerBusy as exc:
            with self._lock:
                self.load.busy(time.monotonic(), exc.retry_after_s)
            raise
        except ServerAway as exc:
            self._lost(exc, call, answers)
        except OtherSignature as exc:
            self._look_again(exc, at_once=True)
            self._misconfigured(exc)
        except Misconfigured as exc:
            self._misconfigured(exc)
        except (Refused, BadAnswer) as exc:
            self._answered()
            self._look_again(exc)
            raise
        except BatchTooLarge:
            self._answered()
            raise
        self._succeeded(answer.version, call.rows)
        return Computed(outputs, answer.version)

    def _checked(self, outputs: Tensors, call: Call) -> Tensors:
        """Return the outputs that a batch wants. Raises BadAnswer that names the endpoint."""
        try:
            return checked(outputs, call.outputs, call.rows, call.nan)
        except BadAnswer as exc:
            raise placed(exc, self.name) from None

    def check(self) -> None:
        """Ask an endpoint that was away, or had another model, whether it is back; never raises."""
        try:
            self._verified = False
            if self._mute:
                # A connection that nothing passes stands for a minute, and new ones may work.
                self._connection.reopen()
            self._look()
            self._connection.check_ready(ASKED_S)
        except (ServerAway, Misconfigured) as exc:
            self._mute = isinstance(exc, NoAnswer)
            self._note(exc)
            self._set_problem(exc)
            least_s = MISCONFIGURED_S if isinstance(exc, Misconfigured) else getattr(exc, "retry_after_s", 0.0)
            with self._lock:
                self.load.failed(time.monotonic(), least_s)
        except Exception as exc:  # noqa: BLE001 — a server may answer anything, and this thread must go on
            self._note(exc)
            self._set_problem(exc)
            with self._lock:
                self.load.failed(time.monotonic(), MISCONFIGURED_S)
        else:
            self._mute = False
            if not self._unseen and not self.load.mismatch:
                self.problem = None
            with self._lock:
                self.load.breaker.ready()
                self._lock.notify_all()

    def compare(self) -> None:
        """Look whether an endpoint with another model has the right one again; never raises."""
        try:
            self._look()
        except Exception as exc:  # noqa: BLE001 — a server may answer anything, and it is asked again
            self._note(exc)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _verify(self, until: float) -> None:
        """Look at the model's tensors unless that was done since the endpoint was last away."""
        if self._verified:
            return
        with self._looking:
            if not self._verified:
                self._look(min(ASKED_S, max(until - time.monotonic(), 0.001)))
        if self.load.mismatch:
            raise ServerAway(self.load.mismatch)

    def _look(self, timeout_s: float = ASKED_S) -> None:
        """Compare the model's tensors with the package. Raises what `Connection.signature` raises."""
        try:
            found = self._judge(self._described(timeout_s))
        except PackageError as exc:
            found = exc.message
        mismatch = ""
        if found:
            mismatch = (
                f"the model on {self.name} isn't the one of the package any more: {found}; add it anew with "
                "`headrace models add --server`, or set allow_new_signature"
            )
        with self._lock:
            if mismatch and mismatch != self.load.mismatch:
                logger.error("server.other_model endpoint=%s: %s", self.name, found)
            elif self.load.mismatch and not mismatch:
                logger.warning("server.model_fits_again endpoint=%s", self.name)
                self.problem = None
            self.load.mismatch = mismatch
            self._verified = not mismatch
            self._lock.notify_all()
        if mismatch:
            self._set_problem(mismatch)

    def _described(self, timeout_s: float) -> RemoteSignature:
        """Return the model's tensors, none if the server has the model and can't describe it, as TorchServe can't."""
        try:
            return self._connection.signature(timeout_s)
        except Misconfigured:
            self._connection.check_ready(timeout_s)
            return RemoteSignature(inputs=(), outputs=())

    def _look_again(self, cause: Exception, *, at_once: bool = False) -> None:
        """Look at the model's tensors, since a batch failed. Raises ServerAway if they are others now."""
        if not at_once and time.monotonic() < self._looked_at + LOOK_AGAIN_S:
            return
        self._looked_at = time.monotonic()
        try:
            self._look()
        except (ServerAway, Misconfigured, Refused, BadAnswer):
            return
        if self.load.mismatch:
            raise ServerAway(self.load.mismatch) from cause

    def _lost(self, exc: ServerAway, call: Call, answers: int) -> NoReturn:
        """Judge an endpoint that did not answer. answers: how many it had given when the call began."""
        now = time.monotonic()
        ran_out = now >= call.until - CLOSE_S
        with self._lock:
            answered_others = self.load.answers > answers
            if ran_out and answered_others:
                went_away = False
            elif ran_out and not call.patient:
                went_away = self.load.silent(now)
            else:
                went_away = self.load.failed(now, exc.retry_after_s)
            away = not self.load.breaker.is_up
        if away:
            self._verified = False
            self._mute = self._mute or isinstance(exc, NoAnswer)
            self._set_problem(exc)
        if went_away:
            logger.warning("server.away endpoint=%s: %s", self.name, exc)
        if ran_out and answered_others and call.patient:
            raise TooLong(str(exc)) from exc
        raise exc

    def _misconfigured(self, exc: Misconfigured) -> NoReturn:
        self._note(exc)
        self._set_problem(exc)
        self._unseen = True
        self._verified = False
        with self._lock:
            self.load.failed(time.monotonic(), MISCONFIGURED_S)
        raise ServerAway(exc.message, MISCONFIGURED_S) from exc

    def _note(self, exc: Exception) -> None:
        """Log what a person must mend, once."""
        text = str(exc)
        if isinstance(exc, ServerAway) or text == self._said:
            return
        self._said = text
        logger.error("server.misconfigured endpoint=%s: %s; its requests wait", self.name, text)

    def _set_problem(self, reason: object) -> None:
        """Take note of why there are no answers; the time is that of the first reason since there were."""
        since = self.problem.since if self.problem else time.time()
        self.problem = Problem(in_one_line(str(reason)), since)
        self._unseen = False

    def _answered(self) -> None:
        with self._lock:
            back = self.load.answered()
        self._is_back(back)

    def _succeeded(self, version: str, rows: int) -> None:
        with self._lock:
            back = self.load.succeeded(time.monotonic(), rows)
        self._is_back(back)
        if version and version != self._version:
            if self._version:
                logger.info("server.version endpoint=%s version=%s before=%s", self.name, version, self._version)
            self._version = version

    def _is_back(self, back: bool) -> None:
        if self.problem and not self.load.mismatch:
            self.problem = None
        if back:
            self._said = ""
            logger.warning("server.back endpoint=%s", self.name)
