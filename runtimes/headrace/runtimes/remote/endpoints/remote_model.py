"""A model on model servers, which a worker runs like any other."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from headrace.contracts.errors import PackageError
from headrace.contracts.package.manifest import Manifest
from headrace.contracts.package.server import Server
from headrace.contracts.package.signature import Signature
from headrace.contracts.problem import Problem
from headrace.contracts.tensors.codec import Tensors
from headrace.contracts.tensors.rows import RowAxes
from headrace.runtimes.base import Computed
from headrace.runtimes.remote.base import Connection, RemoteSignature, ServerAway, ServerBusy
from headrace.runtimes.remote.endpoints.endpoint import Call, Endpoint
from headrace.runtimes.remote.endpoints.keeper import Keeper
from headrace.runtimes.remote.endpoints.load import Load, choose, most_in_flight, wait_s
from headrace.runtimes.remote.endpoints.signature_watch import adopted, difference

#: While endpoints are up and full, a batch looks again after this time, or when one of them has room.
LOOK_S: Final = 0.2


class RemoteModel:
    """Sends each batch to the endpoint with the fewest in flight, and to another one if that fails. Thread-safe."""

    def __init__(
        self, manifest: Manifest, server: Server, connections: Sequence[tuple[str, Connection]], timeout_s: float
    ) -> None:
        """connections: each with its name for people. timeout_s: for a batch without a deadline.

        Nothing is connected yet.
        """
        self._manifest = manifest
        self._server = server
        self._timeout_s = timeout_s
        self._changed = threading.Condition()
        self._adopt: Callable[[Signature], None] = lambda _: None
        self._use(manifest.signature)
        self._endpoints = [
            Endpoint(name, connection, Load(random.random, server.max_in_flight), self._changed, self._judge)
            for name, connection in connections
        ]
        self._loads = [endpoint.load for endpoint in self._endpoints]
        self._keeper = Keeper(self._endpoints, self._changed)
        self._turns = itertools.count()

    def _use(self, signature: Signature) -> None:
        self._signature = signature
        self._axes = RowAxes(signature.inputs)

    @property
    def max_in_flight(self) -> int:
        """The most batches at the same time, on all endpoints that are up."""
        return most_in_flight(self._loads, time.monotonic())

    @property
    def problem(self) -> Problem | None:
        """Why endpoints give no answers at present: the reason of the one that has been so for longest."""
        found = [problem for endpoint in self._endpoints if (problem := endpoint.problem)]
        if not found:
            return None
        first = min(found, key=lambda problem: problem.since)
        if len(self._endpoints) == 1:
            return first
        return Problem(f"{len(found)} of {len(self._endpoints)} endpoints: {first.text}", first.since)

    def warm_up(self) -> None:
        """Do nothing: a server warms its models up itself, and may be away."""

    def on_new_signature(self, adopt: Callable[[Signature], None]) -> None:
        """Have a function called with the signature of a reloaded model, if the package allows another one."""
        self._adopt = adopt

    def infer(self, inputs: Tensors) -> Tensors:
        """Run one batch."""
        return self.compute(inputs, None).outputs

    def compute(self, inputs: Tensors, deadline: float | None) -> Computed:
        """Run one batch.

        Raises ServerAway, PackageError where the model has other tensors now, TransientFailure for a batch that took
        too long, BatchTooLarge, Refused, BadAnswer.
        """
        rows = self._axes.count(inputs)
        latest = time.monotonic() + self._timeout_s
        until = latest if deadline is None else min(deadline, latest)
        tried: dict[int, ServerAway] = {}
        while True:
            at = self._begin(tried, until)
            outputs = self._signature.outputs
            call = Call(inputs, outputs, rows, until, patient=until == latest, nan=self._server.nan)
            try:
                return self._endpoints[at].run(call)
            except ServerAway as exc:
                tried[at] = exc
            finally:
                self._end(at)

    def close(self) -> None:
        """Close all connections."""
        self._keeper.close()
        for endpoint in self._endpoints:
            endpoint.close()

    def _begin(self, tried: dict[int, ServerAway], until: float) -> int:
        """Return the endpoint for a batch, once one has room. tried: those that failed it, with their reasons."""
        with self._changed:
            while True:
                now = time.monotonic()
                at = choose(self._loads, now, next(self._turns), tried)
                if at is not None:
                    self._loads[at].begin()
                    return at
                if not any(load.is_up(now) for at, load in enumerate(self._loads) if at not in tried):
                    raise self._none_up(tried, now)
                if now >= until:
                    raise ServerBusy("all endpoints had as many batches as they take until the deadline")
                self._changed.wait(min(until - now, LOOK_S))

    def _end(self, at: int) -> None:
        with self._changed:
            load = self._loads[at]
            load.end()
            away = not load.breaker.is_up or bool(load.mismatch)
            self._changed.notify_all()
        if away:
            self._keeper.wake()

    def _none_up(self, tried: dict[int, ServerAway], now: float) -> Exception:
        mismatches = [load.mismatch for load in self._loads if load.mismatch]
        if len(mismatches) == len(self._loads):
            return PackageError(mismatches[0])
        retry_after_s = wait_s([load for load in self._loads if not load.mismatch], now)
        last = next(reversed(tried.values()), None)
        text = "no endpoint takes a batch at present" if last is None else str(last)
        kind = ServerBusy if isinstance(last, ServerBusy) else ServerAway
        return kind(text, retry_after_s)

    def _judge(self, remote: RemoteSignature) -> str:
        """Return how a server's model differs from what is expected; "" also where the package goes by the server."""
        with self._changed:
            found = difference(self._manifest, remote)
            if not found or not self._server.allow_new_signature:
                return found
            signature = adopted(self._manifest, remote)
            if signature is None:
                return found
            # Set aside before it is used: what is called here checks requests.
            self._use(signature)
            self._manifest = self._manifest.with_signature(signature)
        self._adopt(signature)
        return ""
